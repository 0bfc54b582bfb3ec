"""Sentence order: were two stretches of a text swapped? (ALBERT: Lan et al. 2020, section 3.1)

A window is cut at a sentence start near a random point, and half the time its second part comes first. It
trains the head that `next_sentence` trains, with the classes of ALBERT's code: both stretches come from one
document, so that the topic says nothing and the order must be understood.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from pretune.config import Settings
from pretune.objectives._two_texts import HEAD as HEAD
from pretune.objectives._two_texts import TwoTexts, cut_near, frame_length
from pretune.types import (
    Batch,
    Example,
    Feature,
    FeatureStore,
    IntArray,
    Loss,
    LossTerms,
    NetworkLike,
    Outputs,
    Specials,
    Traits,
    Windowing,
)

IN_ORDER, SWAPPED = 0, 1
"""Classes, numbered as in the released ALBERT."""


class Options(Settings):
    """Sentence order has no settings of its own."""


def windowing(specials: Specials, max_length: int) -> Windowing:
    """Windows that leave room for the frame of a pair; none overlaps."""
    return Windowing(length=max_length - frame_length(specials))


class Objective:
    """Windows of text, cut in two, the parts in their order or swapped."""

    heads = (HEAD,)
    packs = True
    """The head reads the place that it is given: it need not be the first of a row, only of its text."""
    every_token = False

    def __init__(
        self,
        traits: Traits,
        specials: Specials,
        options: Options | None = None,
        store: FeatureStore | None = None,
    ) -> None:
        self.texts = TwoTexts("sentence_order", traits, specials)

    def length_bounds(self, lengths: IntArray) -> IntArray:
        """Places that each feature needs, (n,), of its token counts, (n, 1)."""
        return np.asarray(lengths.sum(1) + self.texts.frame)

    def build(self, feature: Feature, rng: np.random.Generator) -> Example:
        """``[CLS] A [SEP] B [SEP]`` with its class; of a single token there is no pair, and no class.

        Raises:
            DataError: the feature says nothing of sentences.
        """
        ids, starts = feature.sequences[0], self.texts.starts(feature)
        if len(ids) < 2:
            return Example(feature.record, (self.texts.row((ids,), (starts,), None),))
        cut = cut_near(starts, int(rng.integers(1, len(ids))))
        sequences, flags = (ids[:cut], ids[cut:]), (starts[:cut], starts[cut:])
        label = int(rng.integers(2))
        if label == SWAPPED:
            sequences, flags = sequences[::-1], flags[::-1]
        return Example(feature.record, (self.texts.row(sequences, flags, label),))

    def collate(self, groups: Sequence[Sequence[Example]]) -> Batch:
        """A group of examples a row of the grid."""
        return self.texts.collate(groups)

    def loss(self, network: NetworkLike, batch: Batch) -> Iterator[Loss]:
        """Cross-entropy in nats, summed over the pairs."""
        yield Loss(self.terms(network(batch, heads=self.heads), batch))

    def terms(self, outputs: Outputs, batch: Batch) -> LossTerms:
        """Of outputs that hold this head's logits."""
        return self.texts.terms(outputs, batch)
