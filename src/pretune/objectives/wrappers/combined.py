"""Objectives that are trained together: one builds an example, another hides parts of it."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Protocol, Self

import numpy as np

from pretune.data.packing import collate
from pretune.objectives.wrappers.scheduled import at_progress
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
    SpecialTokens,
)


class ExampleBuilder(ObjectiveLike, Protocol):
    """An objective whose examples others can work on."""

    def loss_terms(self, outputs: Outputs, batch: Batch) -> LossTerms:
        """Its terms of the loss, read off a network's outputs."""


class TokenMasker(Protocol):
    """An objective that can work on the examples of another."""

    @property
    def heads(self) -> tuple[str, ...]: ...

    @property
    def label_smoothing(self) -> Mapping[str, float]:
        """Head to the share of its targets that is spread over the vocabulary."""

    def mask_tokens(self, example: Example, rng: np.random.Generator) -> Example:
        """The example with its own places, targets, and what is hidden."""

    def loss_terms(self, outputs: Outputs, batch: Batch) -> LossTerms:
        """Its terms of the loss, read off a network's outputs."""


class CombinedObjective:
    """The loss is the sum of the parts' means, as BERT's is (Devlin et al. 2019, appendix A.2)."""

    predicts_every_token = False

    def __init__(
        self, masker: TokenMasker, base: ExampleBuilder, specials: SpecialTokens, *, segments: bool
    ) -> None:
        self.masker, self.base = masker, base
        self.specials, self.segments = specials, segments
        self.heads = (*masker.heads, *base.heads)
        self.supports_packing = base.supports_packing

    def at_progress(self, progress: float) -> Self:
        """With both parts as they are where this share of a run is done."""
        moved = copy.copy(self)
        moved.masker, moved.base = at_progress(self.masker, progress), at_progress(self.base, progress)
        return moved

    def length_bounds(self, lengths: IntArray) -> IntArray:
        """(n,) places that each feature needs at most."""
        return self.base.length_bounds(lengths)

    def build(self, feature: Feature, rng: np.random.Generator) -> Example:
        """The example of the one, in which the other hides its share."""
        return self.masker.mask_tokens(self.base.build(feature, rng), rng)

    def collate(self, groups: Sequence[Sequence[Example]]) -> Batch:
        """A group of examples a row of the grid."""
        batch = collate(groups, pad_id=self.specials.pad_id, heads=self.heads, segments=self.segments)
        return replace(batch, label_smoothing=self.masker.label_smoothing)

    def loss(self, network: NetworkLike, batch: Batch) -> Iterator[Loss]:
        """All terms, of one forward pass."""
        yield Loss(self.loss_terms(network(batch, heads=self.heads, targets=batch.targets), batch))

    def loss_terms(self, outputs: Outputs, batch: Batch) -> LossTerms:
        """Those of both parts."""
        return {**self.masker.loss_terms(outputs, batch), **self.base.loss_terms(outputs, batch)}
