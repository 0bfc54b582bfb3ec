"""A length of training as a number of steps, and how a length in minutes is kept.

Minutes become steps by a measurement on throw-away weights, before the first step. A machine with other work
on it changes its pace, so the number is corrected at a few points on the way. Each correction stands in the
run's plan with its step: a resume and a repeat make it again at the same step.

Where the number falls, the place on the schedule stays: what is left of the schedule is spread over what is
left of the steps, and the learning rate does not jump. Where it grows, the schedule goes back to the share of
the longer run that is done. Otherwise a run that was planned as 1 step and became 100 would have its whole
schedule behind it after the first, and learn nothing from the other 99.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

After = Callable[[float], Mapping[str, float]]
"""What is done once training has ended, with the seconds of each, from the seconds of one evaluation."""
CORRECTED_AT = (0.05, 0.2, 0.4, 0.6, 0.8, 0.9, 0.97)
"""Shares of the schedule after which a length in minutes is looked at again."""
MIDDLE = 0.5
"""Share of a run at which a step is tried: where it changes steadily, half of the steps are cheaper."""
TOLERANCE = 0.01
"""A correction of less than this share of the steps that are left is not made."""
LEAST_STEPS = 50
"""Steps below which a run is said to be too short: a warm-up and a decay need some dozens of them."""
OVERHEAD = 0.05
"""Share of the time of training that evaluations and checkpoints take, if their number is not given."""
CHECKPOINT_TOKENS = 1500
"""Tokens that are trained on in the time in which a checkpoint is written. Both grow with the parameters: on
two cores 90 MB of weights with 180 MB of Adam's state take 1 s, in which those 22 million parameters learn
from some 1,500 tokens."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Steps from ``start`` to ``end`` that take the schedule from the share ``done`` to its end."""

    start: int
    end: int
    done: float


@dataclass(frozen=True, slots=True)
class Course:
    """The number of steps of a run, with its recorded corrections, as functions of the step."""

    stretches: tuple[Stretch, ...]
    turn: tuple[float, float] | None = None
    """(share of the schedule, times what a step costs from there on); None: all steps cost the same."""

    @classmethod
    def of(cls, plan: Mapping[str, Any]) -> Course:
        """Of a run's ``plan.json``: ``steps``, and those ``changes`` that hold ``steps: [old, new]``."""
        stretches = [Stretch(0, int(plan["steps"]), 0.0)]
        for change in plan.get("changes", ()):
            if "steps" in change:
                at, total = int(change["step"]), int(change["steps"][1])
                done = min(_share(stretches[-1], at), at / max(1, total))
                stretches.append(Stretch(at, total, done))
        turn = plan.get("turn")
        return cls(tuple(stretches), None if turn is None else (float(turn[0]), float(turn[1])))

    @property
    def last(self) -> Stretch:
        """The stretch that ends the run."""
        return self.stretches[-1]

    def _at(self, step: int) -> Stretch:
        return next(s for s in reversed(self.stretches) if step >= s.start)

    def total(self, step: int) -> int:
        """How many steps the run was to have, as known at ``step``."""
        return self._at(step).end

    def share(self, step: int) -> float:
        """How much of the schedule is done at ``step``, 0 to 1."""
        return _share(self._at(step), step)

    def cost(self, start: float, end: float) -> float:
        """What a step costs, on average, between two shares of the schedule; the first one costs 1."""
        if self.turn is None or start >= end:
            return 1.0
        at, times = self.turn
        late = max(0.0, end - max(start, at)) / (end - start)
        return 1.0 + late * (times - 1.0)

    def place(self, step: int) -> float:
        """``step`` as the schedule counts it: where it would be if the number had been the same all along."""
        now = self._at(step)
        return step if now.start == 0 else _share(now, step) * now.end

    def due(self, times: int) -> set[int]:
        """Steps after which to evaluate: evenly spaced over the schedule, the last step included."""
        found: set[int] = set()
        left = list(range(1, times + 1))
        for stretch, following in zip(self.stretches, self.stretches[1:], strict=False):
            # A stretch counts up to where the next begins; what fell due in it is not due again.
            steps = {k: max(stretch.start + 1, _step_at(stretch, k, times)) for k in left}
            before = {k for k, step in steps.items() if step < following.start}
            # At the border itself the new plan says how far the run is.
            before |= {
                k for k, step in steps.items() if step == following.start and following.done >= k / times
            }
            found |= {steps[k] for k in before}
            left = [k for k in left if k not in before]
        steps = {k: max(self.last.start + 1, _step_at(self.last, k, times)) for k in left}
        return found | {step for step in steps.values() if step <= self.last.end} | {self.last.end}


