"""Where a tokenizer puts special tokens around a text or a pair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pretune.types import IntArray


@dataclass(frozen=True, slots=True)
class Frames:
    """The special tokens before, between and after the sequences, with their segments."""

    outside: tuple[tuple[IntArray, IntArray], ...]
    """(ids, segments) before, (between,) and after the sequences."""
    segments: tuple[int, ...]
    """The segment of each sequence."""

    @property
    def ids(self) -> tuple[tuple[int, ...], ...]:
        return tuple(tuple(ids.tolist()) for ids, _ in self.outside)

    @classmethod
    def of(cls, ids: list[int], types: list[int], sequences: Sequence[int | None], number: int) -> Frames:
        outside: list[list[tuple[int, int]]] = [[] for _ in range(number + 1)]
        segments = [0] * number
        seen = 0
        for id, segment, sequence in zip(ids, types, sequences, strict=True):
            if sequence is None:
                outside[seen].append((id, segment))
            else:
                seen = sequence + 1
                segments[sequence] = segment
        parts = [np.array(part, np.int64).reshape(-1, 2) for part in outside]
        return cls(tuple((part[:, 0], part[:, 1]) for part in parts), tuple(segments))
