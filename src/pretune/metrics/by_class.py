"""Precision, recall and F1 of each class, and which classes are taken for which.

Both equal scikit-learn's: ``precision_recall_fscore_support(zero_division=0)``, ``confusion_matrix`` for one
label a record, ``multilabel_confusion_matrix`` for several.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pretune.errors import DataError
from pretune.metrics._scoring import check_aligned
from pretune.types import IntArray

MAX_CONFUSION_CLASSES = 256
"""Classes up to which there are counts, which grow with the square."""


@dataclass(frozen=True, slots=True)
class ClassScore:
    """How one class is recognised; a share of nothing is 0."""

    label: str
    precision: float
    recall: float
    f1: float
    support: int
    """Records that are of the class."""
    predicted: int
    """Records that are predicted to be."""


@dataclass(frozen=True, slots=True)
class ClassReport:
    """The scores of all classes, and the counts that they are made of."""

    scores: tuple[ClassScore, ...]
    confusion_counts: IntArray | None
    """(C, C) records of each true class (row) by predicted class (column). Of several labels a record
    (C, 2, 2): by label, records without and with it (row), predicted to be without and with it (column).
    None of more than :data:`MAX_CONFUSION_CLASSES` classes."""

    def as_dict(self) -> dict[str, Any]:
        """As it stands in summary.json."""
        labels = [score.label for score in self.scores]
        rows = {score.label: asdict(score) for score in self.scores}
        for row in rows.values():
            del row["label"]
        return {
            "by_class": rows,
            "confusion_matrix": None
            if self.confusion_counts is None
            else {"labels": labels, "counts": self.confusion_counts.tolist()},
        }


def class_report(predictions: Sequence[str], references: Sequence[str], labels: Sequence[str]) -> ClassReport:
    """Of one label a record; all must be among ``labels``.

    Raises:
        DataError: the lengths differ, there is nothing to score, or a label is not among ``labels``.
    """
    check_aligned("by class", predictions, references)
    number = {label: i for i, label in enumerate(labels)}
    unknown = next((label for label in (*predictions, *references) if label not in number), None)
    if unknown is not None:
        raise DataError(f"by class: the label {unknown!r:.80} is not among the {len(labels)} labels")
    true = np.array([number[label] for label in references])
    predicted_ids = np.array([number[label] for label in predictions])
    size = len(labels)
    hits, support, predicted = (
        np.bincount(x, minlength=size) for x in (true[true == predicted_ids], true, predicted_ids)
    )
    counts = None
    if size <= MAX_CONFUSION_CLASSES:
        counts = np.bincount(true * size + predicted_ids, minlength=size * size).reshape(size, size)
    return ClassReport(_scores(labels, hits, support, predicted), counts)


def multi_label_report(predictions: IntArray, references: IntArray, labels: Sequence[str]) -> ClassReport:
    """Of several labels a record.

    Args:
        predictions: (n, C) 0 or 1.
        references: (n, C) 0 or 1.
        labels: the C labels.

    Raises:
        DataError: the shapes differ, or there is nothing to score.
    """
    predicted_sets, true = np.asarray(predictions, np.int64), np.asarray(references, np.int64)
    if (
        predicted_sets.shape != true.shape
        or predicted_sets.ndim != 2
        or not predicted_sets.size
        or predicted_sets.shape[1] != len(labels)
    ):
        raise DataError(
            f"by label: needs (records, {len(labels)} labels) of both, got {predicted_sets.shape} and "
            f"{true.shape}"
        )
    hits, support, predicted = (predicted_sets * true).sum(0), true.sum(0), predicted_sets.sum(0)  # (C,)
    neither = len(true) - support - predicted + hits
    counts = np.stack([neither, predicted - hits, support - hits, hits], 1).reshape(-1, 2, 2)
    small = len(labels) <= MAX_CONFUSION_CLASSES
    return ClassReport(_scores(labels, hits, support, predicted), counts if small else None)


def _scores(
    labels: Sequence[str], hits: IntArray, support: IntArray, predicted: IntArray
) -> tuple[ClassScore, ...]:
    return tuple(
        ClassScore(label, _ratio(h, p), _ratio(h, s), _ratio(2 * h, s + p), int(s), int(p))
        for label, h, s, p in zip(labels, hits, support, predicted, strict=True)
    )


def _ratio(numerator: int, denominator: int) -> float:
    return float(numerator / denominator) if denominator else 0.0
