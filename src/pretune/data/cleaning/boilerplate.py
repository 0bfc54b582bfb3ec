"""Lines that stand in many documents: mastheads, menus, notices.

Two passes: the first counts lines by a hash in bounded memory, the second takes out those that came often.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]
MAX_LINES = 4_000_000
"""Lines that are counted at once: 16 bytes each, and as much again while they are merged."""
MIN_LINE_WIDTH = 12
"""Width below which a line is never boilerplate: }, 答：, * * *; a wide character counts two."""


def line_hashes(text: str) -> Hashes:
    """(n,) 64 bits of each line of the text that is long enough, each once, sorted."""
    found = {hashed for line in text.split("\n") if (hashed := _hash(line))}
    return np.sort(np.fromiter(found, np.uint64, len(found)))


def remove_lines(text: str, recurring: frozenset[int]) -> str:
    """The text without the lines whose hash is among the recurring ones."""
    lines = text.split("\n")
    kept = [line for line in lines if _hash(line) not in recurring]
    return text if len(kept) == len(lines) else "\n".join(kept)


class LineCounts:
    """Counts in how many documents a line stands: lossy counting (Manku and Motwani 2002, section 4.2).

    Whenever more than :data:`MAX_LINES` lines are held, those are forgotten that came least often; a line is
    counted too low by at most as many documents as that happened with its count or above, never too high.
    """

    def __init__(self, limit: int = MAX_LINES) -> None:
        self._hashes, self._counts = np.zeros(0, np.uint64), np.zeros(0, np.int64)
        self._fresh: list[Hashes] = []
        self._pending = 0
        self._limit = limit

    def add(self, documents: Iterable[Hashes]) -> None:
        """Count the lines of some documents, each document's as :func:`line_hashes` gives them."""
        for hashes in documents:
            self._fresh.append(hashes)
            self._pending += len(hashes)
        if self._pending > self._limit // 4:
            self._merge()

    def frequent_lines(self, min_documents: int) -> frozenset[int]:
        """Hashes of the lines that stand in so many documents or more."""
        self._merge()
        return frozenset(self._hashes[self._counts >= min_documents].tolist())

    def _merge(self) -> None:
        fresh, counts = np.unique(np.concatenate([np.zeros(0, np.uint64), *self._fresh]), return_counts=True)
        hashes = np.concatenate([self._hashes, fresh])
        together = np.concatenate([self._counts, counts])
        self._hashes, places = np.unique(hashes, return_inverse=True)
        self._counts = np.bincount(places, together, len(self._hashes)).astype(np.int64)
        self._fresh, self._pending = [], 0
        least = 1
        while len(self._hashes) > self._limit:
            kept = self._counts > least
            self._hashes, self._counts = self._hashes[kept], self._counts[kept]
            least += 1


def _hash(line: str) -> int:
    line = line.strip()
    wide = len(line) + sum(map(_is_wide, line)) if len(line) < MIN_LINE_WIDTH else MIN_LINE_WIDTH
    if wide < MIN_LINE_WIDTH:
        return 0
    digest = hashlib.blake2b(line.encode("utf-8", "replace"), digest_size=8).digest()
    return int.from_bytes(digest, "big") or 1


def _is_wide(character: str) -> bool:
    return character >= "\u2e80"
