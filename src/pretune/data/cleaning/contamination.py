"""Takes out what stands in the texts that a model will be evaluated on.

Runs of 24 letters and digits are looked up, as for fingerprints (:mod:`pretune.data.cleaning.fingerprints`),
but all of them. A shared stretch counts where it is as long as about 13 words of English, as for GPT-3 (Brown
et al. 2020, appendix C), or 24 Chinese characters.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import numpy as np
import numpy.typing as npt

from pretune.data.cleaning import characters as c
from pretune.data.cleaning.fingerprints import NGRAM_CHARACTERS, char_ngram_hashes, sort_unique
from pretune.data.cleaning.steps import Drop, StepResult
from pretune.errors import DataError

Hashes = npt.NDArray[np.uint64]
MAX_HASHES = 64_000_000
"""Hashes that are kept at most: 512 MB."""
MIN_SPAN_WEIGHT = 60.0
"""Weight of a stretch that counts: a letter or digit weighs 1, a Chinese character 2.5."""
_HAN_WEIGHT = 2.5
_PREFILTER_BITS = 26
_CHUNK_CHARACTERS = 1 << 20
"""Characters that are hashed at once."""


class ContaminationIndex:
    """The runs of the evaluation texts."""

    def __init__(self, hashes: Hashes) -> None:
        self.hashes = hashes
        """Sorted."""
        self._prefilter = np.zeros(
            1 << _PREFILTER_BITS, bool
        )  # most runs of a clean text end here, in one look-up
        self._prefilter[hashes >> np.uint64(64 - _PREFILTER_BITS)] = True

    @classmethod
    def from_texts(cls, texts: Iterable[str]) -> ContaminationIndex:
        """The runs of all texts; a text with fewer than :data:`NGRAM_CHARACTERS` letters and digits has none.

        Raises:
            DataError: there are more than :data:`MAX_HASHES`.
        """
        kept, fresh, pending = np.zeros(0, np.uint64), [], 0
        for text in texts:
            fresh.append(char_ngram_hashes(text)[0])
            pending += len(fresh[-1])
            if pending > MAX_HASHES // 16:
                kept, fresh, pending = sort_unique(np.concatenate([kept, *fresh])), [], 0
            if len(kept) > MAX_HASHES:
                raise DataError(
                    f"the evaluation texts hold more than {MAX_HASHES:,} runs; give the sets that are "
                    "scored on, "
                    "not the ones that are trained on"
                )
        return cls(sort_unique(np.concatenate([kept, *fresh])))

    def find_overlaps(self, text: str) -> list[tuple[int, int]]:
        """[start, end) of each stretch of the text that counts as shared."""
        found: list[tuple[int, int]] = []
        for start in range(0, max(1, len(text)), _CHUNK_CHARACTERS):
            part = text[start : start + _CHUNK_CHARACTERS + 8 * NGRAM_CHARACTERS]
            found += [(start + a, start + b) for a, b in self._find_chunk_overlaps(part)]
        return _merge_spans(found)

    def _find_chunk_overlaps(self, text: str) -> list[tuple[int, int]]:
        hashes, places = char_ngram_hashes(text)
        hit = np.flatnonzero(self._prefilter[hashes >> np.uint64(64 - _PREFILTER_BITS)])
        if not len(hit):
            return []
        at = np.searchsorted(self.hashes, hashes[hit]).clip(0, len(self.hashes) - 1)
        hit = hit[self.hashes[at] == hashes[hit]]
        if not len(hit):
            return []
        breaks = np.flatnonzero(np.diff(hit) > NGRAM_CHARACTERS)
        firsts = places[hit[np.concatenate([[0], breaks + 1])]]
        lasts = places[hit[np.concatenate([breaks, [len(hit) - 1]])] + NGRAM_CHARACTERS - 1]
        pairs = zip(firsts.tolist(), lasts.tolist(), strict=True)
        return [
            (first, last + 1) for first, last in pairs if _weight(text[first : last + 1]) >= MIN_SPAN_WEIGHT
        ]

    def decontaminate(self, text: str, mode: Literal["drop", "cut"]) -> StepResult:
        """The text without what is shared; or, dropping, that something is."""
        found = self.find_overlaps(text)
        if not found:
            return text
        if mode == "drop":
            first, end = found[0]
            return Drop("contamination", text[first : min(end, first + 80)])
        parts, done = [], 0
        for first, end in found:
            parts.append(text[done:first])
            done = end
        return "".join([*parts, text[done:]])


def _weight(text: str) -> float:
    counts = c.count_classes(text)
    han = int(counts[[c.HAN, c.KANA, c.HANGUL]].sum())
    return _HAN_WEIGHT * han + int(counts[[c.LATIN, c.LETTER, c.DIGIT]].sum())


def _merge_spans(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Stretches that overlap, where pieces do, as one."""
    joined: list[tuple[int, int]] = []
    for first, end in sorted(spans):
        if joined and first <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((first, end))
    return joined
