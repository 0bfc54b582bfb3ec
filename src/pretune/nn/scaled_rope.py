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
from pretune.nn.positions import (
    RotaryTables,
    build_position_ids,
    inverse_frequencies,
    rotary_tables,
    tables_from_angles,
)
from pretune.types import Layout


@dataclass(frozen=True)
class RotaryBase:
    """What all layers of a network turn queries and keys by, before it is stretched."""

    head_size: int
    """K"""
    base: float
    max_positions: int
    """Places of the longest text that the model is meant for."""
    device: torch.device

    def inverse_frequencies(self) -> Tensor:
        """(K / 2,)"""
        return inverse_frequencies(self.head_size, self.base, self.device)


class LinearScaling(Settings):
    """Every angle a ``factor`` smaller (Chen et al. 2023)."""

    rope_type: Literal["linear"] = "linear"
    factor: float = pydantic.Field(ge=1)
    attention_scaling: ClassVar[float] = 1.0

    def inverse_frequencies(self, rotary: RotaryBase, layout: Layout, seq_length: int) -> Tensor:
        """(K / 2,)"""
        return rotary.inverse_frequencies() / self.factor


class DynamicScaling(Settings):
    """A larger base for texts longer than the model is meant for, by their length (NTK-aware scaling).

    Each text has its own base, whatever lies beside it. Keys in a cache keep the angles that they got when
    the text was shorter, as they do in transformers.
    """

    rope_type: Literal["dynamic"] = "dynamic"
    factor: float = pydantic.Field(ge=1)
    attention_scaling: ClassVar[float] = 1.0

    def inverse_frequencies(self, rotary: RotaryBase, layout: Layout, seq_length: int) -> Tensor:
        """(B, 1, T, K / 2)"""
        longer = (
            document_lengths(layout, seq_length).clamp(min=rotary.max_positions) / rotary.max_positions
        )  # (B, T)
        size = rotary.head_size
        bases = rotary.base * (self.factor * longer - (self.factor - 1)) ** (size / (size - 2))
        return inverse_frequencies(size, bases[:, None, :, None], rotary.device)


class Llama3Scaling(Settings):
    """Slow turns a ``factor`` smaller, fast ones as they are, between them by degrees (Llama 3.1)."""

    rope_type: Literal["llama3"] = "llama3"
    factor: float = pydantic.Field(ge=1)
    low_freq_factor: float = pydantic.Field(default=1.0, gt=0)
    high_freq_factor: float = pydantic.Field(default=4.0, gt=0)
    original_max_position_embeddings: pydantic.PositiveInt
    attention_scaling: ClassVar[float] = 1.0

    @pydantic.model_validator(mode="after")
    def _check_factors(self) -> Llama3Scaling:
        if self.high_freq_factor <= self.low_freq_factor:
            raise ValueError(
                f"high_freq_factor {self.high_freq_factor} must be above low_freq_factor, which is "
                f"{self.low_freq_factor}"
            )
        return self

    def inverse_frequencies(self, rotary: RotaryBase, layout: Layout, seq_length: int) -> Tensor:
        """(K / 2,)"""
        plain = rotary.inverse_frequencies()
        rounds = self.original_max_position_embeddings * plain / (2 * math.pi)  # within the first context
        unscaled = (rounds - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor)
        unscaled = unscaled.clamp(0, 1)
        return unscaled * plain + (1 - unscaled) * plain / self.factor


