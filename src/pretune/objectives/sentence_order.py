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
from pretune.objectives._two_texts import TextPairBuilder, nearest_sentence_start, num_pair_special_tokens
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
    SpecialTokens,
    Traits,
    WindowSpec,
)

IN_ORDER, SWAPPED = 0, 1
"""Classes, numbered as in the released ALBERT."""


class Options(Settings):
    """Sentence order has no settings of its own."""


def window_spec(specials: SpecialTokens, max_length: int) -> WindowSpec:
    """Windows that leave room for the frame of a pair; none overlaps."""
    return WindowSpec(length=max_length - num_pair_special_tokens(specials))


class Objective:
    """Windows of text, cut in two, the parts in their order or swapped."""

    heads = (HEAD,)
    supports_packing = True
    """The head reads the place that it is given: it need not be the first of a row, only of its text."""
    predicts_every_token = False

    def __init__(
        self,
        traits: Traits,
        specials: SpecialTokens,
        options: Options | None = None,
        store: FeatureStore | None = None,
    ) -> None:
        self.builder = TextPairBuilder("sentence_order", traits, specials)

    def length_bounds(self, lengths: IntArray) -> IntArray:
        """Places that each feature needs, (n,), of its token counts, (n, 1)."""
        return np.asarray(lengths.sum(1) + self.builder.num_special_tokens)

    def build(self, feature: Feature, rng: np.random.Generator) -> Example:
        """``[CLS] A [SEP] B [SEP]`` with its class; of a single token there is no pair, and no class.

        Raises:
            DataError: the feature says nothing of sentences.
        """
        ids, starts = feature.sequences[0], self.builder.word_starts(feature)
        if len(ids) < 2:
            return Example(feature.record, (self.builder.build_row((ids,), (starts,), None),))
        cut = nearest_sentence_start(starts, int(rng.integers(1, len(ids))))
        sequences, flags = (ids[:cut], ids[cut:]), (starts[:cut], starts[cut:])
        label = int(rng.integers(2))
        if label == SWAPPED:
            sequences, flags = sequences[::-1], flags[::-1]
        return Example(feature.record, (self.builder.build_row(sequences, flags, label),))

    def collate(self, groups: Sequence[Sequence[Example]]) -> Batch:
        """A group of examples a row of the grid."""
        return self.builder.collate(groups)

    def loss(self, network: NetworkLike, batch: Batch) -> Iterator[Loss]:
        """Cross-entropy in nats, summed over the pairs."""
        yield Loss(self.loss_terms(network(batch, heads=self.heads), batch))

    def loss_terms(self, outputs: Outputs, batch: Batch) -> LossTerms:
        """Of outputs that hold this head's logits."""
        return self.builder.loss_terms(outputs, batch)
