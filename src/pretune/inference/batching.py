"""Rows of tokens through a network in batches that fit, the logits of chosen places out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from pretune.data.packing import collate
from pretune.nn.nonfinite import check_finite
from pretune.objectives import permutation_lm
from pretune.types import Example, IntArray, Row, Specials

BATCH_TOKENS = 4096


@torch.inference_mode()
def logits_of(
    network: nn.Module, head: str, rows: Iterable[tuple[IntArray, IntArray]], specials: Specials
) -> Iterator[Tensor]:
    """For each row, (tokens (T,), places (n,)), the logits (n, V) at its places, in the order of the rows.

    A network that reads in permuted order sees no mask; it is told where they stand, and reads each of these
    places from all that are not masked.
    """
    was_training = network.training
    network.eval()
    try:
        for chosen in _batches(rows):
            told = [Row(tokens, {head: places}, {}) for tokens, places in chosen]
            if head == permutation_lm.HEAD:
                told = [replace(row, order=permutation_lm.unseen(row.tokens, specials)) for row in told]
            examples = [[Example(i, (row,))] for i, row in enumerate(told)]
            batch = collate(examples, pad=specials.pad, heads=(head,))
            logits: Tensor = network(batch, heads=(head,)).logits[head]
            yield from torch.split(check_finite(logits.float()), [len(places) for _, places in chosen])
    finally:
        network.train(was_training)


def _batches(
    rows: Iterable[tuple[IntArray, IntArray]],
) -> Iterator[list[tuple[IntArray, IntArray]]]:
    """Neighbouring rows, at most ``BATCH_TOKENS`` places of the grid together, or one row alone."""
    batch: list[tuple[IntArray, IntArray]] = []
    widest = 0
    for tokens, places in rows:
        widest = max(widest, len(tokens))
        if batch and widest * (len(batch) + 1) > BATCH_TOKENS:
            yield batch
            batch, widest = [], len(tokens)
        batch.append((tokens, np.asarray(places, np.int64)))
    if batch:
        yield batch
