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
from pretune.training.dataloader import Batches
from pretune.training.duration import Length

LOOK_AFTER = 0.05
"""Share of a length in minutes after which to look at the clock, however few steps were made in it."""
RESUMED_LOOK = 0.02
"""Share of the schedule after which a resumed run looks at the clock."""


@dataclass(frozen=True, slots=True)
class Trial:
    """What is timed before a run is planned, on weights that are thrown away."""

    step: Callable[[int, float], None]
    """A step by its number and the share of the run that is done before it."""
    evaluate: Callable[[], None]
    save: Callable[[], None]
    """Write a checkpoint, and take it away."""


class Timing:
    """The course of a run and the clock that it is held against."""

    def __init__(
        self,
        length: Length,
        run: Run,
        evaluations: int | None,
        started: float,
        *,
        most: int = 10,
        evaluation_tokens: float = 0.0,
        after: budget.After | None = None,
        world: World | None = None,
    ) -> None:
        """``started``: when the command began.

        ``evaluations``: their number; None: decided with the plan, at ``most`` so many, and where nothing is
        measured by the ``evaluation_tokens`` of one. ``after``: what follows training in the time of the run.
        """
        self.world = world or World()
        self.length, self.run, self.given, self.most = length, run, evaluations, most
        self.started, self.evaluation_tokens = started, evaluation_tokens
        self.after = after or (lambda evaluation: {})
        self.evaluations, self.reserve = evaluations or most, 0.0
        self.course = budget.Course((budget.Stretch(0, 0, 0.0),))
        self.pace = budget.Pace(evaluation=0.0)
        self._look, self._look_at = math.inf, math.inf
        self._batches: Batches | None = None
        self._plan: Mapping[str, Any] = {}

    @property
    def timed(self) -> bool:
        """Is the length a time?"""
        return self.length.unit == "seconds"

    def plan(
        self,
        batches: Batches,
        step: int,
        trial: Callable[[], Trial],
        say: Callable[[str], None],
    ) -> dict[str, Any]:
        """The plan of a run that stands at ``step``: as the run has it, or decided now and stored there.

        Args:
            trial: gives a step, an evaluation and a checkpoint, to be timed, on weights that are thrown away.

        Raises:
            ConfigError: the data are no longer those that the run began with.
        """
        plan = self.world.lead(self.run.plan)
        here = device.describe(self.world.size, self.world.device.type)
        fresh = "steps" not in plan
        if not fresh:
            if plan.get("data") != batches.fingerprint:
                raise ConfigError(
                    f"{self.run.folder}: the data (or the tokenizer) are no longer those that this run began "
                    "with; put them back to go on, or give another folder with --out"
                )
            if plan.get("machine") != here:
                say(f"planned on {plan.get('machine')}, going on with {here}")
            self.started -= plan.get("spent", 0.0)  # the time that was used before counts, too
        else:
            if self.timed:
                measured = self._measure(trial(), batches.turns_at)
                plan = self.world.lead(self.run.plan) | measured  # it may have learnt what fits into memory
            else:
                plan |= self._counted(batches)
            plan |= {"machine": here, "data": batches.fingerprint, "changes": []}
            self._write(plan)
        self._batches, self._plan = batches, plan
        self.evaluations = plan.get("evaluations", self.evaluations)
        self.reserve = sum(plan.get("seconds_after", {}).values())
        self.course = budget.Course.of(plan)
        self.pace = budget.Pace(evaluation=plan.get("seconds_per_evaluation", 0.0))
        if fresh:
            self._say_plan(plan, say)
        if self.timed and not plan.get("replayed"):
            done = self.course.share(step)
            # A resumed run looks soon: the machine may be another, or busier.
            self._look = min(budget.next_look(done), done + RESUMED_LOOK if step else math.inf)
            self._look_at = time.monotonic() + LOOK_AFTER * self.length.amount
        return plan

    def _counted(self, batches: Batches) -> dict[str, Any]:
        """Steps and evaluations of a length that is no time, by numbers of tokens: alike on any machine."""
        steps = self.length.steps(batches.steps_per_epoch, batches.tokens_per_step)
        # An evaluation only goes forward: a third of the work of a training step.
        evaluation = self.evaluation_tokens / 3 + budget.CHECKPOINT_TOKENS
        training = steps * batches.tokens_per_step
        return {
            "steps": steps,
            "evaluations": self.given or budget.count_evaluations(self.most, training, evaluation),
        }

    def _measure(self, trial: Trial, turns_at: float | None) -> dict[str, Any]:
        patience, places = min(10.0, 0.05 * self.length.amount), budget.tried_at(turns_at)

        def tried(share: float) -> float:
            return budget.measured(
                lambda number: trial.step(number, share),
                patience=patience / len(places),
                agreed=self.world.broadcast,
            )

        times = [tried(share) for _, share in places]
        seconds = sum(part * spent for (part, _), spent in zip(places, times, strict=True))
        turn = {"turn": [turns_at, times[1] / times[0]]} if len(times) > 1 else {}
        evaluation = _timed(trial.evaluate)
        after = dict(self.after(evaluation))
        evaluation += _timed(trial.save)
        self.reserve = sum(after.values())
        left = self._left()
        evaluations = self.given or budget.count_evaluations(self.most, left, evaluation)
        decided = {
            "steps": max(1, budget.affordable(left, seconds, evaluation, evaluations)),
            "evaluations": evaluations,
            "seconds_before": time.monotonic() - self.started,
            "seconds_per_step": seconds,
            "seconds_per_evaluation": evaluation,
            "seconds_after": after,
        } | turn
        return self.world.broadcast(decided)

    def _say_plan(self, plan: Mapping[str, Any], say: Callable[[str], None]) -> None:
        """What the time is spent on, and whether the steps are too few."""
        if self.timed:
            step, evaluations = plan["seconds_per_step"], plan["evaluations"]
            checks = f"{counted(evaluations, 'evaluation')} with checkpoints"
            shares = {
                "preparation": plan["seconds_before"],
                f"{counted(plan['steps'], 'step')} of {step:.3f} s": plan["steps"] * step,
                checks: evaluations * plan["seconds_per_evaluation"],
                **plan["seconds_after"],
            }
            parts = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in shares.items())
            say(f"{self.length}: {parts}")
        if plan["steps"] < budget.LEAST_STEPS:
            say(
                f"only {counted(plan['steps'], 'step')} fit into {self.length}, too few to learn much; "
                f"--budget {self.least_budget()} gives {budget.LEAST_STEPS}"
            )

    def least_budget(self) -> str:
        """The budget in which ``budget.LEAST_STEPS`` steps fit."""
        assert self._batches is not None, "the run is planned"
        steps = budget.LEAST_STEPS
        if self.length.unit == "steps":
            return f"'{steps} steps'"
        if self.length.unit == "tokens":
            return f"'{math.ceil(steps * self._batches.tokens_per_step)} tokens'"
        if self.length.unit == "epochs":
            return f"'{math.ceil(steps / self._batches.steps_per_epoch)} epochs'"
        # A run that repeats the steps of another has no times of its own in its plan.
        step = self.pace.step() or self._plan.get("seconds_per_step", 0.0)
        evaluations = self.evaluations * self.pace.evaluation
        before = self._plan.get("seconds_before", 0.0)
        return budget.rounded_up(before + steps * step + evaluations + self.reserve)

    def _left(self) -> float:
        """Seconds until training must end, of a length in minutes."""
        return self.started + self.length.amount - time.monotonic() - self.reserve

    def keep(self, step: int) -> None:
        """Fit the number of steps to the time that is left, if it is time to look; the plan records it.

        Changes that a resumed run has yet to come to are made as they were.
        """
        if math.isinf(self._look_at):
            return
        due = self.course.share(step) >= self._look or time.monotonic() >= self._look_at
        if not self.world.broadcast(due):
            return
        course = self.course
        self._look = budget.next_look(course.share(step))
        self._look_at = time.monotonic() + LOOK_AFTER * self.length.amount
        if step < course.last.start:
            return
        total = self.world.broadcast(
            budget.corrected(course, step, self._left(), self.pace, self.evaluations)
        )
        self.pace.again(course.share(step))
        if total is None:
            return
        plan = self.world.lead(self.run.plan)
        plan["changes"].append({"step": step, "steps": [course.total(step), total]})
        self._write(plan)
        self.course = budget.Course.of(plan)

    def note(self) -> None:
        """Keep how much of a length in minutes is used, for a resume to go on with the rest."""
        if self.timed and self.world.main:
            self.run.write_plan(self.run.plan() | {"spent": time.monotonic() - self.started})

    def _write(self, plan: dict[str, Any]) -> None:
        if self.world.main:
            self.run.write_plan(plan)


def _timed(work: Callable[[], None]) -> float:
    """Seconds that ``work`` takes."""
    began = time.monotonic()
    work()
    return time.monotonic() - began


def counted(number: int, noun: str) -> str:
    """``1 step``, ``1,200 steps``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


class Speed:
    """Tokens a second, as a person is shown them."""

    OVER = 10.0
    """Seconds after which they are counted anew."""

    def __init__(self, tokens: int) -> None:
        self._tokens, self._at = tokens, time.monotonic()

    def said(self, tokens: int) -> str:
        """``, 3,210 tokens/s``, with ``tokens`` read by now."""
        now = time.monotonic()
        seconds, read = now - self._at, tokens - self._tokens
        if seconds > self.OVER:
            self._tokens, self._at = tokens, now
        return f", {read / seconds:,.0f} tokens/s" if seconds > 1e-3 else ""
