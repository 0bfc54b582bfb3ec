"""Causal language modelling: predict the next token (Radford et al. 2018, section 3.1).

A document begins with its start token and ends with its end token, both once; its windows overlap by one
token, so that each token of the document is predicted exactly once an epoch.
"""

from __future__ import annotations

import numpy as np

from pretune.errors import UnsupportedError
from pretune.objectives.base import LanguageModelObjective, Recipe
from pretune.types import (
    Example,
    Feature,
    IntArray,
    Row,
    SpecialTokens,
    WindowSpec,
)

HEAD = "causal_lm"


class Objective(LanguageModelObjective):
    """Next-token prediction over windows of text, packed or not."""

    heads = (HEAD,)
    architectures = ("decoder",)
    recipe = Recipe(optimizer={"betas": (0.9, 0.995), "muon_every": 4}, sampled_softmax=True)
    predicts_every_token = True
    is_distillable = True

    @classmethod
    def window_spec(cls, specials: SpecialTokens, max_length: int) -> WindowSpec:
        """Windows one token longer than the model, overlapping by one: inputs and their shifted targets."""
        start = specials.bos_id if specials.bos_id is not None else specials.eos_id
        return WindowSpec(length=max_length + 1, overlap=1, bos_id=start, eos_id=specials.eos_id)

    def check_support(self) -> None:
        """
        Raises:
            UnsupportedError: the family is no decoder with such a head.
        """
        super().check_support()
        if self.traits.architecture not in self.architectures:
            raise UnsupportedError(
                f"causal_lm needs a decoder; this family is an {self.traits.architecture}, which reads a "
                "source: span_corruption, denoising, prefix_lm and sequence_to_sequence train it"
            )

    def length_bounds(self, lengths: IntArray) -> IntArray:
        """Places that each feature needs, (n,), of its token counts, (n, 1)."""
        return np.asarray(lengths.sum(1) - 1)

    def build(self, feature: Feature, rng: np.random.Generator) -> Example:
        """Inputs are the window without its last token, targets the window without its first."""
        window = feature.sequences[0]
        tokens = window[:-1]  # (T,)
        row = Row(tokens, {HEAD: np.arange(len(tokens), dtype=np.int64)}, {HEAD: window[1:]})
        return Example(feature.record, (row,))

    @classmethod
    def ngram_contexts(
        cls, feature: Feature, example: Example, specials: SpecialTokens
    ) -> tuple[IntArray, IntArray]:
        """(previous token, target) of each predicted position, for the n-gram baselines."""
        window = feature.sequences[0]
        return window[:-1], window[1:]