class YarnScaling(Settings):
    """As `Llama3Scaling`, by dimension in place of wavelength, and the products grow a little (Peng et al.
    2023).
    """

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
    def attention_scaling(self) -> float:
        """What queries and keys are multiplied by (section 3.4)."""
        if self.attention_factor is not None:
            return self.attention_factor
        if self.mscale and self.mscale_all_dim:
            return self._mscale_of_factor(self.mscale) / self._mscale_of_factor(self.mscale_all_dim)
        return self._mscale_of_factor(1.0)

    def inverse_frequencies(self, rotary: RotaryBase, layout: Layout, seq_length: int) -> Tensor:
        """(K / 2,)"""
        plain, size = rotary.inverse_frequencies(), rotary.head_size
        first = self._correction_dimension(self.beta_fast or 32, rotary)
        last = self._correction_dimension(self.beta_slow or 1, rotary)
        if self.truncate:
            first, last = math.floor(first), math.ceil(last)
        first, last = max(first, 0), min(last, size - 1)
        if first == last:
            last += 0.001
        ramp = (torch.arange(size // 2, dtype=torch.float32, device=rotary.device) - first) / (last - first)
        scaled = ramp.clamp(0, 1)
        return plain * (1 - scaled) + plain / self.factor * scaled

    def _correction_dimension(self, rounds: float, rotary: RotaryBase) -> float:
        """The dimension that turns so many times round within the first context."""
        ratio = self.original_max_position_embeddings / (rounds * 2 * math.pi)
        return rotary.head_size * math.log(ratio) / (2 * math.log(rotary.base))

    def _mscale_of_factor(self, scale: float) -> float:
        return 1.0 if self.factor <= 1 else 0.1 * scale * math.log(self.factor) + 1.0


SCALING_TYPES: Mapping[str, type[Settings]] = {
    "linear": LinearScaling,
    "dynamic": DynamicScaling,
    "llama3": Llama3Scaling,
    "yarn": YarnScaling,
}
"""By the names that config.json uses."""

RopeScaling: TypeAlias = Annotated[
    LinearScaling | DynamicScaling | Llama3Scaling | YarnScaling, pydantic.Field(discriminator="rope_type")
]


def build_rotary_tables(
    layout: Layout, seq_length: int, rotary: RotaryBase, scaling: RopeScaling | None
) -> RotaryTables:
    """Cosines and sines for a (B, T = ``seq_length``) grid, stretched where there is a ``scaling``."""
    position_ids = build_position_ids(layout, seq_length)
    if scaling is None:
        return rotary_tables(position_ids, rotary.head_size, rotary.base)
    angles = position_ids[:, None, :, None].float() * scaling.inverse_frequencies(
        rotary, layout, seq_length
    )  # (B, 1, T, K / 2)
    cosines, sines = tables_from_angles(angles)
    return cosines * scaling.attention_scaling, sines * scaling.attention_scaling


def document_lengths(layout: Layout, seq_length: int) -> Tensor:
    """(B, T) or (B, 1) places of the document that a place of the grid lies in, those in a cache included."""
    if layout.documents is None or layout.position_ids is None:
        lengths = layout.lengths if layout.cache_lengths is None else layout.lengths + layout.cache_lengths
        return lengths[:, None]
    document_ids = layout.documents + 1  # 0 is padding
    longest = layout.documents.new_zeros(len(document_ids), int(document_ids.max()) + 1)
    longest.scatter_reduce_(1, document_ids, layout.position_ids + 1, "amax")
    return longest.gather(1, document_ids)


def read_rope_settings(values: Mapping[str, Any], family: str, base: float) -> dict[str, Any]:
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
        "rope_scaling": read_rope_scaling(rope, values, family),
    }


def to_rope_parameters(scaling: RopeScaling | None) -> dict[str, Any]:
    """A stretching as the ``rope_parameters`` of a config.json say it."""
    return {"rope_type": "default"} if scaling is None else scaling.model_dump(exclude_none=True)


def read_rope_scaling(
    rope: Mapping[str, Any], values: Mapping[str, Any], family: str
) -> dict[str, Any] | None:
    """The stretching that the ``rope_parameters`` of a config.json mean; None: there is none.

    Args:
        values: the whole config.json, with ``max_position_embeddings``.
        family: named in an error.

    Raises:
        UnsupportedError: a kind of scaling that pretune does not compute.
    """
    rope_type = str(rope.get("rope_type", rope.get("type", "default")))
    if rope_type == "default":
        return None
    if rope_type not in SCALING_TYPES:
        known = ", ".join(repr(name) for name in ("default", *SCALING_TYPES))
        raise UnsupportedError(f"config.json: rope_type {rope_type!r}; the {family} family has {known} only")
    first = "original_max_position_embeddings"
    settings = {**rope, first: values.get(first) or rope.get(first) or values["max_position_embeddings"]}
    fields = SCALING_TYPES[rope_type].model_fields
    given = {key: value for key, value in settings.items() if key in fields and value is not None}
    return {**given, "rope_type": rope_type}
