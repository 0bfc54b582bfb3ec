"""The one trainer: steps, evaluations and checkpoints of any network on any objective.

The counts of all micro-batches of a step are added up before the first backward pass and each term of the
loss is divided once, so accumulation and packing change a gradient by rounding only. torch's generator is
reseeded from (seed, step, micro-batch), and all else that a step needs is a function of its number: so a
run that was stopped anywhere and resumed is bit for bit the run that was not, with dropout on.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from pretune.checkpoint import store
from pretune.config import digest
from pretune.errors import ConfigError, Interrupted, TrainingError
from pretune.training import budget, changes, lock, machine, optimizers, schedules
from pretune.training.average import WeightAverage
from pretune.training.health import Health
from pretune.training.length import Length
from pretune.training.log import MetricsLog
from pretune.training.outcome import Keeper, Outcome, State
from pretune.training.progress import Reporter, Silent, Work, working
from pretune.training.run import Run
from pretune.training.settings import TrainingSettings
from pretune.training.signals import StopRequest
from pretune.training.steps import Batches
from pretune.types import Batch, ObjectiveLike, Score

OPTIMIZER = "optimizer.safetensors"
SPEED_OVER = 10.0
"""Seconds after which the tokens a second that are shown are counted anew."""
TRAINED = "trained.safetensors"
"""The weights as trained, of a run whose checkpoints show their average as the model."""
LOOK_AFTER = 0.05
"""Share of a length in minutes after which to look at the clock, however few steps were made in it."""
RESUMED_LOOK = 0.02
"""Share of the schedule after which a resumed run looks at the clock."""


class Trainer:
    """Trains ``keeper.network`` on ``batches`` until ``length``, inside a run's folder."""

    def __init__(
        self,
        *,
        keeper: Keeper,
        objective: ObjectiveLike,
        batches: Batches,
        evaluate: Callable[[nn.Module, int], list[Score]],
        settings: TrainingSettings,
        length: Length,
        run: Run,
        reporter: Reporter | None = None,
        started: float | None = None,
        reserve: float = 2.0,
        name: str = "training",
        levels: Mapping[str, float] | None = None,
    ) -> None:
        """``levels``: losses of simpler models on the same targets, shown and logged beside the loss."""
        self.keeper, self.network, self.objective = keeper, keeper.network, objective
        self.batches, self.evaluate = batches, evaluate
        self.settings, self.length, self.run = settings, length, run
        self.reporter = reporter or Silent()
        self.started = time.monotonic() if started is None else started
        self.reserve, self.name, self.levels = reserve, name, dict(levels or {})
        self.optimizer = optimizers.build(self.network, settings.optimizer)
        self.average = None if settings.ema is None else WeightAverage(self.network, settings.ema)
        self.health = Health(self.network, settings.health_every)
        self._now = settings
        """The settings with the changes in mid-run."""
        self._recorded: dict[str, Any] = {}
        self._made: list[Mapping[str, Any]] = []
        self.state = State()
        self._saved_step: int | None = None
        self._course = budget.Course((budget.Stretch(0, 0, 0.0),))
        self._pace = budget.Pace(evaluation=0.0)
        self._look = 0.0
        self._look_at = math.inf
        self._read = (0, 0.0)

    def train(self) -> Outcome:
        """Train to the end, from wherever the run's folder says that it stopped.

        Raises:
            Interrupted: a signal came; a checkpoint was saved.
            TrainingError: the loss is no longer a number.
        """
        with StopRequest() as stop, lock.held(self.run.folder):
            self._resume()
            plan = self._plan()
            log = MetricsLog(
                self.run.metrics,
                self.run.folder / "tensorboard",
                position=self.state.log_position,
                step=self.state.step,
                tokens=self.state.tokens,
            )
            try:
                with working(self.reporter, self.name, self._course.last.end) as work:
                    self._loop(log, stop, work)
            finally:
                log.close()
        best = self.state.best_step
        assert best is not None, "the last step is evaluated"
        if best != self.state.step:
            folder = store.checkpoint_path(self.run.checkpoints, best)
            store.verify_folder(folder)
            self.keeper.restore(folder)
        elif self.average is not None:
            self.average.apply()
        state, seconds = self.state, time.monotonic() - self.started
        return Outcome(
            state.step, plan["steps"], state.tokens, seconds, best, state.best_scores,
            "patience" if self._out_of_patience() else "length", state.factor,
        )  # fmt: skip

    def _loop(self, log: MetricsLog, stop: StopRequest, work: Work) -> None:
        state = self.state
        self._pace.again()
        self._read = (state.tokens, time.monotonic())
        while True:
            total = self._course.total(state.step)
            if state.step in self._course.due(self.settings.evaluations):
                began = time.monotonic()
                self._save(log)
                self._evaluate(log)
                self._pace.evaluated(time.monotonic() - began)
            elif self.settings.save_every and state.step and state.step % self.settings.save_every == 0:
                self._save(log)
            if state.step >= total or self._out_of_patience():
                return
            self._adjust()
            if stop.asked or not self._step(log, stop, work):
                self._save(log)
                raise Interrupted(
                    f"stopped at step {state.step} of {total}; a checkpoint is saved in {self.run.folder}, "
                    "run the same command to go on"
                )
            if self._course.share(state.step) >= self._look or time.monotonic() >= self._look_at:
                self._correct()

    def _step(self, log: MetricsLog, stop: StopRequest, work: Work) -> bool:
        """One optimiser step; False, with nothing changed, where a stop was asked for within it."""
        state, began = self.state, time.monotonic()
        place, total = self._course.place(state.step), self._course.total(state.step)
        factor = schedules.factor(place, total, self.settings.schedule)
        micro_batches = self.batches(state.step)
        with self.health.watching(state.step):
            loss = self._backward(self.network, micro_batches, state.step, stop)
        if loss is None:
            self.optimizer.forget()
            return False
        self.health.before_update(state.step)
        norm = self._clip(self.network)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise TrainingError(
                f"step {state.step}: loss {loss}, gradient norm {norm}: the weights would be lost. The last "
                f"checkpoint in {self.run.checkpoints} is intact; begin in another folder (--out) with a "
                "lower training.optimizer.learning_rate"
            )
        self.optimizer.step(factor)
        findings = self.health.after_update(state.step)
        state.step, state.factor = state.step + 1, factor
        if self.average is not None:
            self.average.update(state.step)
        state.tokens += sum(int(batch.layout.lengths.sum()) for batch in micro_batches)
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
        self._pace.stepped()
        work.update(state.step, self._detail(loss, state.tokens), self._course.last.end)
        return True

    def _detail(self, loss: float, tokens: int) -> str:
        """``loss 5.120 (unigram 6.90, bigram 5.20), 3,210 tokens/s``"""
        beside = ", ".join(f"{name} {level:.2f}" for name, level in self.levels.items())
        now, (before, at) = time.monotonic(), self._read
        speed = f", {(tokens - before) / (now - at):,.0f} tokens/s" if now - at > 1e-3 else ""
        if now - at > SPEED_OVER:
            self._read = (tokens, now)
        return f"loss {loss:.3f}{f' ({beside})' if beside else ''}{speed}"

    def _backward(
        self, network: nn.Module, micro_batches: list[Batch], step: int, stop: StopRequest | None
    ) -> float | None:
        """Gradients of one step; the loss is the sum of its terms, each a mean over the step's targets."""
        counts: dict[str, int] = {}
        for batch in micro_batches:
            for term, count in batch.counts.items():
                counts[term] = counts.get(term, 0) + count
        network.train()
        value = 0.0
        for number, batch in enumerate(micro_batches):
            if stop is not None and stop.asked:
                return None
            torch.manual_seed(int(digest([self.settings.seed, step, number])[:15], 16))
            for loss in self.objective.loss(network, batch):
                parts = [
                    weight * total / max(1, counts[term]) for term, (total, weight) in loss.terms.items()
                ]
                mean = torch.stack(parts).sum()
                torch.autograd.backward(mean)
                value += mean.item()
        return value

    def _clip(self, network: nn.Module) -> float:
        limit = self._now.clip or math.inf
        return float(nn.utils.clip_grad_norm_(network.parameters(), limit))

    def _evaluate(self, log: MetricsLog) -> None:
        state, began = self.state, time.monotonic()
        with self._averaged():
            scores = self.evaluate(self.network, state.step)
        if not math.isfinite(scores[0].value):
            raise TrainingError(
                f"step {state.step}: held-out {scores[0].name} {scores[0].value}: the weights are lost; "
                "start again in another folder (--out) with a lower training.optimizer.learning_rate"
            )
        log.evaluation(state.step, scores, time.monotonic() - began, self.levels)
        best = state.best_scores.get(scores[0].name)
        if scores[0].better_than(best):
            state.best_step, state.best_scores = state.step, {s.name: s.value for s in scores}
        self._count(scores[0])
        said = ", ".join(f"{s.name} {s.value:.3f}" for s in scores)
        self.reporter.say(f"  {self.name}: step {state.step:,}, held out: {said}")

    def _averaged(self) -> AbstractContextManager[dict[str, torch.Tensor]]:
        """Within, the network is as it is to be judged and saved; with the weights as trained, if others."""
        return nullcontext({}) if self.average is None else self.average.shown()

    def _count(self, score: Score) -> None:
        """Count the evaluations in a row that did not improve by ``min_delta``."""
        state, least = self.state, self.settings.min_delta * (1 if score.direction == "higher" else -1)
        better = score.better_than(None if state.to_beat is None else state.to_beat + least)
        state.to_beat, state.stale = (score.value, 0) if better else (state.to_beat, state.stale + 1)

    def _out_of_patience(self) -> bool:
        return self.settings.patience is not None and self.state.stale >= self.settings.patience

    def _adjust(self) -> None:
        """Take up changes that were asked for, and let those that hold from this step on hold."""
        done, refused = changes.take_up(self.run, self.settings, self.state.step)
        for line in (*done, *refused):
            self.reporter.say(f"  {self.name}: {line}")
        if done:
            self._recorded = self.run.plan()
        made = changes.made(self._recorded, self.state.step)
        if made != self._made:
            self._made = made
            self._now = changes.in_effect(self.settings, self._recorded, self.state.step)
            self.optimizer.adopt(self._now.optimizer)

    def _save(self, log: MetricsLog) -> None:
        state = self.state
        if state.step == self._saved_step:
            return  # a resume from there comes to the same point, its evaluation made again
        self._note_time()
        state.log_position = log.position()
        folder = store.checkpoint_path(self.run.checkpoints, state.step)

        def fill(partial: Path) -> None:
            with self._averaged() as trained:
                self.keeper.write(partial)
            save_file(self.optimizer.state_tensors(), partial / OPTIMIZER)
            if trained:
                save_file(trained, partial / TRAINED)

        store.write_folder(folder, fill, about=vars(state))
        self._saved_step = state.step
        kept = store.checkpoints(self.run.checkpoints)
        for old in kept[self.settings.keep :]:
            if state.best_step is None or old != store.checkpoint_path(self.run.checkpoints, state.best_step):
                store.remove_folder(old)

    def _resume(self) -> None:
        store.clear_partial(self.run.checkpoints)
        folder = store.newest_good(self.run.checkpoints, self.reporter.say)
        if folder is None:
            return
        about = store.verify_folder(folder)
        self.keeper.restore(folder)
        if self.average is not None:
            self.average.restore(load_file(folder / TRAINED))
        self.optimizer.restore(load_file(folder / OPTIMIZER))
        self.state = State(**about)
        self._saved_step = self.state.step
        self.reporter.say(f"  {self.name}: going on from step {self.state.step:,} ({folder})")

    def _plan(self) -> dict[str, Any]:
        """The number of steps: as the run has it, or decided now and stored there."""
        plan = self.run.plan()
        if "steps" in plan:
            if plan.get("data") != self.batches.fingerprint:
                raise ConfigError(
                    f"{self.run.folder}: the data (or the tokenizer) are no longer those that this run began "
                    "with; put them back to go on, or give another folder with --out"
                )
            if plan.get("machine") != machine.describe():
                self.reporter.say(f"  planned on {plan.get('machine')}, going on with {machine.describe()}")
            self.started -= plan.get("spent", 0.0)  # the time that was used before counts, too
        else:
            if self.length.unit == "seconds":
                plan |= self._measure()
            else:
                steps = self.length.steps(self.batches.steps_per_epoch, self.batches.tokens_per_step)
                plan |= {"steps": steps}
            plan |= {"machine": machine.describe(), "data": self.batches.fingerprint, "changes": []}
            self.run.write_plan(plan)
        self._course = budget.Course.of(plan)
        self._pace = budget.Pace(evaluation=plan.get("seconds_per_evaluation", 0.0))
        self._recorded = plan
        timed = self.length.unit == "seconds" and not plan.get("replayed")
        done = self._course.share(self.state.step)
        # A resumed run looks soon: the machine may be another, or busier.
        look = done + RESUMED_LOOK if self.state.step else math.inf
        self._look = min(budget.next_look(done), look) if timed else math.inf
        self._look_at = time.monotonic() + LOOK_AFTER * self.length.amount if timed else math.inf
        return plan

    def _measure(self) -> dict[str, Any]:
        """Steps that fit the time, from a few steps and an evaluation on weights that are thrown away."""
        network = copy.deepcopy(self.network)
        optimizer = optimizers.build(network, self.settings.optimizer)

        def trial(number: int) -> None:
            self._backward(network, self.batches(number), number, None)
            self._clip(network)
            optimizer.step(1.0)

        step = budget.measured(trial, patience=min(10.0, 0.05 * self.length.amount))
        at = time.monotonic()
        self.evaluate(network, 0)
        evaluation = time.monotonic() - at
        steps = budget.affordable(self._left(), step, evaluation, self.settings.evaluations)
        self.reporter.say(f"  {self.name}: {step:.3f} s a step, so {steps:,} steps in {self.length}")
        return {"steps": steps, "seconds_per_step": step, "seconds_per_evaluation": evaluation}

    def _left(self) -> float:
        """Seconds until training must end, of a length in minutes."""
        return self.started + self.length.amount - time.monotonic() - self.reserve

    def _correct(self) -> None:
        """Fit the number of steps to the time that is left; the change stands in the run's plan.

        Changes that a resumed run has yet to come to are made as they were.
        """
        step, course = self.state.step, self._course
        self._look = budget.next_look(course.share(step))
        self._look_at = time.monotonic() + LOOK_AFTER * self.length.amount
        if step < course.last.start:
            return
        total = budget.corrected(course, step, self._left(), self._pace, self.settings.evaluations)
        self._pace.again()
        if total is None:
            return
        plan = self.run.plan()
        plan["changes"].append({"step": step, "steps": [course.total(step), total]})
        self.run.write_plan(plan)
        self._course = budget.Course.of(plan)

    def _note_time(self) -> None:
        """Keep how much of a length in minutes is used, for a resume to go on with the rest."""
        if self.length.unit == "seconds":
            self.run.write_plan(self.run.plan() | {"spent": time.monotonic() - self.started})
