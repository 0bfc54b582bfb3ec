"""Texts that are almost the same: MinHash signatures, and an index that finds similar ones.

MinHash (Broder 1997) by rensa over n-grams of five words, or of five characters where words have no spaces
between them; banding as in Leskovec, Rajaraman and Ullman, "Mining of Massive Datasets", section 3.4. A
signature keeps one byte of each minimum (b-bit minwise hashing, Li and König 2010).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import rensa

PERMUTATIONS = 128
SHINGLE_SIZE = 5
_SEED = 42
_BASE = np.uint64(0x9E3779B97F4A7C15)
_MIX = np.uint64(0xD6E8FEB86659FD93)
_COLLISION_PROBABILITY = 1 / 256
"""Chance that the bytes of two different minima agree."""

_BLOCK = 1 << 14
_MAX_LOAD_FACTOR = 0.6
"""Share of the table that may be filled."""

Hashes = npt.NDArray[np.uint64]
Signatures = npt.NDArray[np.uint8]


def shingle_hashes(text: str, *, characters: bool) -> Hashes:
    """(n,) hashes of the n-grams of five units, lower-cased; of a shorter text one hash."""
    if characters:
        letters = "".join(text.lower().split())
        units = np.frombuffer(letters.encode("utf-32-le", "replace"), np.uint32).astype(np.uint64)
    else:
        units = _word_hashes(text)
    size = min(SHINGLE_SIZE, len(units))
    if not size:
        return np.zeros(1, np.uint64)
    count = len(units) - size + 1
    hashes = units[:count].copy()
    for offset in range(1, size):
        hashes = hashes * _BASE + units[offset : offset + count]
    hashes ^= hashes >> np.uint64(32)
    hashes *= _MIX
    return hashes ^ (hashes >> np.uint64(29))


def _word_hashes(text: str) -> Hashes:
    """(words,) a polynomial over the letters of each word, the same in every process."""
    points = np.frombuffer(text.lower().encode("utf-32-le", "replace"), np.uint32)
    space = (points <= 32) | (points == 0xA0) | (points == 0x3000)
    edges = np.flatnonzero(np.diff(np.concatenate([[True], space, [True]]).astype(np.int8)))
    starts, lengths = edges[::2], np.diff(edges)[::2]
    if not len(starts):
        return np.zeros(0, np.uint64)
    values = np.where(space, np.uint32(0), points).astype(np.uint64)
    marks = np.zeros(len(points), np.int64)
    marks[starts] = starts
    within = np.arange(len(points)) - np.maximum.accumulate(marks)
    longest = int(lengths.max())
    return np.add.reduceat(values * _powers(longest + 1)[np.minimum(within, longest)], starts)


def _powers(count: int) -> Hashes:
    powers = np.full(count, _BASE, np.uint64)
    powers[0] = 1
    return np.cumprod(powers, dtype=np.uint64)


def signatures(documents: Sequence[Hashes]) -> Signatures:
    """(documents, PERMUTATIONS) one byte of each minimum."""
    if not documents:
        return np.zeros((0, PERMUTATIONS), np.uint8)
    offsets = np.concatenate([[0], np.cumsum([len(hashes) for hashes in documents])]).astype(np.uint64)
    matrix = rensa.RMinHash.digest_matrix_from_flat_token_hashes(
        np.concatenate(documents), offsets, PERMUTATIONS, _SEED
    )
    return np.array(matrix.to_rows(), np.uint32).astype(np.uint8)


def similarity(one: Signatures, other: Signatures) -> npt.NDArray[np.float64]:
    """Estimated Jaccard similarity of two signatures, or of the rows of two arrays of them."""
    agree = (one == other).mean(axis=-1)
    return np.asarray((agree - _COLLISION_PROBABILITY) / (1 - _COLLISION_PROBABILITY))


def choose_bands(threshold: float) -> tuple[int, int]:
    """(bands, rows of each): the longest rows that still find nine of ten pairs at the threshold."""
    for rows in range(32, 1, -1):
        number = PERMUTATIONS // rows
        if 1 - (1 - threshold**rows) ** number >= 0.9:
            return number, rows
    return PERMUTATIONS, 1


class NearDuplicates:
    """Remembers signatures: 128 bytes and, at a threshold of 0.8, 16 places of 4 bytes a document.

    With the free places of the table that is about 0.3 GB a million documents. A candidate shares a band; it
    is a duplicate where the whole signatures agree. Only the first document with a band is kept under it.
    """

    def __init__(self, threshold: float = 0.8) -> None:
        self.threshold = threshold
        self._bands, self._rows = choose_bands(threshold)
        self._signatures = np.zeros((1 << 12, PERMUTATIONS), np.uint8)
        self._count = 0
        self._table = np.zeros(1 << 16, np.uint32)
        """Open addressing over all bands: number of the document + 1, or 0."""

    def __len__(self) -> int:
        return self._count

    @property
    def memory(self) -> int:
        """Bytes held."""
        return self._signatures.nbytes + self._table.nbytes

    def signatures_since(self, count: int) -> Signatures:
        """(new, PERMUTATIONS) signatures remembered after the first ``count``, for :meth:`restore`."""
        return self._signatures[count : self._count].copy()

    def restore(self, remembered: Signatures) -> None:
        """Remember signatures that are known to be no duplicates."""
        self._grow(len(remembered))
        self._signatures[self._count : self._count + len(remembered)] = remembered
        self._count += len(remembered)
        self._reserve_table(0, rebuild=True)

    def find_duplicates(self, batch: Signatures) -> list[bool]:
        """Whether each is similar to one before it; those that are not are remembered."""
        self._grow(len(batch))
        self._reserve_table(len(batch))
        keys = self._keys(batch)
        before = self._find(batch, keys).tolist()
        fresh: dict[int, int] = {}  # what this batch adds: band to number + 1
        found = []
        for row, own, there in zip(batch, keys.tolist(), before, strict=True):
            candidates = {*there, *(fresh[key] for key in own if key in fresh)} - {0}
            alike = any(
                similarity(self._signatures[number - 1], row) >= self.threshold for number in candidates
            )
            found.append(alike)
            if not alike:
                self._signatures[self._count] = row
                self._count += 1
                for key, number in zip(own, there, strict=True):
                    if not number:
                        fresh.setdefault(key, self._count)
        self._insert(
            np.fromiter(fresh, np.uint64, len(fresh)), np.fromiter(fresh.values(), np.uint32, len(fresh))
        )
        return found

    def _keys(self, batch: Signatures) -> Hashes:
        """(documents, bands) where the search for each band begins."""
        parts = batch[:, : self._bands * self._rows].reshape(len(batch), self._bands, self._rows)
        keys = np.broadcast_to(np.arange(1, self._bands + 1, dtype=np.uint64), parts.shape[:2]).copy()
        for row in range(self._rows):
            keys = keys * _BASE + parts[:, :, row] + np.uint64(1)
        keys ^= keys >> np.uint64(32)
        keys *= _MIX
        return keys ^ (keys >> np.uint64(29))

    def _find(self, batch: Signatures, keys: Hashes) -> npt.NDArray[np.uint32]:
        """(documents, bands) number + 1 of the document that is kept under each band, or 0."""
        found = np.zeros(keys.size, np.uint32)
        mask = np.uint64(len(self._table) - 1)
        asked, places = np.arange(keys.size), keys.ravel() & mask
        inside = np.arange(self._rows)
        while len(asked):
            numbers = self._table[places]
            held = numbers > 0
            asked, places, numbers = asked[held], places[held], numbers[held]
            columns = (asked % self._bands * self._rows)[:, None] + inside
            same = (
                self._signatures[(numbers - np.uint32(1))[:, None], columns]
                == batch[(asked // self._bands)[:, None], columns]
            ).all(axis=1)
            found[asked[same]] = numbers[same]
            asked, places = asked[~same], (places[~same] + np.uint64(1)) & mask
        return found.reshape(keys.shape)

    def _insert(self, keys: Hashes, numbers: npt.NDArray[np.uint32]) -> None:
        """Keep documents under keys that are not there yet, all at once."""
        mask = np.uint64(len(self._table) - 1)
        places = keys & mask
        while len(places):
            free = np.flatnonzero(self._table[places] == 0)
            won = free[np.unique(places[free], return_index=True)[1]]
            self._table[places[won]] = numbers[won]
            lost = np.ones(len(places), bool)
            lost[won] = False
            places, numbers = (places[lost] + np.uint64(1)) & mask, numbers[lost]

    def _grow(self, count: int) -> None:
        """Make room for signatures, in place where the system can."""
        if self._count + count > len(self._signatures):
            size = max(self._count + count, len(self._signatures) * 5 // 4)
            self._signatures.resize((size, PERMUTATIONS), refcheck=False)

    def _reserve_table(self, count: int, *, rebuild: bool = False) -> None:
        """Make room in the table, which is built again from the signatures."""
        size = len(self._table)
        while (self._count + count) * self._bands > _MAX_LOAD_FACTOR * size:
            size *= 2
        if size == len(self._table) and not rebuild:
            return
        self._table = np.zeros(0, np.uint32)  # the old one is given back before the new one is taken
        self._table = np.zeros(size, np.uint32)
        for band in range(self._bands):
            starts = range(0, self._count, _BLOCK)
            blocks = (self._signatures[start : min(start + _BLOCK, self._count)] for start in starts)
            every = np.concatenate(
                [np.zeros(0, np.uint64), *(self._keys(block)[:, band] for block in blocks)]
            )
            keys, firsts = np.unique(every, return_index=True)
            self._insert(keys, (firsts + 1).astype(np.uint32))
