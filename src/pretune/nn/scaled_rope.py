"""How rotary positions are stretched so that a model reads longer texts than it was trained on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

import pydantic
import torch
from torch import Tensor

from pretune.config import Settings
from pretune.errors import UnsupportedError
from pretune.nn.positions import Tables, positions, rotary_tables, tables_of, turns
from pretune.types import Layout


@dataclass(frozen=True)
class Rotation:
    """What all layers of a network turn queries and keys by, before it is stretched."""

    head_size: int
    """K"""
    base: float
    longest: int
    """Places of the longest text that the model is meant for."""
    device: torch.device

    def turns(self) -> Tensor:
        """(K / 2,)"""
        return turns(self.head_size, self.base, self.device)


class Linear(Settings):
    """Every angle a ``factor`` smaller (Chen et al. 2023)."""

    rope_type: Literal["linear"] = "linear"
    factor: float = pydantic.Field(ge=1)
    magnitude: ClassVar[float] = 1.0

    def turns(self, rotation: Rotation, layout: Layout, width: int) -> Tensor:
        """(K / 2,)"""
        return rotation.turns() / self.factor


class Dynamic(Settings):
    """A larger base for texts longer than the model is meant for, by their length (NTK-aware scaling).

    Each text has its own base, whatever lies beside it. Keys in a cache keep the angles that they got when
    the text was shorter, as they do in transformers.
    """

    rope_type: Literal["dynamic"] = "dynamic"
    factor: float = pydantic.Field(ge=1)
    magnitude: ClassVar[float] = 1.0

    def turns(self, rotation: Rotation, layout: Layout, width: int) -> Tensor:
        """(B, 1, T, K / 2)"""
        longer = document_lengths(layout, width).clamp(min=rotation.longest) / rotation.longest  # (B, T)
        size = rotation.head_size
        bases = rotation.base * (self.factor * longer - (self.factor - 1)) ** (size / (size - 2))
        return turns(size, bases[:, None, :, None], rotation.device)


class Llama3(Settings):
    """Slow turns a ``factor`` smaller, fast ones as they are, between them by degrees (Llama 3.1)."""

    rope_type: Literal["llama3"] = "llama3"
    factor: float = pydantic.Field(ge=1)
    low_freq_factor: float = pydantic.Field(default=1.0, gt=0)
    high_freq_factor: float = pydantic.Field(default=4.0, gt=0)
    original_max_position_embeddings: pydantic.PositiveInt
    magnitude: ClassVar[float] = 1.0

    @pydantic.model_validator(mode="after")
    def _ordered(self) -> Llama3:
        if self.high_freq_factor <= self.low_freq_factor:
            raise ValueError(
                f"high_freq_factor {self.high_freq_factor} must be above low_freq_factor, which is "
                f"{self.low_freq_factor}"
            )
        return self

    def turns(self, rotation: Rotation, layout: Layout, width: int) -> Tensor:
        """(K / 2,)"""
        plain = rotation.turns()
        rounds = self.original_max_position_embeddings * plain / (2 * math.pi)  # within the first context
        kept = (rounds - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor)
        kept = kept.clamp(0, 1)
        return kept * plain + (1 - kept) * plain / self.factor


class Yarn(Settings):
    """As `Llama3`, by dimension in place of wavelength, and the products grow a little (Peng et al. 2023)."""

    rope_type: Literal["yarn"] = "yarn"
    factor: float = pydantic.Field(ge=1)
    original_max_position_embeddings: pydantic.PositiveInt
    attention_factor: float | None = pydantic.Field(default=None, gt=0)
    beta_fast: float | None = pydantic.Field(default=None, gt=0)
    """Rounds within the first context above which a turn is kept; None: 32."""
    beta_slow: float | None = pydantic.Field(default=None, gt=0)
    """Rounds within the first context below which a turn is a ``factor`` smaller; None: 1."""
    mscale: float | None = None
    mscale_all_dim: float | None = None
    truncate: bool = True
    """Begin and end the change at whole dimensions."""

    @property
    def magnitude(self) -> float:
        """What queries and keys are multiplied by (section 3.4)."""
        if self.attention_factor is not None:
            return self.attention_factor
        if self.mscale and self.mscale_all_dim:
            return self._growth(self.mscale) / self._growth(self.mscale_all_dim)
        return self._growth(1.0)

    def turns(self, rotation: Rotation, layout: Layout, width: int) -> Tensor:
        """(K / 2,)"""
        plain, size = rotation.turns(), rotation.head_size
        first = self._dimension(self.beta_fast or 32, rotation)
        last = self._dimension(self.beta_slow or 1, rotation)
        if self.truncate:
            first, last = math.floor(first), math.ceil(last)
        first, last = max(first, 0), min(last, size - 1)
        if first == last:
            last += 0.001
        ramp = (torch.arange(size // 2, dtype=torch.float32, device=rotation.device) - first) / (last - first)
        stretched = ramp.clamp(0, 1)
        return plain * (1 - stretched) + plain / self.factor * stretched

    def _dimension(self, rounds: float, rotation: Rotation) -> float:
        """The dimension that turns so many times round within the first context."""
        ratio = self.original_max_position_embeddings / (rounds * 2 * math.pi)
        return rotation.head_size * math.log(ratio) / (2 * math.log(rotation.base))

    def _growth(self, scale: float) -> float:
        return 1.0 if self.factor <= 1 else 0.1 * scale * math.log(self.factor) + 1.0


KINDS: Mapping[str, type[Settings]] = {
    "linear": Linear,
    "dynamic": Dynamic,
    "llama3": Llama3,
    "yarn": Yarn,
}
"""By the names that config.json uses."""

Scaling: TypeAlias = Annotated[Linear | Dynamic | Llama3 | Yarn, pydantic.Field(discriminator="rope_type")]


def tables(layout: Layout, width: int, rotation: Rotation, scaling: Scaling | None) -> Tables:
    """Cosines and sines for a (B, T = ``width``) grid, stretched where there is a ``scaling``."""
    places = positions(layout, width)
    if scaling is None:
        return rotary_tables(places, rotation.head_size, rotation.base)
    angles = places[:, None, :, None].float() * scaling.turns(rotation, layout, width)  # (B, 1, T, K / 2)
    cosines, sines = tables_of(angles)
    return cosines * scaling.magnitude, sines * scaling.magnitude


def document_lengths(layout: Layout, width: int) -> Tensor:
    """(B, T) or (B, 1) places of the document that a place of the grid lies in, those in a cache included."""
    if layout.documents is None or layout.positions is None:
        lengths = layout.lengths if layout.cached is None else layout.lengths + layout.cached
        return lengths[:, None]
    numbers = layout.documents + 1  # 0 is padding
    longest = layout.documents.new_zeros(len(numbers), int(numbers.max()) + 1)
    longest.scatter_reduce_(1, numbers, layout.positions + 1, "amax")
    return longest.gather(1, numbers)


def read(values: Mapping[str, Any], family: str, base: float) -> dict[str, Any]:
    """The ``rope_theta`` and ``rope_scaling`` that a config.json means.

    They stand in ``rope_parameters`` since transformers 5, in ``rope_theta`` and ``rope_scaling`` before.
    Where both are there, stock takes ``rope_scaling`` and nothing of the other.

    Args:
        family: named in an error.
        base: where nothing is said of it.

    Raises:
        UnsupportedError: a kind of scaling that pretune does not compute, or one for a part of a head.
    """
    rope = values.get("rope_scaling") or values.get("rope_parameters") or {}
    share = rope.get("partial_rotary_factor", values.get("partial_rotary_factor", 1.0))
    if share != 1.0:
        raise UnsupportedError(
            f"config.json: partial_rotary_factor {share}; the {family} family turns all dimensions"
        )
    return {
        "rope_theta": rope.get("rope_theta", values.get("rope_theta", base)),
        "rope_scaling": scaling_of(rope, values, family),
    }


def written(scaling: Scaling | None) -> dict[str, Any]:
    """A stretching as the ``rope_parameters`` of a config.json say it."""
    return {"rope_type": "default"} if scaling is None else scaling.model_dump(exclude_none=True)


def scaling_of(rope: Mapping[str, Any], values: Mapping[str, Any], family: str) -> dict[str, Any] | None:
    """The stretching that the ``rope_parameters`` of a config.json mean; None: there is none.

    Args:
        values: the whole config.json, with ``max_position_embeddings``.
        family: named in an error.

    Raises:
        UnsupportedError: a kind of scaling that pretune does not compute.
    """
    kind = str(rope.get("rope_type", rope.get("type", "default")))
    if kind == "default":
        return None
    if kind not in KINDS:
        known = ", ".join(repr(name) for name in ("default", *KINDS))
        raise UnsupportedError(f"config.json: rope_type {kind!r}; the {family} family has {known} only")
    first = "original_max_position_embeddings"
    told = {**rope, first: values.get(first) or rope.get(first) or values["max_position_embeddings"]}
    fields = KINDS[kind].model_fields
    given = {key: value for key, value in told.items() if key in fields and value is not None}
    return {**given, "rope_type": kind}
