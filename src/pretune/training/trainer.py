"""The one trainer: steps, evaluations and checkpoints of any network on any objective.

All that a step needs is a function of its number: so a run that was stopped anywhere and resumed is bit for
bit the run that was not, with dropout on. What a step's gradients are, is said in `gradients`; what a
checkpoint holds, in `saving`; how many steps there are, in `timing`; which steps are left out, in `recovery`;
how many rows fit, in `memory`.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import nn

from pretune.errors import Interrupted, TrainingError
from pretune.runtime.distributed import World
from pretune.runtime.metrics_log import Log, MetricsLog, NoLog
from pretune.runtime.progress import Reporter, Silent, Work, working
from pretune.runtime.run_folder import Run
from pretune.runtime.signals import StopRequest
from pretune.training import adjustments, ddp, oom_backoff, schedules
from pretune.training.activation_stats import Health
from pretune.training.budget import LEAST_STEPS, After
from pretune.training.checkpointer import Saver
from pretune.training.dataloader import Batches, tokens_read, weighs
from pretune.training.duration import Length
from pretune.training.ema import WeightAverage
from pretune.training.gradients import Gradients, never
from pretune.training.loss_spikes import Left, Recovery
from pretune.training.optimizers import optimizers
from pretune.training.settings import TrainingSettings
from pretune.training.step_timer import Speed, Timing, Trial
from pretune.training.train_state import Keeper, Outcome, State
from pretune.types import Learning, Score


class Trainer:
    """Trains ``keeper.network`` on ``batches`` until ``length``, inside a run's folder."""

    def __init__(
        self,
        *,
        keeper: Keeper,
        objective: Learning,
        batches: Batches,
        evaluate: Callable[[nn.Module, int], list[Score]],
        settings: TrainingSettings,
        length: Length,
        run: Run,
        reporter: Reporter | None = None,
        started: float | None = None,
        most_evaluations: int = 10,
        evaluation_tokens: float = 0.0,
        after: After | None = None,
        name: str = "training",
        levels: Mapping[str, float] | None = None,
        beside: Mapping[str, float] | None = None,
        world: World | None = None,
    ) -> None:
        """``levels``: losses of simpler models on the held-out targets, logged beside their loss; ``beside``:
        on the targets of training, shown beside that loss, where they are of another kind.

        ``most_evaluations``: where the settings leave their number open; ``evaluation_tokens``: that each
        reads. ``after``: what the caller does in the time of the run once training has ended.

        ``batches`` and ``evaluate`` are this rank's, of ``world``.
        """
        self.world = world or World()
        self.parallel = ddp.shared(keeper.network, self.world, settings.parallel)
        self.keeper, self.network, self.objective = keeper, self.parallel.network, objective
        self.batches, self.evaluate = batches, evaluate
        self.settings, self.run = settings, run
        self.reporter = reporter if reporter and self.world.main else Silent()
        self.started = time.monotonic() if started is None else started
        self.name, self.levels = name, dict(levels or {})
        self.beside = dict(beside or self.levels)
        self.optimizer = optimizers.build(self.network, settings.optimizer)
        self.average = None if settings.ema is None else WeightAverage(self.network, settings.ema)
        self.saver = Saver(run, keeper, self.optimizer, self.average, settings.keep, self.parallel)
        self.gradients = Gradients(self.network, objective, settings.seed, self.parallel)
        given = settings.evaluations or (most_evaluations if settings.patience else None)
        self.timing = Timing(
            length, run, given, self.started, most=most_evaluations, evaluation_tokens=evaluation_tokens,
            after=after, world=self.world,
        )  # fmt: skip
        self.health = Health(self.network, settings.health_every)
        self.recovery = Recovery(run)
        self.memory = oom_backoff.Memory(
            run, "training", batches.micro_batch, self._say, alone=self.world.size == 1
        )
        self._now = settings
        """The settings with the changes in mid-run."""
        self._recorded: dict[str, Any] = {}
        self._made: list[Mapping[str, Any]] = []
        self.state = State()
        self._speed = Speed(0)
        self._kept: bytes | None = None
        """The log up to the checkpoint that a resumed run goes on from."""
        self._learnt = False
        """Did a step change the weights since they were saved?"""

    def train(self) -> Outcome:
        """Train to the end, from wherever the run's folder says that it stopped.

        Raises:
            Interrupted: a signal came; a checkpoint was saved.
            TrainingError: the loss is no longer a number, or one row does not fit into memory.
        """
        with StopRequest(insists=self.world.size == 1) as stop, oom_backoff.explained(self.name):
            self._resume()
            plan = self.timing.plan(self.batches, self.state.step, lambda: self._trial(stop), self._say)
            self._recorded = plan
            log = self._log()
            try:
                with working(self.reporter, self.name, self.timing.course.last.end) as work:
                    self._loop(log, stop, work)
            finally:
                log.close()
        best = self.state.best_step
        assert best is not None, "the last step is evaluated"
        self.saver.choose(best, self.state.step)
        state, seconds = self.state, time.monotonic() - self.timing.started
        return Outcome(
            state.step, plan["steps"], state.tokens, seconds, best, state.best_scores,
            "patience" if self._out_of_patience() else "length", state.factor,
            self.timing.least_budget() if state.step < LEAST_STEPS else "",
        )  # fmt: skip

    def _log(self) -> Log:
        if not self.world.main:
            return NoLog()
        state = self.state
        return MetricsLog(
            self.run.metrics, self.run.folder / "tensorboard",
            position=state.log_position, step=state.step, tokens=state.tokens, kept=self._kept, say=self._say,
        )  # fmt: skip

    def _loop(self, log: Log, stop: StopRequest, work: Work) -> None:
        timing = self.timing
        timing.pace.again(timing.course.share(self.state.step))
        self._speed = Speed(self.state.tokens)
        while True:
            state = self.state  # another one after a way back
            total = timing.course.total(state.step)
            if state.step in timing.course.due(timing.evaluations):
                began = time.monotonic()
                self._save(log)
                with self._leaving(stop, self.keeper.network, self._stopped()):
                    self._evaluate(log)
                timing.pace.evaluated(time.monotonic() - began)
            elif self._save_is_due(state.step):
                self._save(log)
            if state.step >= total or self._out_of_patience():
                return
            self._adjust()
            if self.world.agree(stop.asked) or not self._step(log, stop, work):
                self._save(log)
                raise Interrupted(self._stopped())
            timing.keep(self.state.step)

    def _save_is_due(self, step: int) -> bool:
        """Whether it is time for a checkpoint; one of unchanged weights would push out a better one."""
        every = self.settings.save_every
        return bool(every and step and step % every == 0 and self._learnt)

    def _stopped(self) -> str:
        step = self.state.step
        return (
            f"stopped at step {step} of {self.timing.course.total(step)}; a checkpoint is saved in "
            f"{self.run.folder}, run the same command to go on"
        )

    def _step(self, log: Log, stop: StopRequest, work: Work) -> bool:
        """One optimiser step; False, with nothing changed, where a stop was asked for within it."""
        state, began = self.state, time.monotonic()
        left = self.recovery.left_out(self._recorded, state.step)
        if left is not None:
            self._leave_out(left, log)
            return True
        found = self.memory.fitted(
            state.step, lambda rows: self._gradients_of(rows, stop), self.optimizer.forget
        )
        if found is None:
            self.optimizer.forget()
            return False
        loss, norm, tokens = found
        if self.recovery.is_bad(state, loss, norm):
            self.optimizer.forget()
            self.health.forget()
            self._recorded = self.world.lead(lambda: self.recovery.note(state.step, loss, norm))
            self._leave_out(Left(loss, norm), log)
            return True
        course = self.timing.course
        factor = schedules.factor(course.place(state.step), course.total(state.step), self.settings.schedule)
        self.optimizer.step(factor, state.step)
        self.recovery.accept(state, loss)
        self._learnt = True
        findings = self.health.after_update(state.step)
        state.step, state.factor, state.tokens = state.step + 1, factor, state.tokens + tokens
        if self.average is not None:
            self.average.update(state.step)
        log.step(
            state.step,
            {
                "epoch": round(state.step / self.batches.steps_per_epoch, 6),
                "tokens": state.tokens,
                "loss": loss,
                "learning_rate": self._now.optimizer.learning_rate * factor,
                "gradient_norm": norm,
                "seconds": round(time.monotonic() - began, 4),
            },
        )
        if findings is not None:
            log.health(state.step, findings)
        self.timing.pace.stepped()
        work.update(state.step, self._detail(loss, state.tokens), self.timing.course.last.end)
        return True

    def _gradients_of(self, rows: int, stop: StopRequest) -> tuple[float, float, int] | None:
        """Loss, gradient norm and tokens of the step that is next, ``rows`` at once; None: stopped within."""
        step, self.batches.micro_batch = self.state.step, rows
        micro_batches = self.batches(step, self.timing.course.share(step))
        with self.health.watching(step):
            # Ranks stop together, between two steps.
            asked = (lambda: stop.asked) if self.world.size == 1 else never
            loss = self.gradients.add(micro_batches, step, asked)
        if loss is None:
            return None
        self.health.before_update(step)
        read = sum(tokens_read(batch) for batch in micro_batches if weighs(batch))
        tokens = self.world.sum({"tokens": read})["tokens"]
        return loss, ddp.clip(self.network, self._now.clip), tokens

    def _leaving(self, stop: StopRequest, network: nn.Module, message: str) -> AbstractContextManager[None]:
        """Within, a process alone leaves work that calls ``network`` where it stands; ranks stop together."""
        return stop.leaving(network, message) if self.world.size == 1 else nullcontext()

    def _leave_out(self, left: Left, log: Log) -> None:
        """Pass over a step that went wrong, now or before; after several in a row go back."""
        self.recovery.pass_over(self.state, left)
        log.skipped(self.state.step, self.state.tokens, left.row())
        if not self.recovery.goes_back(self.state):
            return
        at = self.state.step
        name, self._recorded = self.world.lead(lambda: self.recovery.go_back(self.state))
        folder = self.run.checkpoints / name
        self.state, self._learnt = self.saver.restore(folder, self.reporter.say), False
        log.back_to(self.state.log_position, self.state.step, self.state.tokens)
        self._say(
            f"the last steps before {at:,} had no usable loss or gradient; back to {folder}, going on "
            f"without steps {self.state.step:,} to {at - 1:,}"
        )

    def _detail(self, loss: float, tokens: int) -> str:
        """``loss 5.120 (unigram 6.90, bigram 5.20), 3,210 tokens/s``"""
        beside = ", ".join(f"{name} {level:.2f}" for name, level in self.beside.items())
        return f"loss {loss:.3f}{f' ({beside})' if beside else ''}{self._speed.said(tokens)}"

    def _evaluate(self, log: Log) -> None:
        state, began = self.state, time.monotonic()
        with self.saver.shown():
            scores = self._scores()
        if not math.isfinite(scores[0].value):
            raise TrainingError(
                f"step {state.step}: validation {scores[0].name} {scores[0].value}: the weights are lost; "
                "start again in another folder (--out) with a lower training.optimizer.learning_rate"
            )
        log.evaluation(state.step, scores, time.monotonic() - began, self.levels)
        best = state.best_scores.get(scores[0].name)
        if scores[0].better_than(best):
            state.best_step, state.best_scores = state.step, {s.name: s.value for s in scores}
        self._count(scores[0])
        said = ", ".join(f"{s.name} {s.value:.3f}" for s in scores)
        self._say(f"step {state.step:,}, validation: {said}")

    def _scores(self) -> list[Score]:
        """Rank 0's, on all ranks: what they decide, all decide alike."""
        found = [score.as_dict() for score in self.evaluate(self.keeper.network, self.state.step)]
        return [Score.of(row) for row in self.world.broadcast(found)]

    def _count(self, score: Score) -> None:
        """Count the evaluations in a row that did not improve by ``min_delta``."""
        state, least = self.state, self.settings.min_delta * (1 if score.direction == "higher" else -1)
        better = score.better_than(None if state.to_beat is None else state.to_beat + least)
        state.to_beat, state.stale = (score.value, 0) if better else (state.to_beat, state.stale + 1)

    def _out_of_patience(self) -> bool:
        return self.settings.patience is not None and self.state.stale >= self.settings.patience

    def _adjust(self) -> None:
        """Take up changes that were asked for, and let those that hold from this step on hold."""
        plan = self.world.lead(self._taken_up)
        self._recorded = self._recorded if plan is None else plan
        made = adjustments.made(self._recorded, self.state.step)
        if made != self._made:
            self._made = made
            self._now = adjustments.in_effect(self.settings, self._recorded, self.state.step)
            self.optimizer.adopt(self._now.optimizer)

    def _taken_up(self) -> dict[str, Any] | None:
        """The run's plan with the changes that were asked for since the last step, if there are any."""
        done, refused = adjustments.take_up(self.run, self.settings, self.state.step)
        for line in (*done, *refused):
            self._say(line)
        return self.run.plan() if done else None

    def _save(self, log: Log) -> None:
        if self.saver.holds(self.state.step):
            return
        self.timing.note()
        self.state.log_position = log.position()
        self.saver.save(self.state, log.content)
        self._learnt = False

    def _resume(self) -> None:
        found = self.saver.resume(self.reporter.say)
        if found is not None:
            self.state, folder = found
            self._kept = self.saver.log_of(folder) if self.world.main else None
            self._say(f"going on from step {self.state.step:,} ({folder})")

    def _say(self, text: str) -> None:
        self.reporter.say(f"  {self.name}: {text}")

    def _trial(self, stop: StopRequest) -> Trial:
        """A step, an evaluation and a checkpoint on weights that are thrown away, to be timed."""
        whole = copy.deepcopy(self.keeper.network)
        trial = ddp.shared(whole, self.world, self.settings.parallel)
        optimizer = optimizers.build(trial.network, self.settings.optimizer)
        gradients = Gradients(trial.network, self.objective, self.settings.seed, trial)

        message = "stopped before the first step; run the same command to begin again"

        def attempt(number: int, share: float, rows: int) -> None:
            self.batches.micro_batch = rows
            with self._leaving(stop, trial.network, message):
                gradients.add(self.batches(number, share), number, never)
            ddp.clip(trial.network, self._now.clip)

        def step(number: int, share: float) -> None:
            self.memory.fitted(0, lambda rows: attempt(number, share, rows), optimizer.forget)
            optimizer.step(1.0, number)

        def evaluate() -> None:
            trial.gather()
            # A task is judged by the model that it belongs to, whatever network it is handed.
            kept = self.keeper.network
            with self._leaving(stop, whole, message), self._leaving(stop, kept, message):
                self.evaluate(whole, 0)

        return Trial(step, evaluate, lambda: self.saver.try_save(optimizer))
