"""The size of a model that is to be trained for some minutes, by what each size costs on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import nn

from pretune.errors import TrainingError
from pretune.planning.size import SHAPES, Shape, ShapeTrial, choose_shape
from pretune.training.budget import trial_points
from pretune.training.dataloader import DataLoaderLike
from pretune.training.gradients import GradientAccumulator, never_stop
from pretune.training.oom_backoff import first_line, is_out_of_memory
from pretune.training.optimizers import optimizers
from pretune.training.settings import OptimizerSettings

MEMORY_HINT = "shorten max_length, or set training.micro_batch (rows at once) to less"
STEPS_PER_TRIAL = 3
"""Measured a shape, after one that warms up."""

CreateNetwork = Callable[[Shape], nn.Module]
"""A network of that shape, on weights that are thrown away."""


def is_size_given(model: Mapping[str, Any]) -> bool:
    """Do the model's settings say how large it is?"""
    return not model.keys().isdisjoint(SHAPES[0].to_settings())


def choose_size(
    create: CreateNetwork,
    dataloader: DataLoaderLike,
    optimizer: OptimizerSettings,
    *,
    seconds: float,
    corpus_tokens: int,
) -> ShapeTrial:
    """The shape to train for ``seconds``: the largest that reads enough text in that time.

    Raises:
        TrainingError: the smallest does not fit into memory.
    """
    trials = iter_trials(lambda shape: time_shape(shape, create(shape), dataloader, optimizer))
    return choose_shape(trials, seconds, corpus_tokens)


def iter_trials(run_trial: Callable[[Shape], ShapeTrial]) -> Iterator[ShapeTrial]:
    """The trial of each shape, up to the first that does not fit into memory: no larger one would."""
    for shape in SHAPES:
        try:
            found = run_trial(shape)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            if shape == SHAPES[0]:
                raise TrainingError(
                    f"{shape}: does not fit into memory ({first_line(error)}); {MEMORY_HINT}"
                ) from None
            return
        yield found


def time_shape(
    shape: Shape,
    network: nn.Module,
    dataloader: DataLoaderLike,
    settings: OptimizerSettings,
) -> ShapeTrial:
    """What a step of this shape costs here, its optimiser included."""
    optimizer = optimizers.build_optimizers(network, settings)
    accumulator = GradientAccumulator(network, seed=0)
    seconds = 0.0
    for share, position in trial_points(dataloader.cost_changes_at):
        began = 0.0
        for step in range(1 + STEPS_PER_TRIAL):
            if step == 1:
                began = time.monotonic()
            accumulator.accumulate(dataloader(step, position), step, never_stop)
            optimizer.step(1.0, step)
        seconds += share * (time.monotonic() - began) / STEPS_PER_TRIAL
    return ShapeTrial(shape, _hidden_parameters(network), dataloader.tokens_per_step / seconds)


def _hidden_parameters(network: nn.Module) -> int:
    """Parameters but those of embeddings and of heads, which grow with the vocabulary."""
    outer = {p for m in network.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}
    heads = dict(network.named_children()).get("heads")
    outer |= set() if heads is None else set(heads.parameters())
    return sum(p.numel() for p in network.parameters() if p not in outer)
