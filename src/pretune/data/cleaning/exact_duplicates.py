"""Leaving out texts that were there before."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pretune.data.sources.text_hash import text_hash

_BUFFER_SIZE = 1 << 17
"""Hashes that wait to be sorted in among the others."""


class ExactDuplicates:
    """Remembers hashes of texts, not texts: 8 bytes a document, and 10 MB for the newest."""

    def __init__(self) -> None:
        self._sorted = np.zeros(0, np.uint64)
        self._buffer: dict[int, None] = {}

    def is_duplicate(self, text: str) -> bool:
        """Was this text (up to white space) asked about before?"""
        return self.is_duplicate_hash(text_hash(text))

    def is_duplicate_hash(self, value: int) -> bool:
        """Was the text with this :func:`text_hash` asked about before?"""
        if value in self._buffer:
            return True
        place = int(np.searchsorted(self._sorted, np.uint64(value)))
        if place < len(self._sorted) and int(self._sorted[place]) == value:
            return True
        self._buffer[value] = None
        if len(self._buffer) >= _BUFFER_SIZE:
            self.add_hashes(np.zeros(0, np.uint64))
        return False

    def add_hashes(self, hashes: npt.NDArray[np.uint64]) -> None:
        """Take up hashes that a run before this one remembered."""
        newest = np.fromiter(self._buffer, np.uint64, len(self._buffer))
        self._sorted = np.sort(np.concatenate([self._sorted, newest, hashes]), kind="stable")
        self._buffer = {}

    def __len__(self) -> int:
        return len(self._sorted) + len(self._buffer)
