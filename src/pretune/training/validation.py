"""Evaluations of the network while it is trained: the best step so far, and when patience ends."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import nn

from pretune.errors import TrainingError
from pretune.runtime.distributed import World
from pretune.training.settings import TrainingSettings
from pretune.training.train_state import TrainState
from pretune.types import Score

Evaluate = Callable[[nn.Module, int], list[Score]]
"""The scores of a network after so many steps on held-out data, first the one that decides."""


class Validation:
    """Scores the network after some steps, and remembers in the state which were the best."""

    def __init__(self, evaluate: Evaluate, settings: TrainingSettings, world: World) -> None:
        self.evaluate, self.settings, self.world = evaluate, settings, world

    def score(self, network: nn.Module, state: TrainState) -> list[Score]:
        """The scores after ``state.step`` steps, which the state takes note of.

        Raises:
            TrainingError: the first is no number.
        """
        # Rank 0's, on all ranks: what they decide, all decide alike.
        rows = self.world.broadcast([score.to_dict() for score in self.evaluate(network, state.step)])
        scores = [Score.from_dict(row) for row in rows]
        first = scores[0]
        if not math.isfinite(first.value):
            raise TrainingError(
                f"step {state.step}: validation {first.name} {first.value}: the weights are lost; "
                "start again in another folder (--out) with a lower training.optimizer.learning_rate"
            )
        if first.is_better_than(state.best_scores.get(first.name)):
            state.best_step, state.best_scores = state.step, {s.name: s.value for s in scores}
        self._count_stale(state, first)
        return scores

    def is_out_of_patience(self, state: TrainState) -> bool:
        """Did ``patience`` evaluations in a row not improve the first score by ``min_delta``?"""
        return (
            self.settings.patience is not None
            and state.evaluations_without_improvement >= self.settings.patience
        )

    def _count_stale(self, state: TrainState, score: Score) -> None:
        min_delta = self.settings.min_delta * (1 if score.direction == "higher" else -1)
        better = score.is_better_than(
            None if state.patience_score is None else state.patience_score + min_delta
        )
        state.patience_score, state.evaluations_without_improvement = (
            (score.value, 0) if better else (state.patience_score, state.evaluations_without_improvement + 1)
        )
