"""Scores by class equal scikit-learn's, of one label a record and of several."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import (
    confusion_matrix,
    multilabel_confusion_matrix,
    precision_recall_fscore_support,
)

from pretune.errors import DataError
from pretune.metrics.by_class import ClassReport, class_report, multi_label_report

LABELS = ("a", "b", "c", "类")


def check(found: ClassReport, true: object, said: object, labels: object) -> None:
    """Figure by figure, against scikit-learn."""
    figures = precision_recall_fscore_support(true, said, labels=labels, zero_division=0)
    for name, column in zip(("precision", "recall", "f1", "support"), figures, strict=True):
        assert [getattr(score, name) for score in found.scores] == pytest.approx(list(column), abs=1e-12)


@settings(max_examples=30)
@given(st.lists(st.tuples(st.sampled_from(LABELS), st.sampled_from(LABELS)), min_size=1, max_size=80))
def test_one_label_a_record_is_as_in_scikit_learn(pairs: list[tuple[str, str]]) -> None:
    said, true = zip(*pairs, strict=True)
    found = class_report(said, true, LABELS)
    check(found, true, said, list(LABELS))
    assert (found.confusion_counts == confusion_matrix(true, said, labels=list(LABELS))).all()
    assert [score.predicted for score in found.scores] == [said.count(label) for label in LABELS]


@settings(max_examples=30)
@given(st.integers(1, 40), st.integers(2, 5), st.integers(0, 1000))
def test_several_labels_are_as_in_scikit_learn(records: int, labels: int, seed: int) -> None:
    said, true = np.random.default_rng(seed).integers(0, 2, (2, records, labels))
    found = multi_label_report(said, true, [f"label {k}" for k in range(labels)])
    check(found, true, said, list(range(labels)))
    assert (found.confusion_counts == multilabel_confusion_matrix(true, said)).all()


def test_a_class_of_nothing_scores_0() -> None:
    [first, second, third] = class_report(["a", "a"], ["a", "b"], ["a", "b", "c"]).scores
    assert (first.precision, first.recall, first.f1) == (0.5, 1.0, pytest.approx(2 / 3))
    assert (second.precision, second.recall, second.f1, second.support, second.predicted) == (0, 0, 0, 1, 0)
    assert (third.f1, third.support) == (0, 0)


def test_as_summary_json_holds_it() -> None:
    found = class_report(["a", "a", "b"], ["a", "b", "b"], ["a", "b"]).as_dict()
    assert found["by_class"]["b"] == {
        "precision": 1.0, "recall": 0.5, "f1": pytest.approx(2 / 3), "support": 2, "predicted": 1,
    }  # fmt: skip
    assert found["confusion_matrix"] == {"labels": ["a", "b"], "counts": [[1, 0], [1, 1]]}
    many = [str(k) for k in range(20_000)]  # a matrix of them would take 3 GB
    found = class_report(many, many, many).as_dict()
    assert (len(found["by_class"]), found["confusion_matrix"]) == (20_000, None)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(DataError, match="2 predictions for 1"):
        class_report(["a", "a"], ["a"], LABELS)
    with pytest.raises(DataError, match="'z' is not among the 4 labels"):
        class_report(["a"], ["z"], LABELS)
    with pytest.raises(DataError, match=r"\(records, 4 labels\)"):
        multi_label_report(np.zeros((2, 3)), np.zeros((2, 3)), LABELS)
