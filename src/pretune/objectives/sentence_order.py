"""Sentence order: were two stretches of a text swapped? (ALBERT: Lan et al. 2020, section 3.1)

A window is cut at a sentence start near a random point, and half the time its second part comes first. It
trains the head that `next_sentence` trains, with the classes of ALBERT's code: both stretches come from one
document, so that the topic says nothing and the order must be understood.
"""

from __future__ import annotations

import numpy as np

from pretune.objectives._two_texts import HEAD as HEAD
from pretune.objectives._two_texts import TextPairObjective, nearest_sentence_start
from pretune.types import (
    Example,
    Feature,
)

IN_ORDER, SWAPPED = 0, 1
"""Classes, numbered as in the released ALBERT."""


class Objective(TextPairObjective):
    """Windows of text, cut in two, the parts in their order or swapped."""

    def build(self, feature: Feature, rng: np.random.Generator) -> Example:
        """``[CLS] A [SEP] B [SEP]`` with its class; of a single token there is no pair, and no class.

        Raises:
            DataError: the feature says nothing of sentences.
        """
        ids, starts = feature.sequences[0], self.word_starts(feature)
        if len(ids) < 2:
            return Example(feature.record, (self.build_row((ids,), (starts,), None),))
        cut = nearest_sentence_start(starts, int(rng.integers(1, len(ids))))
        sequences, flags = (ids[:cut], ids[cut:]), (starts[:cut], starts[cut:])
        label = int(rng.integers(2))
        if label == SWAPPED:
            sequences, flags = sequences[::-1], flags[::-1]
        return Example(feature.record, (self.build_row(sequences, flags, label),))
