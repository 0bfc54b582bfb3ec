"""How long a run is: decided once, stored in its plan, corrected on the way where the length is a time.

Of several ranks, rank 0's clock decides and rank 0 alone reads and writes the plan.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

from pretune.errors import ConfigError
from pretune.training import budget, machine
from pretune.training.length import Length
from pretune.training.run import Run
from pretune.training.steps import Batches
from pretune.training.world import World

LOOK_AFTER = 0.05
"""Share of a length in minutes after which to look at the clock, however few steps were made in it."""
RESUMED_LOOK = 0.02
"""Share of the schedule after which a resumed run looks at the clock."""


Attempt = Callable[[int, float], None]
"""A step by its number and the share of the run that is done before it."""


class Timing:
    """The course of a run and the clock that it is held against."""

    def __init__(
        self,
        length: Length,
        run: Run,
        evaluations: int,
        started: float,
        reserve: float,
        world: World | None = None,
    ) -> None:
        """``started``: when the command began. ``reserve``: seconds that the work after training takes."""
        self.world = world or World()
        self.length, self.run, self.evaluations = length, run, evaluations
        self.started, self.reserve = started, reserve
        self.course = budget.Course((budget.Stretch(0, 0, 0.0),))
        self.pace = budget.Pace(evaluation=0.0)
        self._look, self._look_at = math.inf, math.inf

    @property
    def timed(self) -> bool:
        """Is the length a time?"""
        return self.length.unit == "seconds"

    def plan(
        self,
        batches: Batches,
        step: int,
        trial: Callable[[], tuple[Attempt, Callable[[], None]]],
        say: Callable[[str], None],
    ) -> dict[str, Any]:
        """The plan of a run that stands at ``step``: as the run has it, or decided now and stored there.

        Args:
            trial: gives a step and an evaluation, to be timed, on weights that are thrown away.

        Raises:
            ConfigError: the data are no longer those that the run began with.
        """
        plan = self.world.lead(self.run.plan)
        here = machine.describe(self.world.size, self.world.device.type)
        if "steps" in plan:
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
                measured = self._measure(*trial(), batches.turns_at, say)
                plan = self.world.lead(self.run.plan) | measured  # it may have learnt what fits into memory
            else:
                plan |= {"steps": self.length.steps(batches.steps_per_epoch, batches.tokens_per_step)}
            plan |= {"machine": here, "data": batches.fingerprint, "changes": []}
            self._write(plan)
        self.course = budget.Course.of(plan)
        self.pace = budget.Pace(evaluation=plan.get("seconds_per_evaluation", 0.0))
        if self.timed and not plan.get("replayed"):
            done = self.course.share(step)
            # A resumed run looks soon: the machine may be another, or busier.
            self._look = min(budget.next_look(done), done + RESUMED_LOOK if step else math.inf)
            self._look_at = time.monotonic() + LOOK_AFTER * self.length.amount
        return plan

    def _measure(
        self,
        step: Attempt,
        evaluate: Callable[[], None],
        turns_at: float | None,
        say: Callable[[str], None],
    ) -> dict[str, Any]:
        patience, places = min(10.0, 0.05 * self.length.amount), budget.tried_at(turns_at)

        def tried(share: float) -> float:
            return budget.measured(
                lambda number: step(number, share),
                patience=patience / len(places),
                agreed=self.world.broadcast,
            )

        times = [tried(share) for _, share in places]
        seconds = sum(part * spent for (part, _), spent in zip(places, times, strict=True))
        turn = {"turn": [turns_at, times[1] / times[0]]} if len(times) > 1 else {}
        at = time.monotonic()
        evaluate()
        evaluation = time.monotonic() - at
        steps = budget.affordable(self._left(), seconds, evaluation, self.evaluations)
        decided = {"steps": steps, "seconds_per_step": seconds, "seconds_per_evaluation": evaluation} | turn
        decided = self.world.broadcast(decided)
        say(f"{decided['seconds_per_step']:.3f} s a step, so {decided['steps']:,} steps in {self.length}")
        return decided

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
