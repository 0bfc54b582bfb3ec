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
from pretune.runtime.device import network_device
from pretune.types import Example, IntArray, Row, SpecialTokens

MAX_BATCH_TOKENS = 4096


@torch.inference_mode()
def iter_logits(
    network: nn.Module, head: str, rows: Iterable[tuple[IntArray, IntArray]], specials: SpecialTokens
) -> Iterator[Tensor]:
    """For each row, (tokens (T,), places (n,)), the logits (n, V) at its places, in the order of the rows.

    A network that reads in permuted order sees no mask; it is told where they stand, and reads each of these
    places from all that are not masked.
    """
    was_training = network.training
    network.eval()
    try:
        for batch_rows in _batches(rows):
            grid_rows = [Row(tokens, {head: positions}, {}) for tokens, positions in batch_rows]
            if head == permutation_lm.HEAD:
                grid_rows = [
                    replace(row, order=permutation_lm.masked_order(row.tokens, specials)) for row in grid_rows
                ]
            examples = [[Example(i, (row,))] for i, row in enumerate(grid_rows)]
            batch = collate(examples, pad_id=specials.pad_id, heads=(head,)).to(network_device(network))
            logits: Tensor = network(batch, heads=(head,)).logits[head]
            yield from torch.split(
                check_finite(logits.float()).cpu(), [len(places) for _, places in batch_rows]
            )
    finally:
        network.train(was_training)


def _batches(
    rows: Iterable[tuple[IntArray, IntArray]],
) -> Iterator[list[tuple[IntArray, IntArray]]]:
    """Neighbouring rows, at most ``BATCH_TOKENS`` places of the grid together, or one row alone."""
    batch: list[tuple[IntArray, IntArray]] = []
    max_width = 0
    for tokens, positions in rows:
        max_width = max(max_width, len(tokens))
        if batch and max_width * (len(batch) + 1) > MAX_BATCH_TOKENS:
            yield batch
            batch, max_width = [], len(tokens)
        batch.append((tokens, np.asarray(positions, np.int64)))
    if batch:
        yield batch
