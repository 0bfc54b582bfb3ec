"""The gradients of one step, whatever micro-batches and ranks it is divided into.

The counts of all micro-batches of all ranks are added up before the first backward pass and each term of the
loss is divided once, so accumulation, packing and the number of ranks change a gradient by rounding only.
torch's generator is reseeded from (seed, step, micro-batch, rank): a step's dropout depends on its number,
not on what ran before it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from pretune.config import digest
from pretune.runtime.distributed import World
from pretune.training.dataloader import weighs
from pretune.training.ddp import Parallel, Replicated
from pretune.types import Batch, Learning


class Gradients:
    """Adds up in the network what the objective's loss says of a step."""

    def __init__(
        self, network: nn.Module, objective: Learning, seed: int, parallel: Parallel | None = None
    ) -> None:
        """``parallel``: how ranks share the network, where several train it."""
        self.network, self.objective, self.seed = network, objective, seed
        self.parallel = parallel or Replicated(network, World())
        self.world, self.device = self.parallel.world, self.parallel.world.device

    def add(self, batches: Sequence[Batch], step: int, stop: Callable[[], bool]) -> float | None:
        """The loss of ``step``, the sum of its terms, each a mean over the step's targets; None: ``stop``."""
        counts: dict[str, int] = {}
        for batch in batches:
            for term, count in batch.counts.items():
                counts[term] = counts.get(term, 0) + count
        counts = self.world.sum(counts)
        self.network.train()
        value = 0.0
        for number, batch in enumerate(batches):
            if stop():
                return None
            torch.manual_seed(self._seed(step, number))
            share = 1.0 if weighs(batch) else 0.0
            for loss in self.objective.loss(self.network, batch.to(self.device)):
                parts = [
                    share * weight * total / max(1, counts[term])
                    for term, (total, weight) in loss.terms.items()
                ]
                mean = torch.stack(parts).sum()
                torch.autograd.backward(mean)
                value += mean.item()
        self.parallel.reduce()
        return self.world.sum_values({"loss": value})["loss"]

    def _seed(self, step: int, number: int) -> int:
        """Of micro-batch ``number``: rank 0 draws as a process alone does."""
        rank = (self.world.rank,) if self.world.rank else ()
        return int(digest([self.seed, step, number, *rank])[:15], 16)


def never() -> bool:
    """No stop is asked for."""
    return False
