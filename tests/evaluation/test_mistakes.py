"""The most confident mistakes, and accuracy by length."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pretune.errors import DataError
from pretune.evaluation.mistakes import Slice, by_slice, most_confident
from pretune.types import Prediction, Record

RECORDS = [Record({"text": f"text {i}", "label": "x"}, "dev.jsonl", i + 1) for i in range(5)]


def test_mistakes_come_surest_first() -> None:
    predictions = [
        Prediction(4, "b", 0.6),
        Prediction(0, "b", 0.9),
        Prediction(1, "a", 0.99),  # right
        Prediction(2, "b", None),
        Prediction(3, "b", 0.9),
    ]
    found = most_confident(RECORDS, predictions, ["a"] * 5)
    assert [m.record for m in found] == [0, 3, 4, 2]
    first = found[0]
    assert (first.text, first.said, first.truth, first.confidence) == ("text 0", "b", "a", 0.9)
    assert first.where == "dev.jsonl:1"
    assert most_confident(RECORDS, predictions, ["a"] * 5, k=2) == found[:2]


def test_a_pair_shows_both_texts() -> None:
    record = Record({"text": "one", "text_pair": "two"}, "dev.jsonl", 1)
    assert most_confident([record], [Prediction(0, 1)], [0])[0].text == "one\ntwo"


def test_mistakes_refuse_what_does_not_fit() -> None:
    with pytest.raises(DataError, match="5 records for 1 references"):
        most_confident(RECORDS, [], ["a"])
    with pytest.raises(DataError, match="record 7"):
        most_confident(RECORDS, [Prediction(7, "a")], ["a"] * 5)


def test_quartiles_of_length() -> None:
    slices = by_slice([True, True, True, False, True, False, False, False], [1, 2, 3, 4, 5, 6, 7, 8])
    assert slices == [Slice(1, 2, 2, 1.0), Slice(3, 4, 2, 0.5), Slice(5, 6, 2, 0.5), Slice(7, 8, 2, 0.0)]
    assert by_slice([True, False, True], [5, 5, 5]) == [Slice(5, 5, 3, pytest.approx(2 / 3))]


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 20)), min_size=1, max_size=60))
def test_slices_part_the_items(items: list[tuple[bool, int]]) -> None:
    correct, lengths = zip(*items, strict=True)
    slices = by_slice(correct, lengths)
    assert 1 <= len(slices) <= 4
    assert sum(s.n for s in slices) == len(items)
    assert sum(s.n * s.accuracy for s in slices) == pytest.approx(sum(correct))
    for before, after in itertools.pairwise(slices):
        assert before.longest < after.shortest


def test_slices_refuse_what_does_not_fit() -> None:
    with pytest.raises(DataError, match="one length an item"):
        by_slice([True], [1, 2])
    with pytest.raises(DataError, match="one length an item"):
        by_slice(np.array([]), np.array([]))
