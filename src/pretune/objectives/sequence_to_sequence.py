"""Sequence to sequence: write the target of a source, by teacher forcing (Sutskever et al. 2014, section 2).

The decoder reads the true target shifted by one, as stock `transformers` shifts the labels: first the
family's decoder start token, last all but the target's end.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pretune.errors import DataError
from pretune.objectives._pairs import HEAD as HEAD
from pretune.objectives._pairs import SourceTargetObjective
from pretune.objectives.base import num_special_tokens
from pretune.types import (
    Example,
    Feature,
    IntArray,
    SpecialTokens,
)


class Objective(SourceTargetObjective):
    """A source and a target, each framed as the tokenizer frames a text."""

    fields = ("source", "target")

    @classmethod
    def sample(cls, record: int, tokens: IntArray, label: int) -> Feature:
        """The target is the source backwards."""
        return replace(super().sample(record, tokens, label), sequences=(tokens, tokens[::-1]))

    def length_bounds(self, lengths: IntArray) -> IntArray:
        """Positions that each feature needs, (n,), of its token counts, (n, 2): of the longer of the two."""
        return np.asarray(lengths.max(1) + num_special_tokens(self.specials, 1))

    def build(self, feature: Feature, rng: np.random.Generator) -> Example:
        """Source and target as they are.

        Raises:
            DataError: the feature is no pair.
        """
        if len(feature.sequences) != 2:
            raise DataError(
                f"sequence_to_sequence learns from a source and a target; record {feature.record} holds "
                f"{len(feature.sequences)} text(s)"
            )
        source, target = (self.add_special_tokens(sequence) for sequence in feature.sequences)
        return self.build_example(feature.record, source, target, np.ones(len(target), bool))

    @classmethod
    def ngram_contexts(
        cls, feature: Feature, example: Example, specials: SpecialTokens
    ) -> tuple[IntArray, IntArray]:
        """(previous token, token) of each target, for the n-gram baselines; -1 at the start."""
        [row] = example.rows
        targets = row.targets[HEAD].astype(np.int64)
        return np.append(np.int64(-1), targets[:-1]), targets
