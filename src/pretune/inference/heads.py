"""Records through a network with a task's head: short texts share rows, windows are gathered by record."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from pretune.data.corpus.windows import EncodedRecords
from pretune.data.order import validation_rng
from pretune.data.packing import pack_tight
from pretune.nn.nonfinite import check_finite
from pretune.text.tokenizer import Tokenizer
from pretune.types import Feature, ObjectiveLike, Prediction, Record

MAX_BATCH_TOKENS = 8192


class TaskLike(Protocol):
    """What is asked of a task here."""

    def encode(
        self, record: Record, record_index: int, tokenizer: Tokenizer, *, labelled: bool = True
    ) -> list[Feature]:
        """The features of a record."""

    def decode(
        self, record: Record, features: Sequence[Feature], logits: Sequence[npt.NDArray[np.float32]]
    ) -> Prediction:
        """What the head's logits, (places, C) a feature, say of the record."""


@torch.inference_mode()
def predict_records(
    network: nn.Module,
    task: TaskLike,
    objective: ObjectiveLike,
    tokenizer: Tokenizer,
    records: Sequence[Record],
    *,
    row_capacity: int | None = None,
    batch_size: int | None = None,
) -> list[Prediction]:
    """One prediction a record, in the order of the records.

    Args:
        row_capacity: places of a row that several texts may share; None: each has one of its own.
        batch_size: the most rows at once.
    """
    if not records:
        return []
    encoded = [task.encode(r, i, tokenizer, labelled=False) for i, r in enumerate(records)]
    features = [feature for found in encoded for feature in found]
    bounds = objective.length_bounds(EncodedRecords(features).lengths)
    rows = (
        pack_tight(bounds, row_capacity)
        if row_capacity and objective.supports_packing
        else [[i] for i in range(len(bounds))]
    )
    rows.sort(key=lambda row: -int(bounds[row].sum()))  # the widest first: it says how many fit
    was_training = network.training
    network.eval()
    logits: list[npt.NDArray[np.float32]] = [np.zeros((0, 0), np.float32)] * len(features)
    start = 0
    while start < len(rows):
        size = max(1, MAX_BATCH_TOKENS // int(bounds[rows[start]].sum()))
        batch_rows = rows[start : start + min(size, batch_size or size)]
        found = _head_logits(network, objective, [[features[i] for i in row] for row in batch_rows])
        for i, record_logits in zip(chain.from_iterable(batch_rows), found, strict=True):
            logits[i] = record_logits
        start += len(batch_rows)
    network.train(was_training)
    each = iter(logits)
    return [
        task.decode(record, found, [next(each) for _ in found])
        for record, found in zip(records, encoded, strict=True)
    ]


def _head_logits(
    network: nn.Module, objective: ObjectiveLike, rows: Sequence[Sequence[Feature]]
) -> list[Any]:
    """The logits of the objective's first head, (places, C) a feature, row by row."""
    head = objective.heads[0]
    groups = [[objective.build(f, validation_rng(f.record)) for f in row] for row in rows]
    outputs = network(objective.collate(groups), heads=(head,))
    counts = [sum(len(row.positions[head]) for row in e.rows) for e in chain.from_iterable(groups)]
    logits = check_finite(outputs.logits[head].float())
    return np.split(logits.cpu().numpy(), np.cumsum(counts)[:-1])
