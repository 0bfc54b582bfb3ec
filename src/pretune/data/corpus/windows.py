"""Feature stores: windows over the documents of a corpus, and the encoded records of a task."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from pretune.config import digest
from pretune.data.corpus.token_shards import Corpus
from pretune.errors import ConfigError, DataError
from pretune.types import Feature, IntArray, SpecialTokens, WindowSpec

Value = TypeVar("Value", bound=np.generic)


class Windows:
    """The documents of a corpus, each as ``[start] ids [end]``, cut into windows; none crosses a document.

    Args:
        corpus: where the documents lie; ids are read when a window is asked for.
        length: tokens of a window; the last of a document may be shorter.
        overlap: tokens that a window repeats of the one before. With 1, a causal model scores each token but
            the first of a document exactly once; with 0, a masked one sees each once. What would hold nothing
            beyond the overlap is no window.
        bos_id: id put before each document, if any.
        eos_id: id put after each document, if any.
        documents: (n,) numbers of the documents to take; all of them by default.

    Raises:
        ConfigError: windows of that length and overlap would never move on.
        DataError: no document is long enough for a window.
    """

    def __init__(
        self,
        corpus: Corpus,
        length: int,
        overlap: int = 0,
        bos_id: int | None = None,
        eos_id: int | None = None,
        *,
        documents: IntArray | None = None,
    ) -> None:
        if not 0 <= overlap < length:
            raise ConfigError(f"length = {length}, overlap = {overlap}: need 0 <= overlap < length")
        self.corpus, self.length, self.overlap = corpus, length, overlap
        self.bos_id, self.eos_id = bos_id, eos_id
        self.documents = np.arange(len(corpus)) if documents is None else np.asarray(documents, np.int64)
        sizes = np.diff(corpus.ends, prepend=0)[self.documents]
        self._sizes = sizes + (bos_id is not None) + (eos_id is not None)
        stride = length - overlap
        counts = np.maximum(-(-(self._sizes - overlap) // stride), 0)
        self._first_windows = np.concatenate([[0], np.cumsum(counts)])
        if not len(self):
            raise DataError(
                f"{corpus.folder}: no document has more than {overlap} tokens, none gives a window"
            )

    @classmethod
    def from_windowing(cls, corpus: Corpus, windowing: WindowSpec) -> Windows:
        """Windows over all documents, as an objective wants them."""
        return cls(corpus, windowing.length, windowing.overlap, windowing.bos_id, windowing.eos_id)

    def __len__(self) -> int:
        return int(self._first_windows[-1])

    def __getitem__(self, i: int) -> Feature:
        at, part, low, high = self._window_range(i)
        ids = self.corpus.document(int(self.documents[at]), *self._document_range(low, high))
        tokens = self._add_bos_eos(at, low, high, ids, self.bos_id, self.eos_id)
        return Feature(int(self.documents[at]), part, (tokens,), word_starts=(self.word_starts(i),))

    def word_starts(self, i: int) -> npt.NDArray[np.uint8]:
        """(T,) word and sentence starts of window ``i``; its start and end tokens are both."""
        at, _, low, high = self._window_range(i)
        flags = self.corpus.word_starts(int(self.documents[at]), *self._document_range(low, high))
        return self._add_bos_eos(at, low, high, flags, 3, 3)

    def iter_targets(self, specials: SpecialTokens, every: int = 1) -> Iterator[IntArray]:
        """What is to be predicted, of each ``every``-th document: its tokens, and the id after them."""
        end = np.array([] if self.eos_id is None else [self.eos_id], np.int64)
        return (np.append(self.corpus.document(int(i)), end) for i in self.documents[::every])

    @cached_property
    def lengths(self) -> IntArray:
        """(n, 1) tokens of each window."""
        counts = np.diff(self._first_windows)
        parts = np.arange(len(self)) - np.repeat(self._first_windows[:-1], counts)
        left = np.repeat(self._sizes, counts) - parts * (self.length - self.overlap)
        lengths: IntArray = np.minimum(left, self.length)
        return lengths[:, None]

    @cached_property
    def fingerprint(self) -> str:
        """Covers the data, the tokenizer, the choice of documents and the cutting."""
        chosen = hashlib.sha256(self.documents.tobytes()).hexdigest()
        return digest([self.corpus.fingerprint, chosen, self.length, self.overlap, self.bos_id, self.eos_id])

    @property
    def text_bytes(self) -> int:
        """UTF-8 bytes of the chosen documents: what a loss in bits per byte divides by."""
        return int(self.corpus.byte_counts[self.documents].sum())

    def _window_range(self, i: int) -> tuple[int, int, int, int]:
        """(place in ``documents``, part, low, high): the window is [low, high) of the framed document."""
        if not -len(self) <= i < len(self):
            raise IndexError(f"window {i} of {len(self)}")
        i %= len(self)
        at = int(np.searchsorted(self._first_windows, i, side="right")) - 1
        part = i - int(self._first_windows[at])
        low = part * (self.length - self.overlap)
        return at, part, low, min(low + self.length, int(self._sizes[at]))

    def _document_range(self, low: int, high: int) -> tuple[int, int]:
        """[low, high) of the framed document in ids of the bare one; its own end bounds it there."""
        shift = self.bos_id is not None
        return max(low - shift, 0), max(high - shift, 0)

    def _add_bos_eos(
        self,
        at: int,
        low: int,
        high: int,
        values: npt.NDArray[Value],
        bos_value: int | None,
        eos_value: int | None,
    ) -> npt.NDArray[Value]:
        before = [bos_value] if low == 0 and self.bos_id is not None else []
        after = [eos_value] if high == self._sizes[at] and self.eos_id is not None else []
        if not before and not after:
            return values
        parts = [np.array(before, values.dtype), values, np.array(after, values.dtype)]
        return np.concatenate(parts)


class EncodedRecords:
    """The features of a task's records, in memory.

    Raises:
        DataError: there are none.
    """

    def __init__(self, features: Sequence[Feature]) -> None:
        if not features:
            raise DataError("no record gave a feature")
        self._features = list(features)

    def __len__(self) -> int:
        return len(self._features)

    def __getitem__(self, i: int) -> Feature:
        return self._features[i]

    @cached_property
    def lengths(self) -> IntArray:
        """(n, sequences) tokens of each sequence, 0 where a feature has fewer of them."""
        widest = max(len(feature.sequences) for feature in self._features)
        lengths = np.zeros((len(self), widest), np.int64)
        for row, feature in zip(lengths, self._features, strict=True):
            row[: len(feature.sequences)] = [len(sequence) for sequence in feature.sequences]
        return lengths

    @cached_property
    def fingerprint(self) -> str:
        """Covers ids and labels."""
        content = hashlib.sha256()
        for feature in self._features:
            labels = {key: np.asarray(value).tolist() for key, value in feature.labels.items()}
            sizes = [len(sequence) for sequence in feature.sequences]
            content.update(digest([feature.record, feature.window, sizes, labels]).encode())
            for sequence in feature.sequences:
                content.update(np.ascontiguousarray(sequence, np.int64).tobytes())
        return content.hexdigest()
