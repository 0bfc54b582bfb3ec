"""Records through a network with a task's head: batches of similar length, windows gathered by record."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from pretune.data.order import validation_rng
from pretune.data.windows import EncodedRecords
from pretune.text.tokenizer import Tokenizer
from pretune.types import Feature, ObjectiveLike, Prediction, Record

BATCH_TOKENS = 8192


class TaskLike(Protocol):
    """What is asked of a task here."""

    def encode(
        self, record: Record, number: int, tokenizer: Tokenizer, *, labelled: bool = True
    ) -> list[Feature]:
        """The features of a record."""

    def decode(
        self, record: Record, features: Sequence[Feature], logits: Sequence[npt.NDArray[np.float32]]
    ) -> Prediction:
        """What the head's logits, (places, C) a feature, say of the record."""


@torch.inference_mode()
def predict(
    network: nn.Module,
    task: TaskLike,
    objective: ObjectiveLike,
    tokenizer: Tokenizer,
    records: Sequence[Record],
    *,
    batch_size: int | None = None,
) -> list[Prediction]:
    """One prediction a record, in the order of the records; ``batch_size`` bounds the rows of a batch."""
    if not records:
        return []
    encoded = [task.encode(r, i, tokenizer, labelled=False) for i, r in enumerate(records)]
    features = [feature for found in encoded for feature in found]
    bounds = objective.length_bounds(EncodedRecords(features).lengths)
    order = np.argsort(-bounds, kind="stable")  # the longest first: it says how many fit
    was_training = network.training
    network.eval()
    logits: list[npt.NDArray[np.float32]] = [np.zeros((0, 0), np.float32)] * len(features)
    start = 0
    while start < len(order):
        size = max(1, BATCH_TOKENS // int(bounds[order[start]]))
        chosen = order[start : start + min(size, batch_size or size)].tolist()
        found = _logits(network, objective, [features[i] for i in chosen])
        for i, rows in zip(chosen, found, strict=True):
            logits[i] = rows
        start += len(chosen)
    network.train(was_training)
    said = iter(logits)
    return [
        task.decode(record, found, [next(said) for _ in found])
        for record, found in zip(records, encoded, strict=True)
    ]


def _logits(network: nn.Module, objective: ObjectiveLike, features: Sequence[Feature]) -> list[Any]:
    """The logits of the objective's first head, (places, C) a feature."""
    head = objective.heads[0]
    examples = [objective.build(f, validation_rng(f.record)) for f in features]
    outputs = network(objective.collate([[e] for e in examples]), heads=(head,))
    counts = [sum(len(row.places[head]) for row in example.rows) for example in examples]
    return np.split(outputs.logits[head].float().cpu().numpy(), np.cumsum(counts)[:-1])
