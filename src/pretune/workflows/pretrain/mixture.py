"""The parts of a pretraining run as settings: one objective on one text, or a mixture of several."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pydantic

from pretune.config import Settings
from pretune.errors import ConfigError, UnsupportedError
from pretune.objectives import DistillationSettings, Kind, objective_of
from pretune.training.settings import TrainingSettings

ELSEWHERE = ("corpus", "validation", "columns", "objective_options")
"""Settings that stand with each part of a mixture, and not beside it."""


class PartSettings(Settings):
    """What is learnt from what, and how much of it there is in a step."""

    objective: str | None = None
    """As ``objective`` of a run is; None: what the family is usually pretrained by."""
    objective_options: dict[str, Any] = pydantic.Field(default_factory=dict)
    corpus: tuple[str, ...]
    validation: tuple[str, ...] = ()
    columns: dict[str, str] = pydantic.Field(default_factory=dict)
    """Field to the column that it is read from, where that is called otherwise."""
    weight: float = pydantic.Field(default=1.0, gt=0)
    """Share of a step's tokens (or examples), on average over steps, beside the other parts' weights."""
    name: str | None = pydantic.Field(default=None, pattern=r"^\w[\w.+-]*$")
    """What its scores are called by; None: its objective."""

    @pydantic.field_validator("corpus", "validation", mode="before")
    @classmethod
    def _several(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @pydantic.field_validator("corpus")
    @classmethod
    def _not_empty(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            raise ValueError("is empty: give files or folders of text")
        return value


def unmixed(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings whose mixture has one part, as the same settings without a mixture; others as they are.

    Raises:
        ConfigError: what stands with the parts of a mixture is given beside it, too.
    """
    found = dict(values)
    parts = found.get("mixture")
    if not isinstance(parts, Sequence) or isinstance(parts, str) or not parts:
        return found
    for key in ELSEWHERE:
        if found.get(key):
            raise ConfigError(
                f"pretrain: {key} = {found[key]!r}: with a mixture it stands with each part; leave it out, "
                f"or set mixture.0.{key}"
            )
    [part, *others] = (p.model_dump() if isinstance(p, PartSettings) else p for p in parts)
    if others or not isinstance(part, Mapping):
        return found
    kept = {key: value for key, value in part.items() if key not in ("weight", "name")}
    return {key: value for key, value in found.items() if key != "mixture"} | kept


def settled(parts: Sequence[PartSettings], kinds: Sequence[Kind]) -> tuple[PartSettings, ...]:
    """The parts with the full names of their objectives, each with a name of its own.

    Raises:
        ConfigError: two parts were given one name.
    """
    given = Counter(part.name for part in parts if part.name)
    for name, times in given.items():
        if times > 1:
            raise ConfigError(f"pretrain: mixture: {times} parts have name = {name!r}; give each its own")
    names: list[str] = []
    for part, kind in zip(parts, kinds, strict=True):
        taken = {*names, *given}
        free = (f"{kind.name}_{number}" for number in range(2, len(parts) + 2 + len(given)))
        names.append(part.name or next(n for n in (kind.name, *free) if n not in taken))
    return tuple(
        part.model_copy(update={"objective": kind.name, "name": name})
        for part, kind, name in zip(parts, kinds, names, strict=True)
    )


def heads_of(kinds: Sequence[Kind]) -> tuple[str, ...]:
    """The heads that the objectives train together, each once, the first one's first."""
    return tuple(dict.fromkeys(head for kind in kinds for head in kind.heads))


def check_alone(
    objective: str | None,
    first: Kind,
    distillation: DistillationSettings | None,
    training: TrainingSettings,
) -> None:
    """See that nothing stands beside a mixture that is not offered there.

    Raises:
        ConfigError: an objective that is not the first part's.
        UnsupportedError: a teacher, or weights that are spread over processes.
    """
    if objective is not None and objective_of(objective).name != first.name:
        raise ConfigError(
            f"pretrain: objective = {objective!r}: with a mixture it stands with each part; leave it out"
        )
    if distillation is not None:
        raise UnsupportedError(
            "pretrain: distillation is not offered beside a mixture; learn from the teacher by one "
            "objective, or leave distillation out"
        )
    if training.parallel == "fsdp":
        raise UnsupportedError(
            "pretrain: a mixture is not offered for weights that are spread over processes; set "
            "training.parallel=ddp"
        )
