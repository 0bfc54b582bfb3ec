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
from pretune.training.dataloader import has_targets
from pretune.training.ddp import Parallel, ReplicatedNetwork
from pretune.types import Batch, SupportsLoss


class GradientAccumulator:
    """Adds up in the network what the objective's loss says of a step."""

    def __init__(
        self, network: nn.Module, objective: SupportsLoss, seed: int, parallel: Parallel | None = None
    ) -> None:
        """``parallel``: how ranks share the network, where several train it."""
        self.network, self.objective, self.seed = network, objective, seed
        self.parallel = parallel or ReplicatedNetwork(network, World())
        self.world, self.device = self.parallel.world, self.parallel.world.device

    def accumulate(
        self, micro_batches: Sequence[Batch], step: int, should_stop: Callable[[], bool]
    ) -> float | None:
        """The loss of ``step``, the sum of its terms, each a mean over the step's targets; None:
        ``should_stop``.
        """
        counts: dict[str, int] = {}
        for batch in micro_batches:
            for term, count in batch.counts.items():
                counts[term] = counts.get(term, 0) + count
        counts = self.world.sum_counts(counts)
        self.network.train()
        value = 0.0
        for number, batch in enumerate(micro_batches):
            if should_stop():
                return None
            torch.manual_seed(self._micro_batch_seed(step, number))
            batch_weight = 1.0 if has_targets(batch) else 0.0
            for loss in self.objective.loss(self.network, batch.to(self.device)):
                terms = [
                    batch_weight * weight * total / max(1, counts[term])
                    for term, (total, weight) in loss.terms.items()
                ]
                mean = torch.stack(terms).sum()
                torch.autograd.backward(mean)
                value += mean.item()
        self.parallel.reduce_gradients()
        return self.world.sum_values({"loss": value})["loss"]

    def _micro_batch_seed(self, step: int, micro_batch: int) -> int:
        """Of micro-batch ``number``: rank 0 draws as a process alone does."""
        rank = (self.world.rank,) if self.world.rank else ()
        return int(digest([self.seed, step, micro_batch, *rank])[:15], 16)


def never_stop() -> bool:
    """No stop is asked for."""
    return False
