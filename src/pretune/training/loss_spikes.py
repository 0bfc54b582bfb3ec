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
from pretune.training.train_state import State

FOLD = 100.0
"""A loss of so many times the median of the last ones is bad."""
FLOOR = 0.05
"""Nats that the median counts for at least: a classifier that knows its records has losses near zero, and
one hard record is no fault."""
WINDOW, FEWEST = 32, 4
"""Accepted losses that the median is taken of, at most and at least."""
IN_A_ROW = 3
"""Bad steps in a row after which the run goes back."""
PROGRESS = 10
"""Steps between two ways back from which on the first one counts as having helped."""
ATTEMPTS = 3
"""Ways back without progress after which the run gives up."""


@dataclass(frozen=True, slots=True)
class Left:
    """A step that is left out, with what was found there; None where its turn never came to be judged."""

    loss: float | None = None
    norm: float | None = None
    back: bool = False
    """Was it left out on the way back from several bad steps?"""

    def row(self) -> dict[str, Any]:
        """As the log keeps it."""
        found = {"loss": _plain(self.loss), "gradient_norm": _plain(self.norm)}
        return {name: value for name, value in found.items() if value is not None} | (
            {"rolled_back": True} if self.back else {}
        )


class Recovery:
    """Judges the steps of one run and finds the way back."""

    def __init__(self, run: Run) -> None:
        self.run = run

    def is_bad(self, state: State, loss: float, norm: float) -> bool:
        """Whether a step of this loss and gradient norm must change nothing."""
        if not (math.isfinite(loss) and math.isfinite(norm)):
            return True
        usual = state.losses
        return len(usual) >= FEWEST and loss > FOLD * max(FLOOR, statistics.median(usual))

    def accept(self, state: State, loss: float) -> None:
        """Count a good step's loss among the usual ones."""
        state.bad = 0
        state.losses = [*state.losses[1 - WINDOW :], loss]

    def left_out(self, plan: Mapping[str, Any], step: int) -> Left | None:
        """What the plan says of ``step``, if it is to be left out."""
        found = [c for c in _skips(plan) if step in c["skip"]]
        if not found:
            return None
        change = next((c for c in found if _goes_back(c)), found[0])
        seen = next((c["found"][str(step)] for c in found if str(step) in c["found"]), (None, None))
        return Left(_number(seen[0]), _number(seen[1]), _goes_back(change))

    def note(self, step: int, loss: float, norm: float) -> dict[str, Any]:
        """Write a bad step into the plan, which is returned."""
        return self._record(
            {"step": step, "skip": [step], "found": {str(step): [_plain(loss), _plain(norm)]}}
        )

    def pass_over(self, state: State, left: Left) -> None:
        """Count a step that is left out; nothing else of the state changes."""
        state.step += 1
        state.bad = 0 if left.back else state.bad + 1

    def goes_back(self, state: State) -> bool:
        """Whether as many steps in a row were bad as the weights are to be doubted for."""
        return state.bad >= IN_A_ROW

    def go_back(self, state: State) -> tuple[str, dict[str, Any]]:
        """Find the checkpoint to go back to and write into the plan which steps are left out from there.

        Gives the checkpoint's name and the plan.

        Checkpoints after it go before that is written: whenever the process dies, what lies there is a
        state of the run as its plan tells it.

        Raises:
            TrainingError: there is none, or the last ways back did not help.
        """
        tries = attempts(self.run.plan(), state.step - IN_A_ROW)
        bad = f"steps {state.step - IN_A_ROW} to {state.step - 1} had no usable loss or gradient"
        if len(tries) >= ATTEMPTS:
            raise self.hopeless(f"{bad}, {len(tries)} times in a row after going back to a checkpoint")
        folder = self._target(tries)
        if folder is None:
            raise self.hopeless(f"{bad}, and no good checkpoint was saved before them")
        start = _step_of(folder)
        for later in atomic_files.checkpoints(self.run.checkpoints):
            if _step_of(later) > start:
                atomic_files.remove_folder(later)
        skip = list(range(start, state.step))
        return folder.name, self._record(
            {"step": start, "skip": skip, "found": {}, "rolled_back_at": state.step}
        )

    def hopeless(self, why: str) -> TrainingError:
        """The error of a run that cannot be helped."""
        return TrainingError(
            f"{why}: the weights would be lost. What was saved in {self.run.checkpoints} is intact; begin in "
            "another folder (--out) with a lower training.optimizer.learning_rate"
        )

    def _target(self, tries: Sequence[Mapping[str, Any]]) -> Path | None:
        """The newest checkpoint without bad steps just before it, older than one that did not help."""
        good = [folder for folder in atomic_files.checkpoints(self.run.checkpoints) if _is_good(folder)]
        if not tries:
            return good[0] if good else None
        last = int(tries[-1]["step"])
        older = [folder for folder in good if _step_of(folder) < last]
        same = [folder for folder in good if _step_of(folder) == last]
        return next(iter([*older, *same, *good]), None)

    def _record(self, change: dict[str, Any]) -> dict[str, Any]:
        plan = self.run.plan()
        plan.setdefault("changes", []).append(change)
        self.run.write_plan(plan)
        return plan


def attempts(plan: Mapping[str, Any], first_bad: int) -> list[Mapping[str, Any]]:
    """The last ways back that did not help, oldest first: soon after each, bad steps came again."""
    found: list[Mapping[str, Any]] = []
    for change in reversed([c for c in _skips(plan) if _goes_back(c)]):
        if first_bad - int(change["rolled_back_at"]) >= PROGRESS:
            break
        found.insert(0, change)
        first_bad = int(change["rolled_back_at"]) - IN_A_ROW
    return found


def _skips(plan: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [change for change in plan.get("changes", ()) if "skip" in change]


def _goes_back(change: Mapping[str, Any]) -> bool:
    return "rolled_back_at" in change


def _is_good(folder: Path) -> bool:
    try:
        return not atomic_files.verify_folder(folder).get("bad", 0)
    except CheckpointError:
        return False


def _step_of(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))


def _plain(value: float | None) -> float | str | None:
    """A number as JSON can hold it: ``nan`` and ``inf`` are words there."""
    return value if value is None or math.isfinite(value) else str(value)


def _number(value: float | str | None) -> float | None:
    return None if value is None else float(value)
