"""The settings of training, shared by pretraining and fine-tuning."""

from __future__ import annotations

from typing import Annotated, Literal

import pydantic

from pretune.config import Settings

Fraction = Annotated[float, pydantic.Field(ge=0, lt=1)]


class OptimizerSettings(Settings):
    """The optimiser and its learning rate; weight decay is for matrices, not for norms and biases."""

    name: Literal["adamw", "muon", "sgd", "adafactor"] = "adamw"
    """AdamW (Loshchilov & Hutter 2019); Muon for hidden matrices with AdamW for the rest; SGD with momentum;
    Adafactor (Shazeer & Stern 2018), which keeps no matrix of second moments."""
    learning_rate: float = pydantic.Field(default=1e-3, gt=0)
    betas: tuple[Fraction, Fraction] = (0.9, 0.98)
    epsilon: float = pydantic.Field(default=1e-8, gt=0)
    weight_decay: float = pydantic.Field(default=0.01, ge=0)
    """Decoupled from the gradient (a share of the learning rate), but with sgd, where it is added to it."""
    decay_embeddings: bool = True
    muon_learning_rate: float = pydantic.Field(default=0.02, gt=0)
    muon_momentum: float = pydantic.Field(default=0.95, ge=0, lt=1)
    muon_every: int = pydantic.Field(default=1, ge=1)
    """Steps from one update of a matrix by Muon to the next, which is so many times as long."""
    momentum: Fraction = 0.9
    """Of sgd."""
    nesterov: bool = True
    """Of sgd: look ahead along the momentum."""

    @pydantic.model_validator(mode="after")
    def _check_nesterov(self) -> OptimizerSettings:
        if self.name == "sgd" and self.nesterov and not self.momentum:
            raise ValueError("nesterov looks along the momentum, which is 0; set nesterov=false, too")
        return self


class ScheduleSettings(Settings):
    """Linear warm-up, then the learning rate's way down from the peak."""

    name: Literal["cosine", "linear", "wsd", "inverse_sqrt", "constant"] = "cosine"
    """wsd: stays at the peak and goes down in the last share ``decay`` of the run (Hu et al. 2024)."""
    warmup: float = pydantic.Field(default=0.06, ge=0)
    """Below 1 a share of the run, from 1 on a number of steps."""
    final_factor: float = pydantic.Field(default=0.0, ge=0, le=1)
    """Learning rate at the end, as a share of the peak; of cosine, linear and wsd."""
    decay: float = pydantic.Field(default=0.2, gt=0, le=1)
    """Of wsd: the share of the run in which the learning rate goes down."""
    decay_shape: Literal["1-sqrt", "linear"] = "1-sqrt"
    """Of wsd: how it goes down (1-sqrt: Hägele et al. 2024)."""

    @pydantic.model_validator(mode="after")
    def _check_schedule(self) -> ScheduleSettings:
        if self.final_factor and self.name in ("inverse_sqrt", "constant"):
            raise ValueError(f"schedule {self.name!r} has no final learning rate; leave final_factor at 0")
        if self.name == "wsd" and self.warmup < 1 and self.warmup + self.decay > 1:
            raise ValueError(
                f"warmup {self.warmup:g} and decay {self.decay:g} are more than the run; make one shorter"
            )
        return self


class TrainingSettings(Settings):
    """How the one trainer trains."""

    optimizer: OptimizerSettings = OptimizerSettings()
    schedule: ScheduleSettings = ScheduleSettings()
    batch_tokens: int | None = pydantic.Field(default=None, gt=0)
    """Size of a global step in tokens without padding."""
    batch_examples: int | None = pydantic.Field(default=None, gt=0)
    """Size of a global step in examples; give one of the two, or leave the choice to the verb."""
    micro_batch: int | None = pydantic.Field(default=None, gt=0)
    """Rows of the grid that go through the network at once; None: as many as make 4,096 tokens.
    It changes memory and speed, not what is learnt."""
    parallel: Literal["ddp", "fsdp"] = "ddp"
    """Under torchrun: each process holds all weights (ddp), or a part of each of them (fsdp)."""
    packing: bool = True
    """Several short texts in one row, where objective and family can; they never see each other."""
    clip: float = pydantic.Field(default=1.0, ge=0)
    """Largest L2 norm of the gradient; 0: no limit."""
    seed: int = pydantic.Field(default=0, ge=0, lt=2**32)
    evaluations: int | None = pydantic.Field(default=None, ge=1)
    """Evaluations on validation data, evenly spaced, each with a checkpoint; the last one is at the end.
    None: as many as take a twentieth of the time of training, 10 (of fine-tuning 4) at most, and with
    ``patience`` that many."""
    ema: float | None = pydantic.Field(default=None, gt=0, lt=1)
    """Decay of a running average of the weights, which is then what is evaluated and saved; 0.999 suits
    runs of some thousand steps. None: no average."""
    patience: int | None = pydantic.Field(default=None, ge=1)
    """Evaluations without improvement after which training ends early; None: it never does."""
    min_delta: float = pydantic.Field(default=0.0, ge=0)
    """What counts as an improvement for ``patience``: the first score better by more than this."""
    activation_stats_every: int | None = pydantic.Field(default=100, ge=1)
    """Steps between looks at gradients, updates and activations; None: never. It changes no result."""
    save_every: int | None = pydantic.Field(default=None, gt=0)
    """Steps between checkpoints besides those before each evaluation."""
    max_checkpoints: int = pydantic.Field(default=2, ge=1)
    """Checkpoints that stay on disk besides the best."""

    @pydantic.model_validator(mode="after")
    def _check_batch_size(self) -> TrainingSettings:
        if self.batch_tokens is not None and self.batch_examples is not None:
            raise ValueError("give the size of a step as one of batch_tokens and batch_examples")
        return self
