"""The trainer: steps, evaluations and checkpoints of any network on any data loader.

All that a step needs is a function of its number: so a run that was stopped anywhere and resumed is bit for
bit the run that was not, with dropout on. A step is `Trainer.train_step`; what its gradients are, is said in
`gradients`; what a checkpoint holds, in `checkpointer`; how many steps there are, in `step_timer`; which
steps are left out, in `callbacks.loss_spikes`; how many rows fit, in `oom_backoff`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

from torch import nn

from pretune.errors import Interrupted
from pretune.runtime.distributed import World
from pretune.runtime.metrics_log import Log, MetricsLog, NullMetricsLog
from pretune.runtime.progress import NullReporter, ProgressBar, Reporter, track_progress
from pretune.runtime.run_folder import Run
from pretune.runtime.signals import StopRequest
from pretune.training import ddp
from pretune.training.budget import MIN_STEPS, PostTrainingSeconds
from pretune.training.callbacks.activation_stats import ActivationStats
from pretune.training.callbacks.adjustments import Adjustments
from pretune.training.callbacks.base import Callback, StepResult
from pretune.training.callbacks.ema import EMA
from pretune.training.callbacks.loss_spikes import SkippedStep, SpikeGuard
from pretune.training.callbacks.metrics import MetricsLogging, ProgressDisplay
from pretune.training.checkpointer import Checkpointer
from pretune.training.dataloader import DataLoaderLike
from pretune.training.duration import Duration
from pretune.training.gradients import GradientAccumulator, never_stop
from pretune.training.oom_backoff import OOMBackoff, explain_out_of_memory
from pretune.training.optimizers import optimizers
from pretune.training.schedules import lr_factor
from pretune.training.settings import TrainingSettings
from pretune.training.step_timer import TimingTrial, TrainingBudget
from pretune.training.timing_trial import build_trial
from pretune.training.train_state import ModelIO, TrainResult, TrainState
from pretune.training.validation import Evaluate, Validation


class Trainer:
    """Trains ``model_io.network`` on ``dataloader`` for ``duration``, inside a run's folder."""

    def __init__(
        self,
        *,
        model_io: ModelIO,
        dataloader: DataLoaderLike,
        evaluate: Evaluate,
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
        """``dataloader`` and ``evaluate`` are this rank's, of ``world``.

        Args:
            start_time: when the command began, by `time.monotonic`; a budget in minutes counts from there.
            max_evaluations: where the settings leave their number open.
            evaluation_tokens: tokens that each evaluation reads.
            post_training_seconds: what the caller does in the time of the run once training has ended.
            reference_losses: of simpler models on the held-out targets, logged beside the scores.
            train_reference_losses: the same on the targets of training, where they are of another type.
        """
        world = world or World()
        self.name, self.reporter = name, reporter if reporter and world.is_main else NullReporter()
        self.model_io, self.dataloader = model_io, dataloader
        self.parallel = ddp.build_parallel(model_io.network, world, settings.parallel)
        self.gradients = GradientAccumulator(self.parallel.network, settings.seed, self.parallel)
        self.optimizer = optimizers.build_optimizers(self.parallel.network, settings.optimizer)
        ema = None if settings.ema is None else EMA(self.parallel.network, settings.ema)
        self.checkpointer = Checkpointer(
            run, model_io, self.optimizer, ema, settings.max_checkpoints, self.parallel
        )
        requested_evaluations = settings.evaluations or (max_evaluations if settings.patience else None)
        self.budget = TrainingBudget(
            duration, run, requested_evaluations, time.monotonic() if start_time is None else start_time,
            max_evaluations=max_evaluations, evaluation_tokens=evaluation_tokens,
            post_training_seconds=post_training_seconds, world=world,
        )  # fmt: skip
        self.oom_backoff = OOMBackoff(
            run, "training", dataloader.micro_batch, self._say, single_process=world.world_size == 1
        )
        self.adjustments = Adjustments(run, settings, self.optimizer, world, self._say)
        self.spike_guard = SpikeGuard(run, world)
        self.validation = Validation(evaluate, settings, world)
        self.reference_losses = dict(reference_losses or {})
        self.train_reference_losses = dict(train_reference_losses or self.reference_losses)
        self.callbacks: Sequence[Callback] = ()
        self.log: Log = NullMetricsLog()
        self.state = TrainState()

    @property
    def network(self) -> nn.Module:
        """What is trained on this rank."""
        return self.parallel.network

    @property
    def run(self) -> Run:
        """The run's folder."""
        return self.checkpointer.run

    def train(self) -> TrainResult:
        """Train to the end, from wherever the run's folder says that it stopped.

        Raises:
            Interrupted: a signal came; a checkpoint was saved.
            TrainingError: the loss is no longer a number, or one row does not fit into memory.
        """
        single_process = self.parallel.world.world_size == 1
        with StopRequest(exit_on_second=single_process) as stop, explain_out_of_memory(self.name):
            log_content = self._resume()
            plan = self.budget.load_or_create_plan(
                self.dataloader, self.state.step, lambda: self._build_trial(stop), self._say
            )
            self.adjustments.load_plan(plan)
            self.spike_guard.load_plan(plan)
            self.log = self._open_log(log_content)
            try:
                total = self.budget.step_budget.last_segment.end
                with track_progress(self.reporter, self.name, total) as progress_bar:
                    self.callbacks = self._build_callbacks(progress_bar)
                    self._train_loop(stop)
            finally:
                self.log.close()
        state = self.state
        assert state.best_step is not None, "the last step is evaluated"
        self.checkpointer.load_best(state.best_step, state.step)
        return TrainResult(
            state.step, plan["steps"], state.tokens, time.monotonic() - self.budget.start_time,
            state.best_step, state.best_scores,
            "patience" if self.validation.is_out_of_patience(state) else "budget", state.lr_factor,
            self.budget.min_budget() if state.step < MIN_STEPS else "",
        )  # fmt: skip

    def _train_loop(self, stop: StopRequest) -> None:
        budget, world = self.budget, self.parallel.world
        budget.step_timer.restart(budget.step_budget.progress(self.state.step))
        while True:
            step = self.state.step
            if step in budget.step_budget.evaluation_steps(budget.evaluations):
                start = time.monotonic()
                self._save()
                self._evaluate(stop)
                budget.step_timer.record_evaluation(time.monotonic() - start)
            elif self._should_save(step):
                self._save()
            is_last = step >= budget.step_budget.total_steps(step)
            if is_last or self.validation.is_out_of_patience(self.state):
                return
            if world.any_rank(stop.should_stop) or not self.train_step(stop):
                self._save()
                raise Interrupted(self._stop_message())
            budget.correct_steps(self.state.step)

    def train_step(self, stop: StopRequest) -> bool:
        """One optimizer step; False, with nothing changed, where a stop was asked for within it."""
        start, state, guard = time.monotonic(), self.state, self.spike_guard
        for callback in self.callbacks:
            callback.on_step_start(state)
        skipped = guard.find_skipped_step(state.step)
        if skipped is not None:
            return self._skip_step(skipped)

        # Fewer rows at once where memory runs out; the step is then begun anew.
        result = self.oom_backoff.run_with_backoff(
            state.step, lambda rows: self._forward_backward(rows, stop), self.optimizer.zero_grad
        )
        if result is None:
            self.optimizer.zero_grad()
            return False
        loss, tokens = result
        norm = ddp.clip_gradients(self.network, self.adjustments.settings.clip)
        if guard.is_bad_step(state, loss, norm):
            return self._skip_step(guard.record_bad_step(state.step, loss, norm))

        budget = self.budget.step_budget
        factor = lr_factor(
            budget.schedule_step(state.step), budget.total_steps(state.step),
            self.adjustments.settings.schedule,
        )  # fmt: skip
        self.optimizer.step(factor, state.step)
        self.checkpointer.has_unsaved_updates = True
        guard.accept_loss(state, loss)
        state.step, state.lr_factor, state.tokens = state.step + 1, factor, state.tokens + tokens
        for callback in self.callbacks:
            callback.on_step_end(state, StepResult(loss, norm, factor, time.monotonic() - start))
        return True

    def _forward_backward(self, rows: int, stop: StopRequest) -> tuple[float, int] | None:
        """Loss and tokens of the step that is next, ``rows`` at once; None: a stop was asked for."""
        step, world = self.state.step, self.parallel.world
        self.dataloader.micro_batch = rows
        micro_batches = self.dataloader(step, self.budget.step_budget.progress(step))
        # Ranks stop together, between two steps.
        should_stop = (lambda: stop.should_stop) if world.world_size == 1 else never_stop
        with ExitStack() as stack:
            for callback in self.callbacks:
                stack.enter_context(callback.around_backward(step))
            loss = self.gradients.accumulate(micro_batches, step, should_stop)
        if loss is None:
            return None
        for callback in self.callbacks:
            callback.on_gradients(step)
        read = sum(micro_batch.num_tokens for micro_batch in micro_batches if micro_batch.has_targets)
        return loss, world.sum_counts({"tokens": read})["tokens"]

    def _skip_step(self, skipped: SkippedStep) -> bool:
        """Pass over a step that went wrong, now or before; after several in a row go back."""
        self.optimizer.zero_grad()
        self.spike_guard.skip_step(self.state, skipped)
        for callback in self.callbacks:
            callback.on_step_skip(self.state)
        self.log.log_skipped_step(self.state.step, self.state.tokens, skipped.to_dict())
        if self.spike_guard.should_roll_back(self.state):
            step = self.state.step
            folder = self.run.checkpoints_path / self.spike_guard.roll_back(self.state)
            self.state = self.checkpointer.restore(folder, self.reporter.say)
            self.log.truncate(self.state.log_offset, self.state.step, self.state.tokens)
            self._say(
                f"the last steps before {step:,} had no usable loss or gradient; back to {folder}, going on "
                f"without steps {self.state.step:,} to {step - 1:,}"
            )
        return True

    def _evaluate(self, stop: StopRequest) -> None:
        start, network = time.monotonic(), self.model_io.network
        with self._interruptible(stop, [network], self._stop_message()), self.checkpointer.swapped_in():
            scores = self.validation.score(network, self.state)
        for callback in self.callbacks:
            callback.on_evaluation_end(self.state, scores, time.monotonic() - start)

    # -- checkpoints ------------------------------------------------------------------------------

    def _should_save(self, step: int) -> bool:
        """Whether it is time for a checkpoint; one of unchanged weights would push out a better one."""
        every = self.adjustments.settings.save_every
        return bool(every and step and step % every == 0 and self.checkpointer.has_unsaved_updates)

    def _save(self) -> None:
        if not self.checkpointer.is_saved(self.state.step):
            self.budget.record_spent_time()
            self.state.log_offset = self.log.tell()
            self.checkpointer.save(self.state, self.log.content)

    def _resume(self) -> bytes | None:
        """Go on from the newest checkpoint; the log up to there, where the run has one."""
        resumed = self.checkpointer.resume(self.reporter.say)
        if resumed is None:
            return None
        self.state, folder = resumed
        content = self.checkpointer.read_log(folder) if self.parallel.world.is_main else None
        self._say(f"going on from step {self.state.step:,} ({folder})")
        return content

    # -- what a run begins with ---------------------------------------------------------------------

    def _open_log(self, content: bytes | None) -> Log:
        if not self.parallel.world.is_main:
            return NullMetricsLog()
        state = self.state
        return MetricsLog(
            self.run.metrics_path, self.run.folder / "tensorboard", offset=state.log_offset,
            step=state.step, tokens=state.tokens, expected_content=content, say=self._say,
        )  # fmt: skip

    def _build_callbacks(self, progress_bar: ProgressBar) -> Sequence[Callback]:
        """In the order in which they are called."""
        ema, every = self.checkpointer.ema, self.adjustments.settings.activation_stats_every
        return [
            self.adjustments,
            *([] if ema is None else [ema]),
            MetricsLogging(
                self.log, self.adjustments, self.dataloader.steps_per_epoch, self.reference_losses
            ),
            ActivationStats(self.network, every, self.log),
            self.budget,
            ProgressDisplay(
                progress_bar, self._say, self.budget, self.train_reference_losses, self.state.tokens
            ),
        ]

    def _build_trial(self, stop: StopRequest) -> TimingTrial:
        message = "stopped before the first step; run the same command to begin again"
        return build_trial(
            dataloader=self.dataloader, settings=self.adjustments.settings,
            checkpointer=self.checkpointer, oom_backoff=self.oom_backoff, evaluate=self.validation.evaluate,
            interruptible=lambda networks: self._interruptible(stop, networks, message),
        )  # fmt: skip

    @contextmanager
    def _interruptible(
        self, stop: StopRequest, networks: Sequence[nn.Module], message: str
    ) -> Iterator[None]:
        """Within, a single process leaves work that calls one of ``networks``; ranks stop together."""
        with ExitStack() as stack:
            for network in networks if self.parallel.world.world_size == 1 else ():
                stack.enter_context(stop.stop_between_batches(network, message))
            yield

    def _stop_message(self) -> str:
        step = self.state.step
        return (
            f"stopped at step {step} of {self.budget.step_budget.total_steps(step)}; a checkpoint is saved "
            f"in {self.run.folder}, run the same command to go on"
        )

    def _say(self, text: str) -> None:
        self.reporter.say(f"  {self.name}: {text}")
