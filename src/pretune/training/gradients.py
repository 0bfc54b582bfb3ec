"""The gradients of one step, whatever micro-batches it is cut into.

The counts of all micro-batches are added up before the first backward pass and each term of the loss is
divided once, so accumulation and packing change a gradient by rounding only. torch's generator is reseeded
from (seed, step, micro-batch): a step's dropout depends on its number, not on what ran before it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from pretune.config import digest
from pretune.types import Batch, ObjectiveLike


class Gradients:
    """Adds up in ``network`` what the objective's loss says of a step."""

    def __init__(self, network: nn.Module, objective: ObjectiveLike, seed: int) -> None:
        self.network, self.objective, self.seed = network, objective, seed

    def add(self, batches: Sequence[Batch], step: int, stop: Callable[[], bool]) -> float | None:
        """The loss of ``step``, the sum of its terms, each a mean over the step's targets; None: ``stop``."""
        counts: dict[str, int] = {}
        for batch in batches:
            for term, count in batch.counts.items():
                counts[term] = counts.get(term, 0) + count
        self.network.train()
        value = 0.0
        for number, batch in enumerate(batches):
            if stop():
                return None
            torch.manual_seed(int(digest([self.seed, step, number])[:15], 16))
            for loss in self.objective.loss(self.network, batch):
                parts = [
                    weight * total / max(1, counts[term]) for term, (total, weight) in loss.terms.items()
                ]
                mean = torch.stack(parts).sum()
                torch.autograd.backward(mean)
                value += mean.item()
        return value


def never() -> bool:
    """No stop is asked for."""
    return False
