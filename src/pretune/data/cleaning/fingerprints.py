"""Fingerprints of a text, by which a later evaluation finds that a model has read its test set.

Every run of 24 characters (letters and digits only, lower-cased) is hashed; of the hashes a fixed share is
kept, those that are a multiple of a stride, so that two texts that share a passage keep the same hashes of
it wherever it stands (the sampling of Manber 1994, "Finding similar files"). A passage of 100 characters
is found with a probability above 99.99 % at stride 8. Cost: 8 bytes for each ``stride`` characters.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from pretune.errors import CheckpointError
from pretune.types import IntArray

NGRAM_CHARACTERS = 24
FINGERPRINTS_FILE = "text_fingerprints.safetensors"
MAX_HASHES = 1_000_000
"""Hashes that are kept at most; the stride doubles whenever they exceed it."""

_BASE = np.uint64(0x9E3779B97F4A7C15)
_MIX = np.uint64(0xD6E8FEB86659FD93)
Hashes = npt.NDArray[np.uint64]


class Fingerprints:
    """The sampled hashes of a corpus."""

    def __init__(self, hashes: Hashes, stride: int) -> None:
        self.hashes, self.stride = hashes, stride
        """Sorted unique hashes, each a multiple of ``stride`` (a power of two)."""

    @classmethod
    def from_texts(cls, texts: Iterable[str], stride: int = 8) -> Fingerprints:
        """Fingerprints of all texts together, in bounded memory."""
        kept = cls(np.zeros(0, np.uint64), stride)
        fresh, used = np.empty(MAX_HASHES, np.uint64), 0
        for text in texts:
            found = _sample(_hashes(text), kept.stride)
            while len(found):
                fits = found[: MAX_HASHES - used]
                fresh[used : used + len(fits)] = fits
                found, used = found[len(fits) :], used + len(fits)
                if used == MAX_HASHES:
                    kept, used = kept._add_hashes(fresh), 0
        return kept._add_hashes(fresh[:used])

    def merge(self, other: Fingerprints | None) -> Fingerprints:
        """Of both texts; a hash is kept if both strides keep it."""
        if other is None:
            return self
        return Fingerprints(self.hashes, max(self.stride, other.stride))._add_hashes(other.hashes)

    def _add_hashes(self, hashes: Hashes) -> Fingerprints:
        """Of these hashes, too."""
        stride = self.stride
        kept = sort_unique(_sample(np.concatenate([self.hashes, hashes]), stride))
        while len(kept) > MAX_HASHES:
            stride *= 2
            kept = _sample(kept, stride)
        return Fingerprints(kept, stride)

    def find_overlapping(self, texts: Sequence[str]) -> list[int]:
        """The numbers of the texts of which half or more of the sampled runs were in the corpus.

        A shared phrase does not count; a shared passage does. Texts shorter than a run are not judged.
        """
        found = []
        for number, text in enumerate(texts):
            hashes = np.unique(_sample(_hashes(text), self.stride))
            if len(hashes) and np.isin(hashes, self.hashes, assume_unique=True).mean() >= 0.5:
                found.append(number)
        return found

    def count_checkable(self, texts: Sequence[str]) -> int:
        """How many of the texts are long enough to be looked up: they have a hash that is kept."""
        return sum(len(_sample(_hashes(text), self.stride)) > 0 for text in texts)

    def save(self, folder: Path) -> None:
        """Write :data:`FINGERPRINTS_FILE` into a folder."""
        save_file({"hashes": self.hashes, "stride": np.array([self.stride])}, folder / FINGERPRINTS_FILE)

    @classmethod
    def load(cls, folder: Path) -> Fingerprints | None:
        """What :meth:`save` wrote, or None where there is none."""
        path = folder / FINGERPRINTS_FILE
        if not path.exists():
            return None
        try:
            tensors = load_file(path)
            return cls(tensors["hashes"], int(tensors["stride"][0]))
        except (OSError, ValueError, KeyError, IndexError, SafetensorError) as error:
            raise CheckpointError(f"{path}: damaged: {error}") from None


def sort_unique(hashes: Hashes) -> Hashes:
    """The hashes, sorted, each once; of two million ninety times as fast as ``np.unique`` of NumPy 2.4."""
    found = np.sort(hashes)
    first: npt.NDArray[np.bool_] = np.diff(found, prepend=~found[:1]) != 0
    return np.asarray(found[first])


def char_ngram_hashes(text: str) -> tuple[Hashes, IntArray]:
    """A hash of each run of :data:`NGRAM_CHARACTERS` letters and digits, (n,), and the place of each, (n +
    RUN - 1,).

    A polynomial over code points, then mixed. A run of 24 is one of 16 and one of 8, and these are two of 4
    ... each: so all runs together cost five passes.
    """
    codes = np.frombuffer(text.encode("utf-32-le", "replace"), np.uint32)
    lowered = _lowercase_table()[np.minimum(codes, 0xFFFF)].astype(np.uint64)
    beyond = np.flatnonzero(codes > 0xFFFF)
    lowered[beyond] = [code if chr(code).isalnum() else 0 for code in codes[beyond].tolist()]
    places = np.flatnonzero(lowered)
    hashes = lowered[places]
    if len(hashes) < NGRAM_CHARACTERS:
        return np.zeros(0, np.uint64), places
    eight = hashes
    for size in (1, 2, 4):
        eight = eight[:-size] * _power(size) + eight[size:]
    sixteen = eight[:-8] * _power(8) + eight[8:]
    hashes = sixteen[:-8] * _power(8) + eight[16:]
    hashes ^= hashes >> np.uint64(32)
    hashes *= _MIX
    hashes ^= hashes >> np.uint64(32)
    return hashes, places


def _hashes(text: str) -> Hashes:
    return char_ngram_hashes(text)[0]


def _power(exponent: int) -> np.uint64:
    return np.uint64(pow(int(_BASE), exponent, 1 << 64))


@cache
def _lowercase_table() -> npt.NDArray[np.uint32]:
    """(65536,) each letter or digit of the basic plane in lower case, 0 for the rest."""
    lowered = [chr(code).lower() if chr(code).isalnum() else "" for code in range(0x10000)]
    return np.array(
        [ord(to) if len(to) == 1 else code * bool(to) for code, to in enumerate(lowered)], np.uint32
    )


def _sample(hashes: Hashes, stride: int) -> Hashes:
    return np.asarray(hashes[hashes % np.uint64(stride) == 0])
