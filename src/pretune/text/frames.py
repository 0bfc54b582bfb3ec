"""Where a tokenizer puts special tokens around a text or a pair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pretune.types import IntArray


@dataclass(frozen=True, slots=True)
class SpecialTokensTemplate:
    """The special tokens before, between and after the sequences, with their segments."""

    special_tokens: tuple[tuple[IntArray, IntArray], ...]
    """(ids, segments) before, (between,) and after the sequences."""
    segments: tuple[int, ...]
    """The segment of each sequence."""

    @property
    def ids(self) -> tuple[tuple[int, ...], ...]:
        return tuple(tuple(ids.tolist()) for ids, _ in self.special_tokens)

    @classmethod
    def from_encoding(
        cls, ids: list[int], type_ids: list[int], sequence_ids: Sequence[int | None], num_sequences: int
    ) -> SpecialTokensTemplate:
        outside: list[list[tuple[int, int]]] = [[] for _ in range(num_sequences + 1)]
        segments = [0] * num_sequences
        seen = 0
        for id, segment, sequence in zip(ids, type_ids, sequence_ids, strict=True):
            if sequence is None:
                outside[seen].append((id, segment))
            else:
                seen = sequence + 1
                segments[sequence] = segment
        parts = [np.array(part, np.int64).reshape(-1, 2) for part in outside]
        return cls(tuple((part[:, 0], part[:, 1]) for part in parts), tuple(segments))
