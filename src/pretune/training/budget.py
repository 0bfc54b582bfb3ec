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

PostTrainingSeconds = Callable[[float], Mapping[str, float]]
"""What is done once training has ended, with the seconds of each, from the seconds of one evaluation."""
CORRECTION_POINTS = (0.05, 0.2, 0.4, 0.6, 0.8, 0.9, 0.97)
"""Shares of the schedule after which a length in minutes is looked at again."""
TRIAL_POINT = 0.5
"""Share of a run at which a step is tried: where it changes steadily, half of the steps are cheaper."""
TOLERANCE = 0.01
"""A correction of less than this share of the steps that are left is not made."""
MIN_STEPS = 50
"""Steps below which a run is said to be too short: a warm-up and a decay need some dozens of them."""
EVALUATION_OVERHEAD = 0.05
"""Share of the time of training that evaluations and checkpoints take, if their number is not given."""
CHECKPOINT_TOKENS = 1500
"""Tokens that are trained on in the time in which a checkpoint is written. Both grow with the parameters: on
two cores 90 MB of weights with 180 MB of Adam's state take 1 s, in which those 22 million parameters learn
from some 1,500 tokens."""


@dataclass(frozen=True, slots=True)
class Segment:
    """Steps from ``start`` to ``end`` that take the schedule from the share ``start_progress`` to its end."""

    start: int
    end: int
    start_progress: float


@dataclass(frozen=True, slots=True)
class StepBudget:
    """The number of steps of a run, with its recorded corrections, as functions of the step."""

    segments: tuple[Segment, ...]
    cost_change: tuple[float, float] | None = None
    """(share of the schedule, times what a step costs from there on); None: all steps cost the same."""

    @classmethod
    def from_plan(cls, plan: Mapping[str, Any]) -> StepBudget:
        """Of a run's ``plan.json``: ``steps``, and those ``changes`` that hold ``steps: [old, new]``."""
        segments = [Segment(0, int(plan["steps"]), 0.0)]
        for change in plan.get("changes", ()):
            if "steps" in change:
                at, total = int(change["step"]), int(change["steps"][1])
                progress = min(_progress(segments[-1], at), at / max(1, total))
                segments.append(Segment(at, total, progress))
        cost_change = plan.get("cost_change")
        return cls(
            tuple(segments), None if cost_change is None else (float(cost_change[0]), float(cost_change[1]))
        )

    @property
    def last_segment(self) -> Segment:
        """The stretch that ends the run."""
        return self.segments[-1]

    def _segment_at(self, step: int) -> Segment:
        return next(s for s in reversed(self.segments) if step >= s.start)

    def total_steps(self, step: int) -> int:
        """How many steps the run was to have, as known at ``step``."""
        return self._segment_at(step).end

    def progress(self, step: int) -> float:
        """How much of the schedule is done at ``step``, 0 to 1."""
        return _progress(self._segment_at(step), step)

    def step_cost(self, start: float, end: float) -> float:
        """What a step costs, on average, between two shares of the schedule; the first one costs 1."""
        if self.cost_change is None or start >= end:
            return 1.0
        at, times = self.cost_change
        late = max(0.0, end - max(start, at)) / (end - start)
        return 1.0 + late * (times - 1.0)

    def schedule_step(self, step: int) -> float:
        """``step`` as the schedule counts it: where it would be if the number had been the same all along."""
        now = self._segment_at(step)
        return step if now.start == 0 else _progress(now, step) * now.end

    def evaluation_steps(self, count: int) -> set[int]:
        """Steps after which to evaluate: evenly spaced over the schedule, the last step included."""
        due: set[int] = set()
        remaining = list(range(1, count + 1))
        for segment, following in zip(self.segments, self.segments[1:], strict=False):
            # A stretch counts up to where the next begins; what fell due in it is not due again.
            steps = {k: max(segment.start + 1, _step_at(segment, k, count)) for k in remaining}
            before = {k for k, step in steps.items() if step < following.start}
            # At the border itself the new plan says how far the run is.
            before |= {
                k
                for k, step in steps.items()
                if step == following.start and following.start_progress >= k / count
            }
            due |= {steps[k] for k in before}
            remaining = [k for k in remaining if k not in before]
        steps = {
            k: max(self.last_segment.start + 1, _step_at(self.last_segment, k, count)) for k in remaining
        }
        return (
            due | {step for step in steps.values() if step <= self.last_segment.end} | {self.last_segment.end}
        )


def _progress(segment: Segment, step: int) -> float:
    num_steps = max(1, segment.end - segment.start)
    return segment.start_progress + (1 - segment.start_progress) * min(
        1.0, (step - segment.start) / num_steps
    )


def _step_at(segment: Segment, k: int, count: int) -> int:
    """The step at which the k-th of ``count`` equal parts of the schedule is done, on this stretch."""
    if segment.start == 0:
        return round(segment.end * k / count)
    fraction = (k / count - segment.start_progress) / max(1e-12, 1 - segment.start_progress)
    return segment.start + round(fraction * (segment.end - segment.start))


