"""The baselines of a task with one label a record."""

from __future__ import annotations

from collections.abc import Sequence

from pretune.baselines.base import Baseline
from pretune.baselines.tfidf import majority, tfidf
from pretune.tasks.classification import texts, truth
from pretune.types import Record


def baselines(train: Sequence[Record], test: Sequence[Record]) -> dict[str, Baseline]:
    """Majority and TF-IDF, fitted on labelled records, by name."""
    labels = [truth(record) for record in train]
    unlabelled = [texts(record) for record in test]
    return {
        "majority": majority(labels, unlabelled),
        "tfidf": tfidf([texts(record) for record in train], labels, unlabelled, seed=0),
    }
