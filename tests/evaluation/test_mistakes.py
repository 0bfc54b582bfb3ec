"""The most confident mistakes, and the score by length."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pretune.errors import DataError
from pretune.evaluation.mistakes import Slice, confident_mistakes, value_by_length
from pretune.metrics.accuracy import ACCURACY
from pretune.types import Prediction, Record


def accuracy_by_length(correct: Sequence[bool], lengths: object) -> list[Slice]:
    return value_by_length(ACCURACY, correct, [True] * len(correct), lengths)  # type: ignore[arg-type]


RECORDS = [Record({"text": f"text {i}", "label": "x"}, "dev.jsonl", i + 1) for i in range(5)]


def test_mistakes_come_surest_first() -> None:
    predictions = [
        Prediction(4, "b", 0.6),
        Prediction(0, "b", 0.9),
        Prediction(1, "a", 0.99),  # right
        Prediction(2, "b", None),
        Prediction(3, "b", 0.9),
    ]
    found = confident_mistakes(RECORDS, predictions, ["a"] * 5)
    assert [m.record_index for m in found] == [0, 3, 4, 2]
    first = found[0]
    assert (first.text, first.predicted, first.reference, first.confidence) == ("text 0", "b", "a", 0.9)
    assert first.where == "dev.jsonl:1"
    assert confident_mistakes(RECORDS, predictions, ["a"] * 5, k=2) == found[:2]


def test_a_pair_shows_both_texts() -> None:
    record = Record({"text": "one", "text_pair": "two"}, "dev.jsonl", 1)
    assert confident_mistakes([record], [Prediction(0, 1)], [0])[0].text == "one\ntwo"


def test_mistakes_refuse_what_does_not_fit() -> None:
    with pytest.raises(DataError, match="5 records for 1 references"):
        confident_mistakes(RECORDS, [], ["a"])
    with pytest.raises(DataError, match="record 7"):
        confident_mistakes(RECORDS, [Prediction(7, "a")], ["a"] * 5)


def test_quartiles_of_length() -> None:
    slices = accuracy_by_length(
        [True, True, True, False, True, False, False, False], [1, 2, 3, 4, 5, 6, 7, 8]
    )
    assert slices == [Slice(1, 2, 2, 1.0), Slice(3, 4, 2, 0.5), Slice(5, 6, 2, 0.5), Slice(7, 8, 2, 0.0)]
    assert accuracy_by_length([True, False, True], [5, 5, 5]) == [Slice(5, 5, 3, pytest.approx(2 / 3))]


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 20)), min_size=1, max_size=60))
def test_slices_part_the_items(items: list[tuple[bool, int]]) -> None:
    correct, lengths = zip(*items, strict=True)
    slices = accuracy_by_length(correct, lengths)
    assert 1 <= len(slices) <= 4
    assert sum(s.n for s in slices) == len(items)
    assert sum(s.n * s.value for s in slices) == pytest.approx(sum(correct))
    for before, after in itertools.pairwise(slices):
        assert before.longest < after.shortest


def test_slices_refuse_what_does_not_fit() -> None:
    with pytest.raises(DataError, match="one length an item"):
        accuracy_by_length([True], [1, 2])
    with pytest.raises(DataError, match="one length an item"):
        accuracy_by_length([], np.array([]))
