"""Features through a network: the logits of a task's head, nats of given tokens, vectors of texts."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from pretune.data.corpus.windows import EncodedRecords
from pretune.data.order import validation_rng
from pretune.data.packing import collate, pack_tight
from pretune.inference.batching import iter_logits
from pretune.nn.nonfinite import check_finite
from pretune.runtime.device import network_device
from pretune.text.tokenizer import Tokenizer
from pretune.types import Example, Feature, ObjectiveLike, Row, SpecialTokens, add_special_tokens

MAX_BATCH_TOKENS = 8192

Array = npt.NDArray[np.float32]


@torch.inference_mode()
def predict_logits(
    network: nn.Module,
    objective: ObjectiveLike,
    features: Sequence[Feature],
    *,
    row_capacity: int | None = None,
    batch_size: int | None = None,
) -> list[Array]:
    """The logits of the objective's first head at its positions, (n, C) a feature.

    Args:
        row_capacity: positions of a row that several features may share; None: each has one of its own.
        batch_size: the most rows at once.
    """
    if not features:
        return []
    bounds = objective.length_bounds(EncodedRecords(features).lengths)
    rows = (
        pack_tight(bounds, row_capacity)
        if row_capacity and objective.supports_packing
        else [[i] for i in range(len(bounds))]
    )
    rows.sort(key=lambda row: -int(bounds[row].sum()))  # the widest first: it says how many fit
    was_training = network.training
    network.eval()
    logits: list[Array] = [np.zeros((0, 0), np.float32)] * len(features)
    start = 0
    while start < len(rows):
        size = max(1, MAX_BATCH_TOKENS // int(bounds[rows[start]].sum()))
        batch_rows = rows[start : start + min(size, batch_size or size)]
        found = _head_logits(network, objective, [[features[i] for i in row] for row in batch_rows])
        for i, feature_logits in zip(chain.from_iterable(batch_rows), found, strict=True):
            logits[i] = feature_logits
        start += len(batch_rows)
    network.train(was_training)
    return logits


def _head_logits(
    network: nn.Module, objective: ObjectiveLike, rows: Sequence[Sequence[Feature]]
) -> list[Array]:
    """The logits of the objective's first head, (n, C) a feature, row by row."""
    head = objective.heads[0]
    groups = [[objective.build(f, validation_rng(f.record)) for f in row] for row in rows]
    outputs = network(objective.collate(groups).to(network_device(network)), heads=(head,))
    counts = [sum(len(row.positions[head]) for row in e.rows) for e in chain.from_iterable(groups)]
    logits = check_finite(outputs.logits[head].float())
    return list(np.split(logits.cpu().numpy(), np.cumsum(counts)[:-1]))


@torch.inference_mode()
def predict_nll(
    network: nn.Module, head: str, features: Sequence[Feature], tokenizer: Tokenizer
) -> list[Array]:
    """The nats of each token of a feature's last sequence, after those before it: (n,) a feature.

    The sequences follow each other behind what the tokenizer puts before a text; ``head`` predicts the next
    token.
    """
    before = np.array(tokenizer.specials.single[0], np.int64)
    rows, targets = [], []
    for feature in features:
        tokens = np.concatenate([before, *feature.sequences]).astype(np.int64)  # (T,)
        size = len(feature.sequences[-1])
        rows.append((tokens, np.arange(len(tokens) - size - 1, len(tokens) - 1)))
        targets.append(torch.from_numpy(np.asarray(feature.sequences[-1], np.int64)))
    logits = iter_logits(network, head, rows, tokenizer.specials)
    return [
        nn.functional.cross_entropy(found, target.to(found.device), reduction="none").cpu().numpy()  # (n,)
        for found, target in zip(logits, targets, strict=True)
    ]


@torch.inference_mode()
def predict_vectors(
    network: nn.Module, features: Sequence[Feature], specials: SpecialTokens, *, segments: bool
) -> list[Array]:
    """The mean of the last layer over the tokens of each feature, special ones among them: (D,) a feature."""
    was_training = network.training
    network.eval()
    found: list[Array] = []
    for feature in features:
        tokens, kinds = add_special_tokens(specials, feature.sequences)  # (T,), (T,)
        row = Row(tokens, {}, {}, kinds if segments else None)
        batch = collate(
            [[Example(feature.record, (row,))]], pad_id=specials.pad_id, heads=(), segments=segments
        )
        hidden = network(batch.to(network_device(network)), heads=()).hidden  # (1, T, D)
        found.append(check_finite(hidden[0, : len(tokens)].float().mean(0)).cpu().numpy())  # (D,)
    network.train(was_training)
    return found
