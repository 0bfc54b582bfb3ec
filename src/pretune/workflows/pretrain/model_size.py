"""The size of a model that is to be trained for some minutes, by what each size costs on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from pretune.errors import TrainingError
from pretune.planning.size import LADDER, Shape, Trial, largest
from pretune.training.budget import tried_at
from pretune.training.dataloader import Batches
from pretune.training.oom_backoff import first_line, ran_out
from pretune.training.optimizers import optimizers
from pretune.training.settings import OptimizerSettings
from pretune.types import Learning

ROWS = "shorten max_length, or set training.micro_batch (rows at once) to less"
STEPS = 3
"""Measured a shape, after one that warms up."""

Create = Callable[[Shape], nn.Module]
"""A network of that shape, on weights that are thrown away."""


def decided(model: Mapping[str, Any]) -> bool:
    """Do the model's settings say how large it is?"""
    return not model.keys().isdisjoint(LADDER[0].settings())


def fitted(
    create: Create,
    objective: Learning,
    batches: Batches,
    optimizer: OptimizerSettings,
    *,
    seconds: float,
    corpus_tokens: int,
) -> Trial:
    """The shape to train for ``seconds``: the largest that reads enough text in that time.

    Raises:
        TrainingError: the smallest does not fit into memory.
    """
    trials = those_that_fit(lambda shape: tried(shape, create(shape), objective, batches, optimizer))
    return largest(trials, seconds, corpus_tokens)


def those_that_fit(trial: Callable[[Shape], Trial]) -> Iterator[Trial]:
    """The trial of each shape, up to the first that does not fit into memory: no larger one would."""
    for shape in LADDER:
        try:
            found = trial(shape)
        except (MemoryError, RuntimeError) as error:
            if not ran_out(error):
                raise
            if shape == LADDER[0]:
                raise TrainingError(
                    f"{shape}: does not fit into memory ({first_line(error)}); {ROWS}"
                ) from None
            return
        yield found


def tried(
    shape: Shape, network: nn.Module, objective: Learning, batches: Batches, settings: OptimizerSettings
) -> Trial:
    """What a step of this shape costs here, its optimiser included."""
    optimizer = optimizers.build(network, settings)
    network.train()
    seconds = 0.0
    for part, place in tried_at(batches.turns_at):
        began = 0.0
        for step in range(1 + STEPS):
            if step == 1:
                began = time.monotonic()
            for batch in batches(step, place):
                for loss in objective.loss(network, batch):
                    total = torch.stack([weight * value for value, weight in loss.terms.values()]).sum()
                    (total / max(1, sum(batch.counts.values()))).backward()  # type: ignore[no-untyped-call]
            optimizer.step(1.0, step)
        seconds += part * (time.monotonic() - began) / STEPS
    return Trial(shape, _hidden_parameters(network), batches.tokens_per_step / seconds)


def _hidden_parameters(network: nn.Module) -> int:
    """Parameters but those of embeddings and of heads, which grow with the vocabulary."""
    outer = {p for m in network.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}
    heads = getattr(network, "heads", None)
    outer |= set(heads.parameters()) if isinstance(heads, nn.Module) else set()
    return sum(p.numel() for p in network.parameters() if p not in outer)
