"""What a run logs of its steps and evaluations, and what its progress bar shows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from pretune.runtime.metrics_log import Log
from pretune.runtime.progress import ProgressBar
from pretune.training.callbacks.adjustments import Adjustments
from pretune.training.callbacks.base import Callback, StepResult
from pretune.training.step_timer import Throughput, TrainingBudget
from pretune.training.train_state import TrainState
from pretune.types import Score


class MetricsLogging(Callback):
    """Writes steps and evaluations into ``metrics.jsonl`` and TensorBoard."""

    def __init__(
        self,
        log: Log,
        adjustments: Adjustments,
        steps_per_epoch: float,
        reference_losses: Mapping[str, float],
    ) -> None:
        """``reference_losses``: of simpler models on the held-out targets."""
        self.log, self.adjustments, self.steps_per_epoch = log, adjustments, steps_per_epoch
        self.reference_losses = dict(reference_losses)

    def on_step_end(self, state: TrainState, result: StepResult) -> None:
        """A row for the step."""
        self.log.log_step(
            state.step,
            {
                "epoch": round(state.step / self.steps_per_epoch, 6),
                "tokens": state.tokens,
                "loss": result.loss,
                "learning_rate": self.adjustments.settings.optimizer.learning_rate * result.lr_factor,
                "gradient_norm": result.gradient_norm,
                "seconds": round(result.seconds, 4),
            },
        )

    def on_evaluation_end(self, state: TrainState, scores: Sequence[Score], seconds: float) -> None:
        """A row for the evaluation."""
        self.log.log_evaluation(state.step, list(scores), seconds, self.reference_losses)


class ProgressDisplay(Callback):
    """Shows loss and speed while a run goes on, and the scores of each evaluation."""

    def __init__(
        self,
        progress_bar: ProgressBar,
        say: Callable[[str], None],
        budget: TrainingBudget,
        reference_losses: Mapping[str, float],
        tokens: int,
    ) -> None:
        """``reference_losses``: of simpler models on the targets of training; ``tokens``: read before now."""
        self.progress_bar, self.say, self.budget = progress_bar, say, budget
        self.reference_losses, self.throughput = dict(reference_losses), Throughput(tokens)

    def on_step_end(self, state: TrainState, result: StepResult) -> None:
        """``loss 5.120 (unigram 6.90, bigram 5.20), 3,210 tokens/s``"""
        references = ", ".join(f"{name} {loss:.2f}" for name, loss in self.reference_losses.items())
        suffix = (f" ({references})" if references else "") + self.throughput.format(state.tokens)
        total = self.budget.step_budget.last_segment.end
        self.progress_bar.update(state.step, f"loss {result.loss:.3f}{suffix}", total)

    def on_evaluation_end(self, state: TrainState, scores: Sequence[Score], seconds: float) -> None:
        """``step 1,200, validation: accuracy 0.812``"""
        summary = ", ".join(f"{s.name} {s.value:.3f}" for s in scores)
        self.say(f"step {state.step:,}, validation: {summary}")
