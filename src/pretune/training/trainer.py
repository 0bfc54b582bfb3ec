"""The one trainer: steps, evaluations and checkpoints of any network on any data loader.

All that a step needs is a function of its number: so a run that was stopped anywhere and resumed is bit for
bit the run that was not, with dropout on. What a step's gradients are, is said in `gradients`; what a
checkpoint holds, in `saving`; how many steps there are, in `timing`; which steps are left out, in
`spike_guard`;
how many rows fit, in `micro_batch_limits`.
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
from pretune.runtime.metrics_log import Log, MetricsLog, NullMetricsLog
from pretune.runtime.progress import NullReporter, ProgressBar, Reporter, track_progress
from pretune.runtime.run_folder import Run
from pretune.runtime.signals import StopRequest
from pretune.training import adjustments, ddp, oom_backoff, schedules
from pretune.training.activation_stats import ActivationStats
from pretune.training.budget import MIN_STEPS, PostTrainingSeconds
from pretune.training.checkpointer import Checkpointer
from pretune.training.dataloader import DataLoaderLike
from pretune.training.duration import Duration
from pretune.training.ema import EMA
from pretune.training.gradients import GradientAccumulator, never_stop
from pretune.training.loss_spikes import SkippedStep, SpikeGuard
from pretune.training.optimizers import optimizers
from pretune.training.settings import TrainingSettings
from pretune.training.step_timer import Throughput, TimingTrial, TrainingBudget
from pretune.training.train_state import ModelIO, TrainResult, TrainState
from pretune.types import Score


class Trainer:
    """Trains ``model_io.network`` on ``dataloader`` until ``duration``, inside a run's folder."""

    def __init__(
        self,
        *,
        model_io: ModelIO,
        dataloader: DataLoaderLike,
        evaluate: Callable[[nn.Module, int], list[Score]],
        settings: TrainingSettings,
        duration: Duration,
        run: Run,
        reporter: Reporter | None = None,
        start_time: float | None = None,
        max_evaluations: int = 10,
        evaluation_tokens: float = 0.0,
        post_training_seconds: PostTrainingSeconds | None = None,
        name: str = "training",
        reference_losses: Mapping[str, float] | None = None,
        train_reference_losses: Mapping[str, float] | None = None,
        world: World | None = None,
    ) -> None:
        """``reference_losses``: losses of simpler models on the held-out targets, logged beside their loss;
        ``train_reference_losses``:
        on the targets of training, shown beside that loss, where they are of another kind.

        ``max_evaluations``: where the settings leave their number open; ``evaluation_tokens``: that each
        reads. ``post_training_seconds``: what the caller does in the time of the run once training has ended.

        ``dataloader`` and ``evaluate`` are this rank's, of ``world``.
        """
        self.world = world or World()
        self.parallel = ddp.build_parallel(model_io.network, self.world, settings.parallel)
        self.model_io, self.network = model_io, self.parallel.network
        self.dataloader, self.evaluate = dataloader, evaluate
        self.settings, self.run = settings, run
        self.reporter = reporter if reporter and self.world.is_main else NullReporter()
        self.start_time = time.monotonic() if start_time is None else start_time
        self.name, self.reference_losses = name, dict(reference_losses or {})
        self.train_reference_losses = dict(train_reference_losses or self.reference_losses)
        self.optimizer = optimizers.build_optimizers(self.network, settings.optimizer)
        self.ema = None if settings.ema is None else EMA(self.network, settings.ema)
        self.checkpointer = Checkpointer(
            run, model_io, self.optimizer, self.ema, settings.max_checkpoints, self.parallel
        )
        self.gradients = GradientAccumulator(self.network, settings.seed, self.parallel)
        requested_evaluations = settings.evaluations or (max_evaluations if settings.patience else None)
        self.budget = TrainingBudget(
            duration, run, requested_evaluations, self.start_time, max_evaluations=max_evaluations,
            evaluation_tokens=evaluation_tokens,
            post_training_seconds=post_training_seconds, world=self.world,
        )  # fmt: skip
        self.activation_stats = ActivationStats(self.network, settings.activation_stats_every)
        self.spike_guard = SpikeGuard(run)
        self.oom_backoff = oom_backoff.OOMBackoff(
            run, "training", dataloader.micro_batch, self._say, single_process=self.world.world_size == 1
        )
        self._current_settings = settings
        """The settings with the changes in mid-run."""
        self._plan: dict[str, Any] = {}
        self._active_changes: list[Mapping[str, Any]] = []
        self.state = TrainState()
        self._throughput = Throughput(0)
        self._checkpoint_log: bytes | None = None
        """The log up to the checkpoint that a resumed run goes on from."""
        self._has_unsaved_steps = False
        """Did a step change the weights since they were saved?"""

    def train(self) -> TrainResult:
        """Train to the end, from wherever the run's folder says that it stopped.

        Raises:
            Interrupted: a signal came; a checkpoint was saved.
            TrainingError: the loss is no longer a number, or one row does not fit into memory.
        """
        with (
            StopRequest(exit_on_second=self.world.world_size == 1) as stop,
            oom_backoff.explain_out_of_memory(self.name),
        ):
            self._resume()
            plan = self.budget.load_or_create_plan(
                self.dataloader, self.state.step, lambda: self._build_trial(stop), self._say
            )
            self._plan = plan
            log = self._open_log()
            try:
                with track_progress(
                    self.reporter, self.name, self.budget.step_budget.last_segment.end
                ) as progress_bar:
                    self._train_loop(log, stop, progress_bar)
            finally:
                log.close()
        best = self.state.best_step
        assert best is not None, "the last step is evaluated"
        self.checkpointer.load_best(best, self.state.step)
        state, seconds = self.state, time.monotonic() - self.budget.start_time
        return TrainResult(
            state.step, plan["steps"], state.tokens, seconds, best, state.best_scores,
            "patience" if self._out_of_patience() else "budget", state.lr_factor,
            self.budget.min_budget() if state.step < MIN_STEPS else "",
        )  # fmt: skip

    def _open_log(self) -> Log:
        if not self.world.is_main:
            return NullMetricsLog()
        state = self.state
        return MetricsLog(
            self.run.metrics_path, self.run.folder / "tensorboard",
            offset=state.log_offset, step=state.step, tokens=state.tokens,
            expected_content=self._checkpoint_log, say=self._say,
        )  # fmt: skip

    def _train_loop(self, log: Log, stop: StopRequest, progress_bar: ProgressBar) -> None:
        budget = self.budget
        budget.step_timer.restart(budget.step_budget.progress(self.state.step))
        self._throughput = Throughput(self.state.tokens)
        while True:
            state = self.state  # another one after a way back
            total = budget.step_budget.total_steps(state.step)
            if state.step in budget.step_budget.evaluation_steps(budget.evaluations):
                start = time.monotonic()
                self._save(log)
                with self._stop_between_batches(stop, self.model_io.network, self._stop_message()):
                    self._evaluate(log)
                budget.step_timer.record_evaluation(time.monotonic() - start)
            elif self._should_save(state.step):
                self._save(log)
            if state.step >= total or self._out_of_patience():
                return
            self._apply_adjustments()
            if self.world.any_rank(stop.should_stop) or not self._train_step(log, stop, progress_bar):
                self._save(log)
                raise Interrupted(self._stop_message())
            budget.correct_steps(self.state.step)

    def _should_save(self, step: int) -> bool:
        """Whether it is time for a checkpoint; one of unchanged weights would push out a better one."""
        every = self.settings.save_every
        return bool(every and step and step % every == 0 and self._has_unsaved_steps)

    def _stop_message(self) -> str:
        step = self.state.step
        return (
            f"stopped at step {step} of {self.budget.step_budget.total_steps(step)}; a checkpoint is "
            "saved in "
            f"{self.run.folder}, run the same command to go on"
        )

    def _train_step(self, log: Log, stop: StopRequest, progress_bar: ProgressBar) -> bool:
        """One optimiser step; False, with nothing changed, where a stop was asked for within it."""
        state, start = self.state, time.monotonic()
        skipped = self.spike_guard.find_skipped_step(self._plan, state.step)
        if skipped is not None:
            self._skip_step(skipped, log)
            return True
        result = self.oom_backoff.run_with_backoff(
            state.step, lambda rows: self._compute_gradients(rows, stop), self.optimizer.zero_grad
        )
        if result is None:
            self.optimizer.zero_grad()
            return False
        loss, norm, tokens = result
        if self.spike_guard.is_bad_step(state, loss, norm):
            self.optimizer.zero_grad()
            self.activation_stats.discard()
            self._plan = self.world.on_main(lambda: self.spike_guard.record_bad_step(state.step, loss, norm))
            self._skip_step(SkippedStep(loss, norm), log)
            return True
        step_budget = self.budget.step_budget
        factor = schedules.lr_factor(
            step_budget.schedule_step(state.step), step_budget.total_steps(state.step), self.settings.schedule
        )
        self.optimizer.step(factor, state.step)
        self.spike_guard.accept_loss(state, loss)
        self._has_unsaved_steps = True
        stats = self.activation_stats.collect(state.step)
        state.step, state.lr_factor, state.tokens = state.step + 1, factor, state.tokens + tokens
        if self.ema is not None:
            self.ema.update(state.step)
        log.log_step(
            state.step,
            {
                "epoch": round(state.step / self.dataloader.steps_per_epoch, 6),
                "tokens": state.tokens,
                "loss": loss,
                "learning_rate": self._current_settings.optimizer.learning_rate * factor,
                "gradient_norm": norm,
                "seconds": round(time.monotonic() - start, 4),
            },
        )
        if stats is not None:
            log.log_activation_stats(state.step, stats)
        self.budget.step_timer.count_step()
        progress_bar.update(
            state.step, self._progress_detail(loss, state.tokens), self.budget.step_budget.last_segment.end
        )
        return True

    def _compute_gradients(self, rows: int, stop: StopRequest) -> tuple[float, float, int] | None:
        """Loss, gradient norm and tokens of the step that is next, ``rows`` at once; None: stopped within."""
        step, self.dataloader.micro_batch = self.state.step, rows
        micro_batches = self.dataloader(step, self.budget.step_budget.progress(step))
        with self.activation_stats.record_activations(step):
            # Ranks stop together, between two steps.
            should_stop = (lambda: stop.should_stop) if self.world.world_size == 1 else never_stop
            loss = self.gradients.accumulate(micro_batches, step, should_stop)
        if loss is None:
            return None
        self.activation_stats.record_gradients(step)
        read = sum(part.num_tokens for part in micro_batches if part.has_targets)
        tokens = self.world.sum_counts({"tokens": read})["tokens"]
        return loss, ddp.clip_gradients(self.network, self._current_settings.clip), tokens

    def _stop_between_batches(
        self, stop: StopRequest, network: nn.Module, message: str
    ) -> AbstractContextManager[None]:
        """Within, a process alone leaves work that calls ``network`` where it stands; ranks stop together."""
        return stop.stop_between_batches(network, message) if self.world.world_size == 1 else nullcontext()

    def _skip_step(self, skipped: SkippedStep, log: Log) -> None:
        """Pass over a step that went wrong, now or before; after several in a row go back."""
        self.spike_guard.skip_step(self.state, skipped)
        log.log_skipped_step(self.state.step, self.state.tokens, skipped.to_dict())
        if not self.spike_guard.should_roll_back(self.state):
            return
        at = self.state.step
        name, self._plan = self.world.on_main(lambda: self.spike_guard.roll_back(self.state))
        folder = self.run.checkpoints_path / name
        self.state, self._has_unsaved_steps = self.checkpointer.restore(folder, self.reporter.say), False
        log.truncate(self.state.log_offset, self.state.step, self.state.tokens)
        self._say(
            f"the last steps before {at:,} had no usable loss or gradient; back to {folder}, going on "
            f"without steps {self.state.step:,} to {at - 1:,}"
        )

    def _progress_detail(self, loss: float, tokens: int) -> str:
        """``loss 5.120 (unigram 6.90, bigram 5.20), 3,210 tokens/s``"""
        references = ", ".join(f"{name} {level:.2f}" for name, level in self.train_reference_losses.items())
        return f"loss {loss:.3f}{f' ({references})' if references else ''}{self._throughput.format(tokens)}"

    def _evaluate(self, log: Log) -> None:
        state, start = self.state, time.monotonic()
        with self.checkpointer.swapped_in():
            scores = self._compute_scores()
        if not math.isfinite(scores[0].value):
            raise TrainingError(
                f"step {state.step}: validation {scores[0].name} {scores[0].value}: the weights are lost; "
                "start again in another folder (--out) with a lower training.optimizer.learning_rate"
            )
        log.log_evaluation(state.step, scores, time.monotonic() - start, self.reference_losses)
        best = state.best_scores.get(scores[0].name)
        if scores[0].is_better_than(best):
            state.best_step, state.best_scores = state.step, {s.name: s.value for s in scores}
        self._update_patience(scores[0])
        summary = ", ".join(f"{s.name} {s.value:.3f}" for s in scores)
        self._say(f"step {state.step:,}, validation: {summary}")

    def _compute_scores(self) -> list[Score]:
        """Rank 0's, on all ranks: what they decide, all decide alike."""
        rows = [score.to_dict() for score in self.evaluate(self.model_io.network, self.state.step)]
        return [Score.from_dict(row) for row in self.world.broadcast(rows)]

    def _update_patience(self, score: Score) -> None:
        """Count the evaluations in a row that did not improve by ``min_delta``."""
        state, min_delta = self.state, self.settings.min_delta * (1 if score.direction == "higher" else -1)
        better = score.is_better_than(
            None if state.patience_score is None else state.patience_score + min_delta
        )
        state.patience_score, state.evaluations_without_improvement = (
            (score.value, 0) if better else (state.patience_score, state.evaluations_without_improvement + 1)
        )

    def _out_of_patience(self) -> bool:
        return (
            self.settings.patience is not None
            and self.state.evaluations_without_improvement >= self.settings.patience
        )

    def _apply_adjustments(self) -> None:
        """Take up changes that were asked for, and let those that hold from this step on hold."""
        plan = self.world.on_main(self._accept_requests)
        self._plan = self._plan if plan is None else plan
        active = adjustments.active_changes(self._plan, self.state.step)
        if active != self._active_changes:
            self._active_changes = active
            self._current_settings = adjustments.settings_at(self.settings, self._plan, self.state.step)
            self.optimizer.update_hyperparameters(self._current_settings.optimizer)

    def _accept_requests(self) -> dict[str, Any] | None:
        """The run's plan with the changes that were asked for since the last step, if there are any."""
        done, refused = adjustments.accept_requests(self.run, self.settings, self.state.step)
        for line in (*done, *refused):
            self._say(line)
        return self.run.read_plan() if done else None

    def _save(self, log: Log) -> None:
        if self.checkpointer.is_saved(self.state.step):
            return
        self.budget.record_spent_time()
        self.state.log_offset = log.tell()
        self.checkpointer.save(self.state, log.content)
        self._has_unsaved_steps = False

    def _resume(self) -> None:
        resumed = self.checkpointer.resume(self.reporter.say)
        if resumed is not None:
            self.state, folder = resumed
            self._checkpoint_log = self.checkpointer.read_log(folder) if self.world.is_main else None
            self._say(f"going on from step {self.state.step:,} ({folder})")

    def _say(self, text: str) -> None:
        self.reporter.say(f"  {self.name}: {text}")

    def _build_trial(self, stop: StopRequest) -> TimingTrial:
        """A step, an evaluation and a checkpoint on weights that are thrown away, to be timed."""
        full_network = copy.deepcopy(self.model_io.network)
        trial = ddp.build_parallel(full_network, self.world, self.settings.parallel)
        optimizer = optimizers.build_optimizers(trial.network, self.settings.optimizer)
        gradients = GradientAccumulator(trial.network, self.settings.seed, trial)

        message = "stopped before the first step; run the same command to begin again"

        def attempt(number: int, share: float, rows: int) -> None:
            self.dataloader.micro_batch = rows
            with self._stop_between_batches(stop, trial.network, message):
                gradients.accumulate(self.dataloader(number, share), number, never_stop)
            ddp.clip_gradients(trial.network, self._current_settings.clip)

        def step(number: int, share: float) -> None:
            self.oom_backoff.run_with_backoff(
                0, lambda rows: attempt(number, share, rows), optimizer.zero_grad
            )
            optimizer.step(1.0, number)

        def evaluate() -> None:
            trial.unshard_into()
            # A task is judged by the model that it belongs to, whatever network it is handed.
            trained_network = self.model_io.network
            with (
                self._stop_between_batches(stop, full_network, message),
                self._stop_between_batches(stop, trained_network, message),
            ):
                self.evaluate(full_network, 0)

        return TimingTrial(step, evaluate, lambda: self.checkpointer.trial_save(optimizer))
