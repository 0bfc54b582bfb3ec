"""A step, an evaluation and a checkpoint on a copy of the network, timed before a run is planned."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from torch import nn

from pretune.training import ddp
from pretune.training.checkpointer import Checkpointer
from pretune.training.dataloader import DataLoaderLike
from pretune.training.gradients import GradientAccumulator, never_stop
from pretune.training.oom_backoff import OOMBackoff
from pretune.training.optimizers import optimizers
from pretune.training.settings import TrainingSettings
from pretune.training.step_timer import TimingTrial
from pretune.training.validation import Evaluate


def build_trial(
    *,
    dataloader: DataLoaderLike,
    settings: TrainingSettings,
    checkpointer: Checkpointer,
    oom_backoff: OOMBackoff,
    evaluate: Evaluate,
    interruptible: Callable[[Sequence[nn.Module]], AbstractContextManager[None]],
) -> TimingTrial:
    """A trial of the run that these make.

    Args:
        interruptible: within, work that calls one of the networks is left where a stop is asked for.
    """
    model_io, parallel = checkpointer.model_io, checkpointer.parallel
    full_network = copy.deepcopy(model_io.network)
    trial = ddp.build_parallel(full_network, parallel.world, settings.parallel)
    optimizer = optimizers.build_optimizers(trial.network, settings.optimizer)
    trial_gradients = GradientAccumulator(trial.network, settings.seed, trial)

    def attempt(number: int, share: float, rows: int) -> None:
        dataloader.micro_batch = rows
        with interruptible([trial.network]):
            trial_gradients.accumulate(dataloader(number, share), number, never_stop)
        ddp.clip_gradients(trial.network, settings.clip)

    def step(number: int, share: float) -> None:
        oom_backoff.run_with_backoff(0, lambda rows: attempt(number, share, rows), optimizer.zero_grad)
        optimizer.step(1.0, number)

    def evaluate_trial() -> None:
        trial.unshard_into()
        # A task is judged by the model that it belongs to, whatever network it is handed.
        with interruptible([full_network, model_io.network]):
            evaluate(full_network, 0)

    return TimingTrial(step, evaluate_trial, lambda: checkpointer.trial_save(optimizer))
