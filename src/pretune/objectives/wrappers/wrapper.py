"""What every wrapper is: an objective that asks another one for its examples, batches and losses."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Self

import numpy as np

from pretune.objectives.base import Objective
from pretune.types import Batch, Example, Feature, IntArray, Loss, NetworkLike


class ObjectiveWrapper(Objective):
    """The base of wrappers, each of which overrides what it changes."""

    def __init__(self, inner: Objective) -> None:
        super().__init__(inner.traits, inner.specials, inner.options, inner.store)
        self.inner = inner
        self.heads, self.supports_packing = inner.heads, inner.supports_packing
        self.cost_changes_at = inner.cost_changes_at

    def check_support(self) -> None:
        """The inner objective has seen to it."""

    def at_step(self, step: int, progress: float) -> Self:
        """With the inner objective as it is in this step."""
        wrapper = copy.copy(self)
        wrapper.inner = self.inner.at_step(step, progress)
        return wrapper

    def length_bounds(self, lengths: IntArray) -> IntArray:
        """(n,) positions that each feature needs at most."""
        return self.inner.length_bounds(lengths)

    def build(self, feature: Feature, rng: np.random.Generator) -> Example:
        """The example of the inner objective."""
        return self.inner.build(feature, rng)

    def collate(self, groups: Sequence[Sequence[Example]]) -> Batch:
        """The batch of the inner objective."""
        return self.inner.collate(groups)

    def loss(self, network: NetworkLike, batch: Batch) -> Iterator[Loss]:
        """The losses of the inner objective."""
        return self.inner.loss(network, batch)
