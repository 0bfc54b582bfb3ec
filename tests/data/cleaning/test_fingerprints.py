"""Fingerprints are the runs of a text that a stride keeps, whatever the order and the parts."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pretune.data.cleaning import fingerprints
from pretune.data.cleaning.fingerprints import NGRAM_CHARACTERS, Fingerprints, char_ngram_hashes, sort_unique

LETTERS = "abcdefgh 渡船离开港口。"


def texts(count: int, seed: int, length: int = 400) -> list[str]:
    draw = random.Random(seed)
    return ["".join(draw.choices(LETTERS, k=length)) for _ in range(count)]


def kept(found: list[str], stride: int) -> set[int]:
    return {value for text in found for value in char_ngram_hashes(text)[0].tolist() if value % stride == 0}


@given(st.lists(st.integers(0, 2**64 - 1), max_size=50).map(lambda values: values + values[::3]))
def test_distinct_is_a_sorted_set(values: list[int]) -> None:
    assert sort_unique(np.array(values, np.uint64)).tolist() == sorted(set(values))


@pytest.mark.parametrize("limit", [50, 400, 1_000_000])
def test_the_runs_that_the_stride_keeps(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprints, "MAX_HASHES", limit)
    found = texts(12, seed=1)
    made = Fingerprints.from_texts(found)
    assert set(made.hashes.tolist()) == kept(found, made.stride)
    assert len(made.hashes) <= limit
    assert made.stride == 8 or len(kept(found, made.stride // 2)) > limit
    assert Fingerprints.from_texts(reversed(found)).hashes.tolist() == made.hashes.tolist()
    apart = Fingerprints.from_texts(found[:5]).merge(Fingerprints.from_texts(found[5:]))
    assert (apart.stride, apart.hashes.tolist()) == (made.stride, made.hashes.tolist())


def test_a_passage_is_found_and_other_text_is_not(tmp_path: Path) -> None:
    read, unread = texts(30, seed=2), texts(30, seed=3)
    Fingerprints.from_texts(read).save(tmp_path)
    known = Fingerprints.load(tmp_path)
    assert known is not None
    asked = [read[7][100:250], unread[0], "short", read[8].upper()]
    assert known.find_overlapping(asked) == [0, 3]
    assert known.count_checkable(asked) == 3
    assert len(char_ngram_hashes("a" * (NGRAM_CHARACTERS - 1))[0]) == 0
