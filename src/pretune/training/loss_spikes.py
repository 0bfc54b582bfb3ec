"""Steps that went wrong: what a bad step is, and how a run gets past several of them.

A step whose loss or gradient is no number, or whose loss is a hundredfold of what was usual, changes nothing.
After three in a row the weights before them are not trusted either: the run goes back to its last good
checkpoint and leaves out every step from there to the last bad one, as Chowdhery et al. 2022 (PaLM, section
5.1) do. Each bad step and each way back stand in the plan's ``changes`` with what was found, so a resume and
a repeat leave out the same steps, whether or not the fault would show again.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pretune.errors import CheckpointError, TrainingError
from pretune.runtime import atomic_files
from pretune.runtime.run_folder import Run
from pretune.training.train_state import TrainState

SPIKE_FACTOR = 100.0
"""A loss of so many times the median of the last ones is bad."""
MIN_MEDIAN = 0.05
"""Nats that the median counts for at least: a classifier that knows its records has losses near zero, and
one hard record is no fault."""
MAX_LOSSES, MIN_LOSSES = 32, 4
"""Accepted losses that the median is taken of, at most and at least."""
MAX_BAD_STEPS = 3
"""Bad steps in a row after which the run goes back."""
MIN_PROGRESS = 10
"""Steps between two ways back from which on the first one counts as having helped."""
MAX_ROLLBACKS = 3
"""Ways back without progress after which the run gives up."""


@dataclass(frozen=True, slots=True)
class SkippedStep:
    """A step that is left out, with what was found there; None where its turn never came to be judged."""

    loss: float | None = None
    gradient_norm: float | None = None
    rolled_back: bool = False
    """Was it left out on the way back from several bad steps?"""

    def to_dict(self) -> dict[str, Any]:
        """As the log keeps it."""
        values = {"loss": _to_json_number(self.loss), "gradient_norm": _to_json_number(self.gradient_norm)}
        return {name: value for name, value in values.items() if value is not None} | (
            {"rolled_back": True} if self.rolled_back else {}
        )


class SpikeGuard:
    """Judges the steps of one run and finds the way back."""

    def __init__(self, run: Run) -> None:
        self.run = run

    def is_bad_step(self, state: TrainState, loss: float, gradient_norm: float) -> bool:
        """Whether a step of this loss and gradient norm must change nothing."""
        if not (math.isfinite(loss) and math.isfinite(gradient_norm)):
            return True
        losses = state.losses
        return len(losses) >= MIN_LOSSES and loss > SPIKE_FACTOR * max(MIN_MEDIAN, statistics.median(losses))

    def accept_loss(self, state: TrainState, loss: float) -> None:
        """Count a good step's loss among the usual ones."""
        state.bad_steps = 0
        state.losses = [*state.losses[1 - MAX_LOSSES :], loss]

    def find_skipped_step(self, plan: Mapping[str, Any], step: int) -> SkippedStep | None:
        """What the plan says of ``step``, if it is to be left out."""
        skips = [c for c in _skip_changes(plan) if step in c["skip"]]
        if not skips:
            return None
        change = next((c for c in skips if _is_rollback(c)), skips[0])
        loss_and_norm = next(
            (c["loss_and_norm"][str(step)] for c in skips if str(step) in c["loss_and_norm"]), (None, None)
        )
        return SkippedStep(
            _from_json_number(loss_and_norm[0]), _from_json_number(loss_and_norm[1]), _is_rollback(change)
        )

    def record_bad_step(self, step: int, loss: float, gradient_norm: float) -> dict[str, Any]:
        """Write a bad step into the plan, which is returned."""
        return self._append_change(
            {
                "step": step,
                "skip": [step],
                "loss_and_norm": {str(step): [_to_json_number(loss), _to_json_number(gradient_norm)]},
            }
        )

    def skip_step(self, state: TrainState, skipped: SkippedStep) -> None:
        """Count a step that is left out; nothing else of the state changes."""
        state.step += 1
        state.bad_steps = 0 if skipped.rolled_back else state.bad_steps + 1

    def should_roll_back(self, state: TrainState) -> bool:
        """Whether as many steps in a row were bad as the weights are to be doubted for."""
        return state.bad_steps >= MAX_BAD_STEPS

    def roll_back(self, state: TrainState) -> tuple[str, dict[str, Any]]:
        """Find the checkpoint to go back to and write into the plan which steps are left out from there.

        Gives the checkpoint's name and the plan.

        Checkpoints after it go before that is written: whenever the process dies, what lies there is a
        state of the run as its plan tells it.

        Raises:
            TrainingError: there is none, or the last ways back did not help.
        """
        rollbacks = failed_rollbacks(self.run.read_plan(), state.step - MAX_BAD_STEPS)
        bad = f"steps {state.step - MAX_BAD_STEPS} to {state.step - 1} had no usable loss or gradient"
        if len(rollbacks) >= MAX_ROLLBACKS:
            raise self.unrecoverable_error(
                f"{bad}, {len(rollbacks)} times in a row after going back to a checkpoint"
            )
        folder = self._rollback_target(rollbacks)
        if folder is None:
            raise self.unrecoverable_error(f"{bad}, and no good checkpoint was saved before them")
        start = _checkpoint_step(folder)
        for later in atomic_files.list_checkpoints(self.run.checkpoints_path):
            if _checkpoint_step(later) > start:
                atomic_files.remove_folder(later)
        skip = list(range(start, state.step))
        return folder.name, self._append_change(
            {"step": start, "skip": skip, "loss_and_norm": {}, "rolled_back_at": state.step}
        )

    def unrecoverable_error(self, reason: str) -> TrainingError:
        """The error of a run that cannot be helped."""
        return TrainingError(
            f"{reason}: the weights would be lost. What was saved in {self.run.checkpoints_path} is "
            "intact; begin in "
            "another folder (--out) with a lower training.optimizer.learning_rate"
        )

    def _rollback_target(self, rollbacks: Sequence[Mapping[str, Any]]) -> Path | None:
        """The newest checkpoint without bad steps just before it, older than one that did not help."""
        good = [
            folder
            for folder in atomic_files.list_checkpoints(self.run.checkpoints_path)
            if _is_good_checkpoint(folder)
        ]
        if not rollbacks:
            return good[0] if good else None
        last = int(rollbacks[-1]["step"])
        older = [folder for folder in good if _checkpoint_step(folder) < last]
        same = [folder for folder in good if _checkpoint_step(folder) == last]
        return next(iter([*older, *same, *good]), None)

    def _append_change(self, change: dict[str, Any]) -> dict[str, Any]:
        plan = self.run.read_plan()
        plan.setdefault("changes", []).append(change)
        self.run.write_plan(plan)
        return plan


def failed_rollbacks(plan: Mapping[str, Any], first_bad: int) -> list[Mapping[str, Any]]:
    """The last ways back that did not help, oldest first: soon after each, bad steps came again."""
    rollbacks: list[Mapping[str, Any]] = []
    for change in reversed([c for c in _skip_changes(plan) if _is_rollback(c)]):
        if first_bad - int(change["rolled_back_at"]) >= MIN_PROGRESS:
            break
        rollbacks.insert(0, change)
        first_bad = int(change["rolled_back_at"]) - MAX_BAD_STEPS
    return rollbacks


def _skip_changes(plan: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [change for change in plan.get("changes", ()) if "skip" in change]


def _is_rollback(change: Mapping[str, Any]) -> bool:
    return "rolled_back_at" in change


def _is_good_checkpoint(folder: Path) -> bool:
    try:
        return not atomic_files.verify_folder(folder).get("bad_steps", 0)
    except CheckpointError:
        return False


def _checkpoint_step(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))


def _to_json_number(value: float | None) -> float | str | None:
    """A number as JSON can hold it: ``nan`` and ``inf`` are words there."""
    return value if value is None or math.isfinite(value) else str(value)


def _from_json_number(value: float | str | None) -> float | None:
    return None if value is None else float(value)
