"""Pairs of a source and a target, each a document of a corpus."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np

from pretune.config import digest
from pretune.data.corpus.token_shards import Corpus
from pretune.errors import DataError, UnsupportedError
from pretune.types import Feature, IntArray, SpecialTokens, add_special_tokens


def pair_separator_id(columns: Sequence[str], specials: SpecialTokens) -> int | None:
    """The id between the texts of a document that is made of these fields; None: it is one text.

    Raises:
        UnsupportedError: the tokenizer has none that stands for no text.
    """
    if len(columns) == 1:
        return None
    if specials.pad_id not in specials.all_ids:
        raise UnsupportedError(
            f"{' and '.join(columns)}: the tokenizer has neither a padding nor an end token to part them by; "
            "take another, or leave it out and one is trained"
        )
    return specials.pad_id


class CorpusPairs:
    """The documents of a corpus as features of two sequences; ids are read when a pair is asked for.

    Args:
        corpus: each document is ``source joint target``, as `write_corpus` tokenises what was `joined`.
        max_length: tokens of a source or a target at most; longer ones are cut.
        separator_id: the id that stands between the two, and nowhere else.

    Raises:
        DataError: a document is no pair.
    """

    bos_id: int | None = None
    """Nothing stands before a target but its frame."""

    def __init__(self, corpus: Corpus, max_length: int, separator_id: int) -> None:
        self.corpus, self.max_length, self.separator_id = corpus, max_length, separator_id
        sizes = np.diff(corpus.ends, prepend=0)
        places = [np.flatnonzero(corpus.document(i) == separator_id) for i in range(len(corpus))]
        if any(len(found) != 1 for found in places):
            raise DataError(f"{corpus.folder}: was prepared as plain text, and holds no sources and targets")
        self._separator_positions = np.array([int(found[0]) for found in places], np.int64)  # (n,)
        self._full_lengths = np.stack(
            [self._separator_positions, sizes - self._separator_positions - 1], 1
        )  # (n, 2)

    def __len__(self) -> int:
        return len(self.corpus)

    def __getitem__(self, i: int) -> Feature:
        at = int(self._separator_positions[i])
        spans = ((0, at), (at + 1, at + 1 + int(self._full_lengths[i, 1])))
        ends = tuple((low, min(high, low + self.max_length)) for low, high in spans)
        sequences = tuple(np.asarray(self.corpus.document(i, *span), np.int64) for span in ends)
        starts = tuple(self.corpus.word_starts(i, *span) for span in ends)
        return Feature(i, 0, sequences, word_starts=starts)

    def iter_targets(self, specials: SpecialTokens, every: int = 1) -> Iterator[IntArray]:
        """What is to be predicted, of each ``every``-th pair: its framed target."""
        return (add_special_tokens(specials, self[i].sequences[1:])[0] for i in range(0, len(self), every))

    @property
    def num_truncated(self) -> int:
        """Pairs of which the source or the target is longer than ``length``."""
        return int((self._full_lengths > self.max_length).any(1).sum())

    @cached_property
    def lengths(self) -> IntArray:
        """(n, 2) tokens of each source and target."""
        return np.minimum(self._full_lengths, self.max_length)

    @cached_property
    def fingerprint(self) -> str:
        """Covers the data, the tokenizer and the cutting."""
        return digest([self.corpus.fingerprint, "pairs", self.max_length, self.separator_id])
