"""Objectives that are trained together: one builds an example, another hides parts of it."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Protocol, Self

import numpy as np

from pretune.data.packing import collate
from pretune.objectives.wrappers.scheduled import at
from pretune.types import (
    Batch,
    Example,
    Feature,
    IntArray,
    Loss,
    LossTerms,
    NetworkLike,
    ObjectiveLike,
    Outputs,
    Specials,
)


class Building(ObjectiveLike, Protocol):
    """An objective whose examples others can work on."""

    def terms(self, outputs: Outputs, batch: Batch) -> LossTerms:
        """Its terms of the loss, read off a network's outputs."""


class Hiding(Protocol):
    """An objective that can work on the examples of another."""

    @property
    def heads(self) -> tuple[str, ...]: ...

    @property
    def smoothing(self) -> Mapping[str, float]:
        """Head to the share of its targets that is spread over the vocabulary."""

    def hide(self, example: Example, rng: np.random.Generator) -> Example:
        """The example with its own places, targets, and what is hidden."""

    def terms(self, outputs: Outputs, batch: Batch) -> LossTerms:
        """Its terms of the loss, read off a network's outputs."""


class Combined:
    """The loss is the sum of the parts' means, as BERT's is (Devlin et al. 2019, appendix A.2)."""

    every_token = False

    def __init__(self, hiding: Hiding, building: Building, specials: Specials, *, segments: bool) -> None:
        self.hiding, self.building = hiding, building
        self.specials, self.segments = specials, segments
        self.heads = (*hiding.heads, *building.heads)
        self.packs = building.packs

    def at(self, progress: float) -> Self:
        """With both parts as they are where this share of a run is done."""
        moved = copy.copy(self)
        moved.hiding, moved.building = at(self.hiding, progress), at(self.building, progress)
        return moved

    def length_bounds(self, lengths: IntArray) -> IntArray:
        """(n,) places that each feature needs at most."""
        return self.building.length_bounds(lengths)

    def build(self, feature: Feature, rng: np.random.Generator) -> Example:
        """The example of the one, in which the other hides its share."""
        return self.hiding.hide(self.building.build(feature, rng), rng)

    def collate(self, groups: Sequence[Sequence[Example]]) -> Batch:
        """A group of examples a row of the grid."""
        batch = collate(groups, pad=self.specials.pad, heads=self.heads, segments=self.segments)
        return replace(batch, smoothing=self.hiding.smoothing)

    def loss(self, network: NetworkLike, batch: Batch) -> Iterator[Loss]:
        """All terms, of one forward pass."""
        yield Loss(self.terms(network(batch, heads=self.heads, targets=batch.targets), batch))

    def terms(self, outputs: Outputs, batch: Batch) -> LossTerms:
        """Those of both parts."""
        return {**self.hiding.terms(outputs, batch), **self.building.terms(outputs, batch)}