def _share(stretch: Stretch, step: int) -> float:
    left = max(1, stretch.end - stretch.start)
    return stretch.done + (1 - stretch.done) * min(1.0, (step - stretch.start) / left)


def _step_at(stretch: Stretch, k: int, times: int) -> int:
    """The step at which the k-th of ``times`` equal parts of the schedule is done, on this stretch."""
    if stretch.start == 0:
        return round(stretch.end * k / times)
    part = (k / times - stretch.done) / max(1e-12, 1 - stretch.done)
    return stretch.start + round(part * (stretch.end - stretch.start))


@dataclass
class Pace:
    """What a step and an evaluation take here and now, in seconds of wall-clock.

    A step counts with all that comes between two steps (logging, the bar), an evaluation with its
    checkpoint; the pace is that since the last correction.
    """

    evaluation: float
    """The newest, or as measured beforehand."""
    start: float = 0.0
    """The share of the schedule since which it is measured."""
    _steps: int = 0
    _apart: float = 0.0
    _since: float = field(default_factory=time.monotonic)

    def stepped(self) -> None:
        """One more step is done."""
        self._steps += 1

    def evaluated(self, seconds: float) -> None:
        """An evaluation with its checkpoint took so long."""
        self.evaluation = seconds
        self._apart += seconds

    def step(self) -> float | None:
        """Seconds a step; None where there was none."""
        if not self._steps:
            return None
        return max(1e-6, (time.monotonic() - self._since - self._apart) / self._steps)

    def again(self, share: float = 0.0) -> None:
        """Measure anew from now on, where ``share`` of the schedule is done."""
        self.start, self._steps, self._apart, self._since = share, 0, 0.0, time.monotonic()


def tried_at(turn: float | None) -> tuple[tuple[float, float], ...]:
    """(share of the steps that it stands for, share of the run) of each place at which a step is tried.

    ``turn``: the share of the run from which on a step costs something else; None: all cost the same.
    """
    if turn is None or turn >= 1:
        return ((1.0, MIDDLE),)
    return ((turn, turn / 2), (1 - turn, (1 + turn) / 2))


def count_evaluations(most: int, training: float, evaluation: float) -> int:
    """How many evaluations with their checkpoints take ``OVERHEAD`` of ``training``; 1 at least, the last.

    Args:
        training: what all of training costs, in any unit.
        evaluation: what one evaluation and its checkpoint cost, in the same unit.
    """
    return max(1, min(most, int(OVERHEAD * training / max(evaluation, 1e-9))))


def rounded_up(seconds: float) -> str:
    """A budget of at least so many seconds, as a person would give it: ``40s``, ``3min``."""
    return f"{10 * math.ceil(seconds / 10)}s" if seconds <= 110 else f"{math.ceil(seconds / 60)}min"


def affordable(left: float, step: float, evaluation: float, evaluations: int) -> int:
    """Steps that fit into ``left`` seconds with so many evaluations; none where there is no time."""
    return max(0, int((left - evaluations * evaluation) / step))


def corrected(course: Course, step: int, left: float, pace: Pace, evaluations: int) -> int | None:
    """The number of steps that ends in ``left`` seconds from ``step`` on, or None where it is near enough.

    Args:
        evaluations: of the run; those that are still to come are paid for.
    """
    seconds, share = pace.step(), course.share(step)
    if seconds is None:
        return None
    seconds *= course.cost(share, 1.0) / course.cost(pace.start, share)
    ahead = sum(1 for due in course.due(evaluations) if due > step)
    total = step + affordable(left, seconds, pace.evaluation, ahead)
    old = course.total(step)
    return None if abs(total - old) <= TOLERANCE * max(1, old - step) else total


def measured(
    trial: Callable[[int], None],
    *,
    patience: float,
    least: int = 4,
    most: int = 50,
    agreed: Callable[[bool], bool] = bool,
) -> float:
    """Seconds a step, of steps on weights that are thrown away; the first, which warms up, does not count.

    ``agreed`` makes of whether to go on what all ranks do.
    """
    times: list[float] = []
    began = time.monotonic()
    while agreed(len(times) < least or (time.monotonic() - began < patience and len(times) < most)):
        at = time.monotonic()
        trial(len(times))
        times.append(time.monotonic() - at)
    return statistics.median(times[1:])


def next_look(share: float, looks: Sequence[float] = CORRECTED_AT) -> float:
    """The share of the schedule at which to look at the clock again, after ``share``; beyond 1: never."""
    return next((look for look in looks if look > share), 2.0)
