"""One answer for every record is seen, and a good model of rare classes is not taken for it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pretune.errors import DataError
from pretune.evaluation.constant_prediction import (
    NeverPredicted,
    find_constant_output,
    find_constant_prediction,
    find_never_predicted,
)

TRUE = ["a"] * 60 + ["b"] * 30 + ["c"] * 10


def test_one_answer_for_all() -> None:
    found = find_constant_prediction(["b"] * 100, TRUE)
    assert found is not None
    assert (found.value, found.count, found.n) == ("b", 100, 100)
    assert (found.other_share, found.largest_share) == (pytest.approx(0.7), pytest.approx(0.6))


@pytest.mark.parametrize(("other", "seen"), [(1, True), (2, False)])
def test_99_of_100_are_nearly_all(other: int, seen: bool) -> None:
    assert (find_constant_prediction(["a"] * (100 - other) + ["c"] * other, TRUE) is not None) is seen


def test_a_good_model_of_a_rare_class_is_not_constant() -> None:
    true = ["ham"] * 995 + ["spam"] * 5
    assert find_constant_prediction(true, true) is None
    assert find_constant_prediction(["ham"] * 997 + ["spam"] * 3, true) is None
    assert find_constant_prediction(["ham"] * 1000, true) is not None


@pytest.mark.parametrize(
    "true",
    [
        ["a"] * 50,  # one class only: nothing to tell apart
        ["b"] * 50,
        ["a"] * 49 + ["b"],  # one record is no evidence
        [],
    ],
)
def test_where_nothing_can_be_told_apart_nothing_is_said(true: list[str]) -> None:
    assert find_constant_prediction(["a"] * len(true), true) is None


@pytest.mark.parametrize("value", [(), ("war", "zh"), ("O", "O", "O"), (3, 3)])
def test_sets_of_labels_tags_and_places_are_values_too(value: tuple[object, ...]) -> None:
    true = [("zh",), ("B-PER", "O"), (1, 4), ()] * 5
    found = find_constant_prediction([value] * 20, true)
    assert found is not None
    assert found.value == value


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=60))
def test_a_perfect_model_is_never_constant(true: list[str]) -> None:
    assert find_constant_prediction(true, true) is None
    assert find_never_predicted([(t,) for t in true], [(t,) for t in true]) == []


def test_predictions_of_other_records_are_refused() -> None:
    with pytest.raises(DataError, match="2 predicted values for 1"):
        find_constant_prediction(["a", "a"], ["a"])


def test_classes_never_predicted_come_with_their_share() -> None:
    found = find_never_predicted([("a",)] * 100, [(t,) for t in TRUE])
    assert found == [NeverPredicted("b", 30, 0.3), NeverPredicted("c", 10, 0.1)]
    assert find_never_predicted([("a", "c"), ("b",)], [("a",), ("b", "c")]) == []
    assert find_never_predicted([(), ()], [("b",), ("a", "b")]) == [
        NeverPredicted("b", 2, 1.0), NeverPredicted("a", 1, 0.5),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("outputs", "value"),
    [
        ([[], [], []], ()),
        ([[7, 9, 9, 9], [9, 9, 9, 9, 9], [8, 9, 9, 9]], (9,)),
        ([[7, 7, 7, 7], [9, 9, 9, 9], [8, 8, 8, 8]], (7, 9, 8)),
        ([[], []], None),  # too few
        ([[9], [9], [9]], None),  # "yes" may well be the answer
        ([[], [9, 9, 9, 9], []], None),
        ([[1, 2, 3, 2], [9, 9, 9, 9], [9, 9, 9, 9]], None),
    ],
)
def test_outputs_that_are_empty_or_one_token(outputs: list[list[int]], value: tuple[int, ...] | None) -> None:
    found = find_constant_output(outputs)
    assert (found and found.value) == value
