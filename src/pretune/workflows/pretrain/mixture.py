"""The parts of a pretraining run as settings: one objective on one text, or a mixture of several."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pydantic

from pretune.config import Settings
from pretune.errors import ConfigError, UnsupportedError
from pretune.objectives import DistillationSettings, ObjectiveSpec, parse_objective
from pretune.training.settings import TrainingSettings

COMPONENT_KEYS = ("corpus", "validation", "columns", "objective_options")
"""Settings that stand with each part of a mixture, and not beside it."""


class ComponentSettings(Settings):
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
    def _to_tuple(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @pydantic.field_validator("corpus")
    @classmethod
    def _not_empty(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            raise ValueError("is empty: give files or folders of text")
        return value


def unwrap_single_component(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings whose mixture has one part, as the same settings without a mixture; others as they are.

    Raises:
        ConfigError: what stands with the parts of a mixture is given beside it, too.
    """
    found = dict(values)
    components = found.get("mixture")
    if not isinstance(components, Sequence) or isinstance(components, str) or not components:
        return found
    for key in COMPONENT_KEYS:
        if found.get(key):
            raise ConfigError(
                f"pretrain: {key} = {found[key]!r}: with a mixture it stands with each part; leave it out, "
                f"or set mixture.0.{key}"
            )
    [component, *others] = (p.model_dump() if isinstance(p, ComponentSettings) else p for p in components)
    if others or not isinstance(component, Mapping):
        return found
    kept = {key: value for key, value in component.items() if key not in ("weight", "name")}
    return {key: value for key, value in found.items() if key != "mixture"} | kept


def name_components(
    components: Sequence[ComponentSettings], specs: Sequence[ObjectiveSpec]
) -> tuple[ComponentSettings, ...]:
    """The parts with the full names of their objectives, each with a name of its own.

    Raises:
        ConfigError: two parts were given one name.
    """
    given = Counter(part.name for part in components if part.name)
    for name, times in given.items():
        if times > 1:
            raise ConfigError(f"pretrain: mixture: {times} parts have name = {name!r}; give each its own")
    names: list[str] = []
    for component, spec in zip(components, specs, strict=True):
        taken = {*names, *given}
        free = (f"{spec.name}_{number}" for number in range(2, len(components) + 2 + len(given)))
        names.append(component.name or next(n for n in (spec.name, *free) if n not in taken))
    return tuple(
        part.model_copy(update={"objective": kind.name, "name": name})
        for part, kind, name in zip(components, specs, names, strict=True)
    )


def merge_heads(specs: Sequence[ObjectiveSpec]) -> tuple[str, ...]:
    """The heads that the objectives train together, each once, the first one's first."""
    return tuple(dict.fromkeys(head for spec in specs for head in spec.heads))


def check_mixture(
    objective: str | None,
    first_spec: ObjectiveSpec,
    distillation: DistillationSettings | None,
    training: TrainingSettings,
) -> None:
    """See that nothing stands beside a mixture that is not offered there.

    Raises:
        ConfigError: an objective that is not the first part's.
        UnsupportedError: a teacher, or weights that are spread over processes.
    """
    if objective is not None and parse_objective(objective).name != first_spec.name:
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
