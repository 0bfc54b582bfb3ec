"""The baselines of several labels a text: what they learn, and of which labels they need not."""

from __future__ import annotations

import numpy as np
import pytest

from pretune.baselines.label_sets import majority, tfidf
from pretune.errors import DataError
from pretune.tasks.multi_label_classification import Task
from pretune.types import Record

TOPICS = {"sea": "ship sail captain harbour", "bread": "flour oven dough baker", "law": "court judge statute"}


def records(n: int, seed: int) -> list[Record]:
    rng = np.random.default_rng(seed)
    found = []
    for number in range(n):
        labels = sorted(label for label in TOPICS if rng.random() < 0.4)
        words = [str(rng.choice(TOPICS[label].split())) for label in labels] + ["the", "year"]
        found.append(Record({"text": " ".join(rng.permutation(words)), "labels": labels}, "a", number))
    return found


def test_each_label_is_learnt_by_itself() -> None:
    test = records(60, 1)
    found = {b.name: b for b in Task().baselines(records(200, 0), test)}
    right = np.mean(
        [p == tuple(r.fields["labels"]) for p, r in zip(found["tfidf"].predictions, test, strict=True)]
    )
    assert right > 0.9
    assert set(found["majority"].predictions) == {()}
    assert found == {b.name: b for b in Task().baselines(records(200, 0), test)}


def test_majority_says_what_holds_of_most() -> None:
    found = majority(np.array([[1, 0], [1, 1], [0, 0]]), ("a", "b"), 2)
    assert found.predictions == (("a",), ("a",))
    assert "(a)" in found.description
    with pytest.raises(DataError, match="at least one"):
        majority(np.zeros((0, 2), np.int64), ("a", "b"), 2)


def test_a_label_of_all_or_none_needs_no_classifier() -> None:
    held = np.array([[1, 0]] * 6)
    found = tfidf([(f"word{n}",) for n in range(6)], held, ("a", "b"), [("word1",)], seed=0)
    assert found.predictions == (("a",),)
