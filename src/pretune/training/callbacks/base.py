"""What a callback is asked, and what it is told of a step."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from pretune.training.train_state import TrainState
from pretune.types import Score


@dataclass(frozen=True, slots=True)
class StepResult:
    """One optimizer step that was made."""

    loss: float
    gradient_norm: float
    """L2, before clipping."""
    lr_factor: float
    """Of the peak learning rate."""
    seconds: float


class Callback:
    """Does nothing, at each of the points of a run at which the trainer calls."""

    def on_step_start(self, state: TrainState) -> None:
        """Before the batches of the step that is next, ``state.step``, are built."""

    def around_backward(self, step: int) -> AbstractContextManager[None]:
        """Around the forward and backward passes of ``step``."""
        return nullcontext()

    def on_gradients(self, step: int) -> None:
        """The gradients are whole and not yet clipped."""

    def on_step_skip(self, state: TrainState) -> None:
        """The gradients were thrown away; the weights are as they were."""

    def on_step_end(self, state: TrainState, result: StepResult) -> None:
        """The weights are updated; ``state`` counts the step already."""

    def on_evaluation_end(self, state: TrainState, scores: Sequence[Score], seconds: float) -> None:
        """The network was evaluated after ``state.step`` steps."""
