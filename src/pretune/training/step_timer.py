"""How long a run is: decided once, stored in its plan, corrected on the way where the length is a time.

Of several ranks, rank 0's clock decides and rank 0 alone reads and writes the plan.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pretune.errors import ConfigError
from pretune.runtime import device
from pretune.runtime.distributed import World
from pretune.runtime.run_folder import Run
from pretune.training import budget
from pretune.training.dataloader import DataLoaderLike
from pretune.training.duration import Duration

CHECK_INTERVAL = 0.05
"""Share of a length in minutes after which to look at the clock, however few steps were made in it."""
RESUME_CHECK_PROGRESS = 0.02
"""Share of the schedule after which a resumed run looks at the clock."""


@dataclass(frozen=True, slots=True)
class TimingTrial:
    """What is timed before a run is planned, on weights that are thrown away."""

    step: Callable[[int, float], None]
    """A step by its number and the share of the run that is done before it."""
    evaluate: Callable[[], None]
    save: Callable[[], None]
    """Write a checkpoint, and take it away."""


class TrainingBudget:
    """The course of a run and the clock that it is held against."""

    def __init__(
        self,
        duration: Duration,
        run: Run,
        evaluations: int | None,
        start_time: float,
        *,
        max_evaluations: int = 10,
        evaluation_tokens: float = 0.0,
        post_training_seconds: budget.PostTrainingSeconds | None = None,
        world: World | None = None,
    ) -> None:
        """``start_time``: when the command began.

        ``evaluations``: their number; None: decided with the plan, at ``max_evaluations`` so many, and
        where nothing is measured by the ``evaluation_tokens`` of one. ``post_training_seconds``: what
        follows training in the time of the run.
        """
        self.world = world or World()
        self.duration, self.run, self.requested_evaluations, self.max_evaluations = (
            duration,
            run,
            evaluations,
            max_evaluations,
        )
        self.start_time, self.evaluation_tokens = start_time, evaluation_tokens
        self.post_training_seconds = post_training_seconds or (lambda evaluation: {})
        self.evaluations, self.reserved_seconds = evaluations or max_evaluations, 0.0
        self.step_budget = budget.StepBudget((budget.Segment(0, 0, 0.0),))
        self.step_timer = budget.StepTimer(evaluation_seconds=0.0)
        self._next_check_progress, self._next_check_time = math.inf, math.inf
        self._dataloader: DataLoaderLike | None = None
        self._plan: Mapping[str, Any] = {}

    @property
    def is_time_limited(self) -> bool:
        """Is the length a time?"""
        return self.duration.unit == "seconds"

    def load_or_create_plan(
        self,
        dataloader: DataLoaderLike,
        step: int,
        trial: Callable[[], TimingTrial],
        say: Callable[[str], None],
    ) -> dict[str, Any]:
        """The plan of a run that stands at ``step``: as the run has it, or decided now and stored there.

        Args:
            trial: gives a step, an evaluation and a checkpoint, to be timed, on weights that are thrown away.

        Raises:
            ConfigError: the data are no longer those that the run began with.
        """
        plan = self.world.on_main(self.run.read_plan)
        machine_name = device.describe(self.world.world_size, self.world.device.type)
        is_new = "steps" not in plan
        if not is_new:
            if plan.get("data") != dataloader.fingerprint:
                raise ConfigError(
                    f"{self.run.folder}: the data (or the tokenizer) are no longer those that this run began "
                    "with; put them back to go on, or give another folder with --out"
                )
            if plan.get("machine") != machine_name:
                say(f"planned on {plan.get('machine')}, going on with {machine_name}")
            self.start_time -= plan.get("seconds_spent", 0.0)  # the time that was used before counts, too
        else:
            if self.is_time_limited:
                measurements = self._measure(trial(), dataloader.cost_changes_at)
                plan = (
                    self.world.on_main(self.run.read_plan) | measurements
                )  # it may have learnt what fits into memory
            else:
                plan |= self._plan_by_tokens(dataloader)
            plan |= {"machine": machine_name, "data": dataloader.fingerprint, "changes": []}
            self._write_plan(plan)
        self._dataloader, self._plan = dataloader, plan
        self.evaluations = plan.get("evaluations", self.evaluations)
        self.reserved_seconds = sum(plan.get("seconds_after_training", {}).values())
        self.step_budget = budget.StepBudget.from_plan(plan)
        self.step_timer = budget.StepTimer(evaluation_seconds=plan.get("seconds_per_evaluation", 0.0))
        if is_new:
            self._report_plan(plan, say)
        if self.is_time_limited and not plan.get("is_replay"):
            progress = self.step_budget.progress(step)
            # A resumed run looks soon: the machine may be another, or busier.
            self._next_check_progress = min(
                budget.next_correction(progress), progress + RESUME_CHECK_PROGRESS if step else math.inf
            )
            self._next_check_time = time.monotonic() + CHECK_INTERVAL * self.duration.amount
        return plan

    def _plan_by_tokens(self, dataloader: DataLoaderLike) -> dict[str, Any]:
        """Steps and evaluations of a length that is no time, by numbers of tokens: alike on any machine."""
        steps = self.duration.to_steps(dataloader.steps_per_epoch, dataloader.tokens_per_step)
        # An evaluation only goes forward: a third of the work of a training step.
        evaluation = self.evaluation_tokens / 3 + budget.CHECKPOINT_TOKENS
        training = steps * dataloader.tokens_per_step
        return {
            "steps": steps,
            "evaluations": self.requested_evaluations
            or budget.count_evaluations(self.max_evaluations, training, evaluation),
        }

    def _measure(self, trial: TimingTrial, cost_changes_at: float | None) -> dict[str, Any]:
        patience, points = min(10.0, 0.05 * self.duration.amount), budget.trial_points(cost_changes_at)

        def trial_seconds(share: float) -> float:
            return budget.measure_step_seconds(
                lambda number: trial.step(number, share),
                max_seconds=patience / len(points),
                broadcast=self.world.broadcast,
            )

        times = [trial_seconds(share) for _, share in points]
        seconds = sum(fraction * spent for (fraction, _), spent in zip(points, times, strict=True))
        cost_change = {"cost_change": [cost_changes_at, times[1] / times[0]]} if len(times) > 1 else {}
        evaluation = _measure_seconds(trial.evaluate)
        after = dict(self.post_training_seconds(evaluation))
        evaluation += _measure_seconds(trial.save)
        self.reserved_seconds = sum(after.values())
        seconds_left = self._seconds_left()
        evaluations = self.requested_evaluations or budget.count_evaluations(
            self.max_evaluations, seconds_left, evaluation
        )
        plan = {
            "steps": max(1, budget.affordable_steps(seconds_left, seconds, evaluation, evaluations)),
            "evaluations": evaluations,
            "seconds_before_training": time.monotonic() - self.start_time,
            "seconds_per_step": seconds,
            "seconds_per_evaluation": evaluation,
            "seconds_after_training": after,
        } | cost_change
        return self.world.broadcast(plan)

    def _report_plan(self, plan: Mapping[str, Any], say: Callable[[str], None]) -> None:
        """What the time is spent on, and whether the steps are too few."""
        if self.is_time_limited:
            step, evaluations = plan["seconds_per_step"], plan["evaluations"]
            checks = f"{pluralize(evaluations, 'evaluation')} with checkpoints"
            shares = {
                "preparation": plan["seconds_before_training"],
                f"{pluralize(plan['steps'], 'step')} of {step:.3f} s": plan["steps"] * step,
                checks: evaluations * plan["seconds_per_evaluation"],
                **plan["seconds_after_training"],
            }
            breakdown = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in shares.items())
            say(f"{self.duration}: {breakdown}")
        if plan["steps"] < budget.MIN_STEPS:
            say(
                f"only {pluralize(plan['steps'], 'step')} fit into {self.duration}, too few to learn much; "
                f"--budget {self.min_budget()} gives {budget.MIN_STEPS}"
            )

    def min_budget(self) -> str:
        """The budget in which ``budget.MIN_STEPS`` steps fit."""
        assert self._dataloader is not None, "the run is planned"
        steps = budget.MIN_STEPS
        if self.duration.unit == "steps":
            return f"'{steps} steps'"
        if self.duration.unit == "tokens":
            return f"'{math.ceil(steps * self._dataloader.tokens_per_step)} tokens'"
        if self.duration.unit == "epochs":
            return f"'{math.ceil(steps / self._dataloader.steps_per_epoch)} epochs'"
        # A run that repeats the steps of another has no times of its own in its plan.
        step = self.step_timer.seconds_per_step() or self._plan.get("seconds_per_step", 0.0)
        evaluations = self.evaluations * self.step_timer.evaluation_seconds
        before = self._plan.get("seconds_before_training", 0.0)
        return budget.format_budget(before + steps * step + evaluations + self.reserved_seconds)

    def _seconds_left(self) -> float:
        """Seconds until training must end, of a length in minutes."""
        return self.start_time + self.duration.amount - time.monotonic() - self.reserved_seconds

    def correct_steps(self, step: int) -> None:
        """Fit the number of steps to the time that is left, if it is time to look; the plan records it.

        Changes that a resumed run has yet to come to are made as they were.
        """
        if math.isinf(self._next_check_time):
            return
        due = (
            self.step_budget.progress(step) >= self._next_check_progress
            or time.monotonic() >= self._next_check_time
        )
        if not self.world.broadcast(due):
            return
        step_budget = self.step_budget
        self._next_check_progress = budget.next_correction(step_budget.progress(step))
        self._next_check_time = time.monotonic() + CHECK_INTERVAL * self.duration.amount
        if step < step_budget.last_segment.start:
            return
        total = self.world.broadcast(
            budget.correct_total_steps(
                step_budget, step, self._seconds_left(), self.step_timer, self.evaluations
            )
        )
        self.step_timer.restart(step_budget.progress(step))
        if total is None:
            return
        plan = self.world.on_main(self.run.read_plan)
        plan["changes"].append({"step": step, "steps": [step_budget.total_steps(step), total]})
        self._write_plan(plan)
        self.step_budget = budget.StepBudget.from_plan(plan)

    def record_spent_time(self) -> None:
        """Keep how much of a length in minutes is used, for a resume to go on with the rest."""
        if self.is_time_limited and self.world.is_main:
            self.run.write_plan(self.run.read_plan() | {"seconds_spent": time.monotonic() - self.start_time})

    def _write_plan(self, plan: dict[str, Any]) -> None:
        if self.world.is_main:
            self.run.write_plan(plan)


def _measure_seconds(work: Callable[[], None]) -> float:
    """Seconds that ``work`` takes."""
    start = time.monotonic()
    work()
    return time.monotonic() - start


def pluralize(number: int, noun: str) -> str:
    """``1 step``, ``1,200 steps``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


class Throughput:
    """Tokens a second, as a person is shown them."""

    INTERVAL = 10.0
    """Seconds after which they are counted anew."""

    def __init__(self, tokens: int) -> None:
        self._tokens, self._start_time = tokens, time.monotonic()

    def format(self, tokens: int) -> str:
        """``, 3,210 tokens/s``, with ``tokens`` read by now."""
        now = time.monotonic()
        seconds, read = now - self._start_time, tokens - self._tokens
        if seconds > self.INTERVAL:
            self._tokens, self._start_time = tokens, now
        return f", {read / seconds:,.0f} tokens/s" if seconds > 1e-3 else ""
