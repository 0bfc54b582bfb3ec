"""The form of a run's ``plan.json``: what may stand in it, and of which type."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import pydantic

from pretune.runtime.state_file import StateSchema

PositiveStep = Annotated[int, pydantic.Field(ge=1)]
Step = Annotated[int, pydantic.Field(ge=0)]
Seconds = Annotated[float, pydantic.Field(ge=0, allow_inf_nan=False)]
LossAndNorm = Annotated[list[float | str | None], pydantic.Field(min_length=2, max_length=2)]


class PlanChange(StateSchema):
    """One change in mid-run: of the length, of settings, or steps that are left out."""

    old_keys: ClassVar[Mapping[str, str]] = {
        "set": "values",
        "asked": "requested_at",
        "found": "loss_and_norm",
    }
    step: Step
    steps: Annotated[list[PositiveStep], pydantic.Field(min_length=2, max_length=2)] | None = None
    values: dict[str, float] | None = None
    requested_at: int | None = None
    skip: list[Step] | None = None
    loss_and_norm: dict[str, LossAndNorm] | None = None
    rolled_back_at: Step | None = None


class RunPlan(StateSchema):
    """What was decided by measurement, and what was changed on the way."""

    old_keys: ClassVar[Mapping[str, str]] = {
        "memory": "micro_batch_limits", "spent": "seconds_spent", "replayed": "is_replay",
        "turn": "cost_change", "seconds_before": "seconds_before_training",
        "seconds_after": "seconds_after_training",
    }  # fmt: skip
    steps: PositiveStep | None = None
    machine: Any = None
    data: str | None = None
    changes: list[PlanChange] = pydantic.Field(default_factory=list)
    micro_batch_limits: dict[
        str, dict[str, list[Annotated[list[Step], pydantic.Field(min_length=2, max_length=2)]]]
    ] = pydantic.Field(default_factory=dict)
    seconds_per_step: Seconds | None = None
    seconds_per_evaluation: Seconds | None = None
    seconds_spent: Seconds | None = None
    teacher: str | None = None
    is_replay: bool = False
