"""Objectives that are trained together: one builds an example, another hides parts of it."""

from __future__ import annotations

import copy
from typing import Self

import numpy as np

from pretune.objectives.base import Objective
from pretune.types import Batch, Example, Feature, IntArray, LossOptions, LossTerms, Outputs


class CombinedObjective(Objective):
    """The loss is the sum of the parts' means, as BERT's is (Devlin et al. 2019, appendix A.2).

    Args:
        masker: hides tokens of the examples (``is_masking``).
        base: builds them.
    """

    def __init__(self, masker: Objective, base: Objective) -> None:
        super().__init__(base.traits, base.specials, base.options, base.store)
        self.masker, self.base = masker, base
        self.heads, self.supports_packing = (*masker.heads, *base.heads), base.supports_packing

    @property
    def loss_options(self) -> LossOptions:
        """The masker's, whose head is over the vocabulary."""
        return self.masker.loss_options

    def at_step(self, step: int, progress: float) -> Self:
        """With both parts as they are in this step."""
        combined = copy.copy(self)
        combined.masker = self.masker.at_step(step, progress)
        combined.base = self.base.at_step(step, progress)
        return combined

    def length_bounds(self, lengths: IntArray) -> IntArray:
        """(n,) positions that each feature needs at most."""
        return self.base.length_bounds(lengths)

    def build(self, feature: Feature, rng: np.random.Generator) -> Example:
        """The example of the one, in which the other hides its share."""
        return self.masker.mask_tokens(self.base.build(feature, rng), rng)

    def loss_terms(self, outputs: Outputs, batch: Batch) -> LossTerms:
        """Those of both parts, of one forward pass."""
        return {**self.masker.loss_terms(outputs, batch), **self.base.loss_terms(outputs, batch)}
