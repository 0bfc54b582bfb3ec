"""The baselines of a task with one label a record."""

from __future__ import annotations

from collections.abc import Sequence

from pretune.baselines.base import Baseline
from pretune.baselines.tfidf import majority, tfidf
from pretune.tasks.classification import get_texts, reference
from pretune.types import Record


def baselines(train: Sequence[Record], test: Sequence[Record]) -> dict[str, Baseline]:
    """Majority and TF-IDF, fitted on labelled records, by name."""
    labels = [reference(record) for record in train]
    test_texts = [get_texts(record) for record in test]
    return {
        "majority": majority(labels, test_texts),
        "tfidf": tfidf([get_texts(record) for record in train], labels, test_texts, seed=0),
    }
