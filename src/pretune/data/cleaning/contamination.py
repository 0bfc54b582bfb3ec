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
from pretune.data.cleaning.fingerprints import RUN, distinct, run_hashes
from pretune.data.cleaning.steps import Drop, Outcome
from pretune.errors import DataError

Hashes = npt.NDArray[np.uint64]
MOST = 64_000_000
"""Hashes that are kept at most: 512 MB."""
WEIGHT = 60.0
"""Weight of a stretch that counts: a letter or digit weighs 1, a Chinese character 2.5."""
_HAN_WEIGHT = 2.5
_BITS = 26
_PIECE = 1 << 20
"""Characters that are hashed at once."""


class Evaluations:
    """The runs of the evaluation texts."""

    def __init__(self, hashes: Hashes) -> None:
        self.hashes = hashes
        """Sorted."""
        self._sieve = np.zeros(1 << _BITS, bool)  # most runs of a clean text end here, in one look-up
        self._sieve[hashes >> np.uint64(64 - _BITS)] = True

    @classmethod
    def of(cls, texts: Iterable[str]) -> Evaluations:
        """The runs of all texts; a text with fewer than :data:`RUN` letters and digits has none.

        Raises:
            DataError: there are more than :data:`MOST`.
        """
        kept, fresh, pending = np.zeros(0, np.uint64), [], 0
        for text in texts:
            fresh.append(run_hashes(text)[0])
            pending += len(fresh[-1])
            if pending > MOST // 16:
                kept, fresh, pending = distinct(np.concatenate([kept, *fresh])), [], 0
            if len(kept) > MOST:
                raise DataError(
                    f"the evaluation texts hold more than {MOST:,} runs; give the sets that are scored on, "
                    "not the ones that are trained on"
                )
        return cls(distinct(np.concatenate([kept, *fresh])))

    def stretches(self, text: str) -> list[tuple[int, int]]:
        """[start, end) of each stretch of the text that counts as shared."""
        found: list[tuple[int, int]] = []
        for start in range(0, max(1, len(text)), _PIECE):
            part = text[start : start + _PIECE + 8 * RUN]
            found += [(start + a, start + b) for a, b in self._stretches(part)]
        return _joined(found)

    def _stretches(self, text: str) -> list[tuple[int, int]]:
        hashes, places = run_hashes(text)
        hit = np.flatnonzero(self._sieve[hashes >> np.uint64(64 - _BITS)])
        if not len(hit):
            return []
        at = np.searchsorted(self.hashes, hashes[hit]).clip(0, len(self.hashes) - 1)
        hit = hit[self.hashes[at] == hashes[hit]]
        if not len(hit):
            return []
        breaks = np.flatnonzero(np.diff(hit) > RUN)
        firsts = places[hit[np.concatenate([[0], breaks + 1])]]
        lasts = places[hit[np.concatenate([breaks, [len(hit) - 1]])] + RUN - 1]
        pairs = zip(firsts.tolist(), lasts.tolist(), strict=True)
        return [(first, last + 1) for first, last in pairs if _weight(text[first : last + 1]) >= WEIGHT]

    def clean(self, text: str, mode: Literal["drop", "cut"]) -> Outcome:
        """The text without what is shared; or, dropping, that something is."""
        found = self.stretches(text)
        if not found:
            return text
        if mode == "drop":
            first, end = found[0]
            return Drop("evaluation_text", text[first : min(end, first + 80)])
        parts, done = [], 0
        for first, end in found:
            parts.append(text[done:first])
            done = end
        return "".join([*parts, text[done:]])


def _weight(text: str) -> float:
    counts = c.shares(text)
    han = int(counts[[c.HAN, c.KANA, c.HANGUL]].sum())
    return _HAN_WEIGHT * han + int(counts[[c.LATIN, c.LETTER, c.DIGIT]].sum())


def _joined(stretches: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Stretches that overlap, where pieces do, as one."""
    joined: list[tuple[int, int]] = []
    for first, end in sorted(stretches):
        if joined and first <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((first, end))
    return joined
