"""What the trainer asks of whoever keeps the model, and how training stands and ends."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from torch import nn


class ModelIO(Protocol):
    """Writes the network as a model folder, and reads it back."""

    network: nn.Module

    def write(self, folder: Path) -> None:
        """Put the model's files into an existing folder."""

    def restore(self, folder: Path) -> None:
        """Put the weights in a folder into the network."""


@dataclass(frozen=True)
class TrainResult:
    """How training ended."""

    steps: int
    planned_steps: int
    """Steps as they were planned before the first one; a length in minutes is corrected on the way."""
    tokens: int
    """Tokens without padding that were read, over the whole run."""
    seconds: float
    """Wall-clock time of this process from ``started`` on; a run that was resumed took longer."""
    best_step: int
    best_scores: dict[str, float]
    """Scores of the best checkpoint; the network holds its weights."""
    stop_reason: Literal["budget", "patience"]
    """Why training ended: at its length, or early for want of improvement."""
    last_lr_factor: float
    """Learning rate of the last update, as a share of the peak."""
    min_budget: str = ""
    """The budget in which ``budget.MIN_STEPS`` fit, where fewer steps were made; else empty."""

    def stop_summary(self) -> dict[str, Any]:
        """Why it ended, as it stands in summary.json."""
        return {
            "stop_reason": self.stop_reason,
            "planned_steps": self.planned_steps,
            "last_lr_factor": round(self.last_lr_factor, 6),
        }


@dataclass
class TrainState:
    """What a checkpoint keeps besides weights and optimiser."""

    step: int = 0
    tokens: int = 0
    log_offset: int = 0
    best_step: int | None = None
    best_scores: dict[str, float] = field(default_factory=dict)
    patience_score: float | None = None
    evaluations_without_improvement: int = 0
    """Evaluations since the first score last improved by ``min_delta``, on ``patience_score``."""
    lr_factor: float = 0.0
    """Of the learning rate in the last update."""
    losses: list[float] = field(default_factory=list)
    """Of the last accepted steps: what a loss must be like."""
    bad_steps: int = 0
    """Steps in a row, up to this one, that changed nothing since they went wrong."""
