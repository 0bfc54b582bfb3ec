"""Next-sentence prediction: does one stretch of text follow on another? (Devlin et al. 2019, section 3.1)

A window is cut at a sentence start near a random point. Half the time what follows is replaced by a stretch
of another document, of the same length, that begins where a sentence begins. Unlike the paper's code, which
hands the sentences that were replaced on to the next example, they are not shown in this epoch: the cut and
the replacement are drawn anew in the next. Nor are some sequences made short on purpose; the last window of
each document is.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pretune.config import Settings
from pretune.errors import DataError
from pretune.objectives._two_texts import HEAD as HEAD
from pretune.objectives._two_texts import StartFlags, TextPairObjective, nearest_sentence_start
from pretune.text.segmentation import SENTENCE_START
from pretune.types import (
    Example,
    Feature,
    FeatureStore,
    IntArray,
    SpecialTokens,
    Traits,
)

IS_NEXT, NOT_NEXT = 0, 1
"""Classes, numbered as in the released BERT."""
MAX_TRIES = 10
"""Windows that are looked at for one of another document that is long enough (as in the released BERT)."""


class Objective(TextPairObjective):
    """Windows of text, cut in two, the second part true or of another document."""

    def __init__(
        self,
        traits: Traits,
        specials: SpecialTokens,
        options: Settings | None = None,
        store: FeatureStore | None = None,
    ) -> None:
        super().__init__(traits, specials, options, store)
        self._max_length = 0
        if store is not None:
            self._max_length = int(store.lengths.sum(1).max())
            if store[0].record == store[len(store) - 1].record:
                raise DataError(
                    "next_sentence draws what does not follow from another document, and this text, to train "
                    "on or held out, is one document; give more text, or a larger validation_fraction"
                )

    def build(self, feature: Feature, rng: np.random.Generator) -> Example:
        """``[CLS] A [SEP] B [SEP]`` with its class; of a single token there is no pair, and no class.

        Raises:
            DataError: the feature says nothing of sentences.
        """
        ids, starts = feature.sequences[0], self.word_starts(feature)
        if len(ids) < 2:
            return Example(feature.record, (self.build_row((ids,), (starts,), None),))
        cut = nearest_sentence_start(starts, int(rng.integers(1, len(ids))))
        label = int(rng.integers(2))
        second, second_starts = ids[cut:], starts[cut:]
        if label == NOT_NEXT:
            second, second_starts = self._random_segment(feature, cut, rng)
        row = self.build_row((ids[:cut], second), (starts[:cut], second_starts), label)
        return Example(feature.record, (row,))

    def _random_segment(
        self, feature: Feature, cut: int, rng: np.random.Generator
    ) -> tuple[IntArray, StartFlags]:
        """A stretch of another document, at most as long as the true one, which begins at ``cut``.

        It must not be told from the true one by its length, its beginning or its end. So where the window is
        as long as windows get, and ends wherever that is, the stretch is cut to exactly the same length.
        Where the window ends with its document, the stretch ends where a sentence does. It begins where a
        sentence does, unless the true one does not.
        """
        length = len(feature.sequences[0]) - cut
        other = self._random_feature(feature.record, length, rng)
        ids, starts = other.sequences[0], self.word_starts(other)
        sentences = np.flatnonzero(starts & SENTENCE_START)
        positions = sentences if self.word_starts(feature)[cut] & SENTENCE_START else np.arange(len(ids))
        if len(feature.sequences[0]) == self._max_length:
            begin = int(rng.choice(_prefer(positions, positions + length <= len(ids))))
            return ids[begin : begin + length], starts[begin : begin + length]
        ends = np.append(sentences, len(ids))
        next_ends = ends[np.searchsorted(ends, positions, side="right")]
        begin = int(rng.choice(_prefer(positions, next_ends <= positions + length)))
        whole = ends[(ends > begin) & (ends <= begin + length)]
        end = int(whole[-1]) if len(whole) else min(begin + length, len(ids))
        return ids[begin:end], starts[begin:end]

    def _random_feature(self, record: int, length: int, rng: np.random.Generator) -> Feature:
        """A window of another document, long enough if one is soon found."""
        store = self.store
        assert store is not None, "an objective that draws other texts is made with the store"
        found: list[Feature] = []
        for index in rng.integers(len(store), size=MAX_TRIES).tolist():
            feature = store[index]
            if feature.record != record:
                found.append(feature)
                if len(feature.sequences[0]) >= length:
                    return feature
        # Documents lie in order, so that the first and the last window are never both of one.
        found += [f for f in (store[0], store[len(store) - 1]) if f.record != record]
        return max(found, key=lambda f: len(f.sequences[0]))


def _prefer(positions: IntArray, is_preferred: npt.NDArray[np.bool_]) -> IntArray:
    """The good places if there are any, else all; the beginning where there are none at all."""
    if is_preferred.any():
        return positions[is_preferred]
    return positions if len(positions) else np.zeros(1, np.int64)
