"""The settings of training, shared by pretraining and fine-tuning."""

from __future__ import annotations

from typing import Annotated, Literal

import pydantic

from pretune.config import Settings

Share = Annotated[float, pydantic.Field(ge=0, lt=1)]


class OptimizerSettings(Settings):
    """AdamW (Loshchilov & Hutter 2019), or Muon for hidden matrices with AdamW for the rest.

    Weight decay is for matrices, not for norms and biases.
    """

    name: Literal["adamw", "muon"] = "adamw"
    learning_rate: float = pydantic.Field(default=1e-3, gt=0)
    betas: tuple[Share, Share] = (0.9, 0.98)
    epsilon: float = pydantic.Field(default=1e-8, gt=0)
    weight_decay: float = pydantic.Field(default=0.01, ge=0)
    muon_learning_rate: float = pydantic.Field(default=0.02, gt=0)
    muon_momentum: float = pydantic.Field(default=0.95, ge=0, lt=1)


class ScheduleSettings(Settings):
    """Linear warm-up, then a cosine down to a share of the peak."""

    name: Literal["cosine"] = "cosine"
    warmup: float = pydantic.Field(default=0.06, ge=0)
    """Below 1 a share of the run, from 1 on a number of steps."""
    final: float = pydantic.Field(default=0.0, ge=0, le=1)
    """Learning rate at the end, as a share of the peak."""


class TrainingSettings(Settings):
    """How the one trainer trains."""

    optimizer: OptimizerSettings = OptimizerSettings()
    schedule: ScheduleSettings = ScheduleSettings()
    batch_tokens: int | None = pydantic.Field(default=None, gt=0)
    """Size of a global step in tokens without padding."""
    batch_examples: int | None = pydantic.Field(default=None, gt=0)
    """Size of a global step in examples; give one of the two."""
    micro_batch: int | None = pydantic.Field(default=None, gt=0)
    """Rows of the grid that go through the network at once; None: as many as make 4,096 tokens.
    It changes memory and speed, not what is learnt."""
    packing: bool = True
    """Several short texts in one row, where objective and family can; they never see each other."""
    clip: float = pydantic.Field(default=1.0, ge=0)
    """Largest L2 norm of the gradient; 0: no limit."""
    seed: int = pydantic.Field(default=0, ge=0, lt=2**32)
    evaluations: int = pydantic.Field(default=10, ge=1)
    """Evaluations on held-out data, evenly spaced; the last one is at the end."""
    save_every: int | None = pydantic.Field(default=None, gt=0)
    """Steps between checkpoints besides those before each evaluation."""
    keep: int = pydantic.Field(default=2, ge=1)
    """Checkpoints that stay on disk besides the best."""

    @pydantic.model_validator(mode="after")
    def _one_size(self) -> TrainingSettings:
        if (self.batch_tokens is None) == (self.batch_examples is None):
            raise ValueError("give the size of a step as one of batch_tokens and batch_examples")
        return self