@dataclass
class StepTimer:
    """What a step and an evaluation take here and now, in seconds of wall-clock.

    A step counts with all that comes between two steps (logging, the bar), an evaluation with its
    checkpoint; the pace is that since the last correction.
    """

    evaluation_seconds: float
    """The newest, or as measured beforehand."""
    start_progress: float = 0.0
    """The share of the schedule since which it is measured."""
    _steps: int = 0
    _excluded_seconds: float = 0.0
    _start_time: float = field(default_factory=time.monotonic)

    def count_step(self) -> None:
        """One more step is done."""
        self._steps += 1

    def record_evaluation(self, seconds: float) -> None:
        """An evaluation with its checkpoint took so long."""
        self.evaluation_seconds = seconds
        self._excluded_seconds += seconds

    def seconds_per_step(self) -> float | None:
        """Seconds a step; None where there was none."""
        if not self._steps:
            return None
        return max(1e-6, (time.monotonic() - self._start_time - self._excluded_seconds) / self._steps)

    def restart(self, progress: float = 0.0) -> None:
        """Measure anew from now on, where ``progress`` of the schedule is done."""
        self.start_progress, self._steps, self._excluded_seconds, self._start_time = (
            progress,
            0,
            0.0,
            time.monotonic(),
        )


def trial_points(cost_changes_at: float | None) -> tuple[tuple[float, float], ...]:
    """(share of the steps that it stands for, share of the run) of each place at which a step is tried.

    ``cost_changes_at``: the share of the run from which on a step costs something else; None: all cost the
    same.
    """
    if cost_changes_at is None or cost_changes_at >= 1:
        return ((1.0, TRIAL_POINT),)
    return ((cost_changes_at, cost_changes_at / 2), (1 - cost_changes_at, (1 + cost_changes_at) / 2))


def count_evaluations(max_evaluations: int, training: float, evaluation: float) -> int:
    """How many evaluations with their checkpoints take ``EVALUATION_OVERHEAD`` of ``training``; 1 at
    least, the last.

    Args:
        training: what all of training costs, in any unit.
        evaluation: what one evaluation and its checkpoint cost, in the same unit.
    """
    return max(1, min(max_evaluations, int(EVALUATION_OVERHEAD * training / max(evaluation, 1e-9))))


def format_budget(seconds: float) -> str:
    """A budget of at least so many seconds, as a person would give it: ``40s``, ``3min``."""
    return f"{10 * math.ceil(seconds / 10)}s" if seconds <= 110 else f"{math.ceil(seconds / 60)}min"


def affordable_steps(
    seconds_left: float, seconds_per_step: float, seconds_per_evaluation: float, evaluations: int
) -> int:
    """Steps that fit into ``seconds_left`` seconds with so many evaluations; none where there is no time."""
    return max(0, int((seconds_left - evaluations * seconds_per_evaluation) / seconds_per_step))


def correct_total_steps(
    step_budget: StepBudget, step: int, seconds_left: float, step_timer: StepTimer, evaluations: int
) -> int | None:
    """The number of steps that ends in ``seconds_left`` seconds from ``step`` on, or None where it is near
    enough.

    Args:
        evaluations: of the run; those that are still to come are paid for.
    """
    seconds, progress = step_timer.seconds_per_step(), step_budget.progress(step)
    if seconds is None:
        return None
    seconds *= step_budget.step_cost(progress, 1.0) / step_budget.step_cost(
        step_timer.start_progress, progress
    )
    ahead = sum(1 for due in step_budget.evaluation_steps(evaluations) if due > step)
    total = step + affordable_steps(seconds_left, seconds, step_timer.evaluation_seconds, ahead)
    old = step_budget.total_steps(step)
    return None if abs(total - old) <= TOLERANCE * max(1, old - step) else total


def measure_step_seconds(
    trial: Callable[[int], None],
    *,
    max_seconds: float,
    min_steps: int = 4,
    max_steps: int = 50,
    broadcast: Callable[[bool], bool] = bool,
) -> float:
    """Seconds a step, of steps on weights that are thrown away; the first, which warms up, does not count.

    ``common_encodings`` makes of whether to go on what all ranks do.
    """
    times: list[float] = []
    start = time.monotonic()
    while broadcast(
        len(times) < min_steps or (time.monotonic() - start < max_seconds and len(times) < max_steps)
    ):
        at = time.monotonic()
        trial(len(times))
        times.append(time.monotonic() - at)
    return statistics.median(times[1:])


def next_correction(progress: float, points: Sequence[float] = CORRECTION_POINTS) -> float:
    """The share of the schedule at which to look at the clock again, after ``progress``; beyond 1: never."""
    return next((point for point in points if point > progress), 2.0)
