"""The gradients of one step, whatever micro-batches and ranks it is divided into.

The counts of all micro-batches of all ranks are added up before the first backward pass and each term of the
loss is divided once, so accumulation, packing and the number of ranks change a gradient by rounding only.
torch's generator is reseeded from (seed, step, micro-batch, rank): a step's dropout depends on its number,
not on what ran before it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from pretune.config import digest
from pretune.runtime.distributed import World
from pretune.training.dataloader import MicroBatch
from pretune.training.ddp import Parallel, ReplicatedNetwork
from pretune.training.whole_step import whole_step_gradients
from pretune.types import Batch, Loss


class GradientAccumulator:
    """Adds up in the network the gradients of a step's micro-batches, each of its own objective."""

    def __init__(self, network: nn.Module, seed: int, parallel: Parallel | None = None) -> None:
        """``parallel``: how ranks share the network, where several train it."""
        self.network, self.seed = network, seed
        self.parallel = parallel or ReplicatedNetwork(network, World())
        self.world, self.device = self.parallel.world, self.parallel.world.device

    def accumulate(
        self, micro_batches: Sequence[MicroBatch], step: int, should_stop: Callable[[], bool]
    ) -> float | None:
        """The loss of ``step``, the sum of its terms, each a mean over the step's targets; None: stopped."""
        counts: dict[str, int] = {}
        for micro_batch in micro_batches:
            for term, count in micro_batch.counts().items():
                counts[term] = counts.get(term, 0) + count
        counts = self.world.sum_counts(counts)
        self.network.train()
        value, gradients = self._whole_step_gradients(micro_batches, step, counts)
        for number, micro_batch in enumerate(micro_batches):
            if should_stop():
                return None
            batch = self._prepare(micro_batch, step, number)
            if micro_batch.objective.needs_whole_step:
                representations = micro_batch.objective.representations(self.network, batch)  # (E, ...)
                torch.autograd.backward(representations, gradients[number])
                continue
            for loss in micro_batch.objective.loss(self.network, batch):
                mean = mean_loss(loss, micro_batch, counts)
                torch.autograd.backward(mean)
                value += mean.item()
        self.parallel.reduce_gradients()
        return self.world.sum_values({"loss": value})["loss"]

    def _prepare(self, micro_batch: MicroBatch, step: int, number: int) -> Batch:
        """The batch on the device of the network, whose dropout is seeded."""
        torch.manual_seed(self._micro_batch_seed(step, number))
        batch: Batch = micro_batch.batch.to(self.device)
        return batch

    def _whole_step_gradients(
        self, micro_batches: Sequence[MicroBatch], step: int, counts: Mapping[str, int]
    ) -> tuple[float, dict[int, Tensor]]:
        """The losses that need the whole step, and number of a micro-batch to what its representations get.

        One rank has the loss, so that it is counted once.
        """
        numbers: dict[str, list[int]] = {}
        for number, micro_batch in enumerate(micro_batches):
            if micro_batch.objective.needs_whole_step:
                numbers.setdefault(micro_batch.component, []).append(number)
        value, gradients = 0.0, {}
        for members in numbers.values():
            first = micro_batches[members[0]]
            found, counted = {}, []
            for number in members:
                batch = self._prepare(micro_batches[number], step, number)
                with torch.no_grad():
                    found[number] = micro_batches[number].objective.representations(self.network, batch)
                # Rows that only keep this rank in step with the others are no examples.
                counted.append(found[number] if micro_batches[number].has_targets else found[number][:0])
            loss, parts = whole_step_gradients(counted, partial(_whole_step_loss, first, counts), self.world)
            value += loss if self.world.is_main else 0.0
            for number, part in zip(members, parts, strict=True):
                gradients[number] = part if len(part) else torch.zeros_like(found[number])
        return value, gradients

    def _micro_batch_seed(self, step: int, micro_batch: int) -> int:
        """Of micro-batch ``number``: rank 0 draws as a process alone does."""
        rank = (self.world.rank,) if self.world.rank else ()
        return int(digest([self.seed, step, micro_batch, *rank])[:15], 16)


def mean_loss(loss: Loss, micro_batch: MicroBatch, counts: Mapping[str, int]) -> Tensor:
    """The sum of the terms, (), each divided by its targets in the step; 0 of a batch that does not count."""
    share = micro_batch.loss_weight if micro_batch.has_targets else 0.0
    terms = [
        share * weight * total / max(1, counts[micro_batch.term(name)])
        for name, (total, weight) in loss.terms.items()
    ]
    return torch.stack(terms).sum()


def _whole_step_loss(micro_batch: MicroBatch, counts: Mapping[str, int], representations: Tensor) -> Tensor:
    """The loss of the component that ``micro_batch`` is of, (), of its examples in the step."""
    return mean_loss(micro_batch.objective.whole_step_loss(representations), micro_batch, counts)


def never_stop() -> bool:
    """No stop is asked for."""
    return False
