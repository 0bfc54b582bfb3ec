"""Scores of sets of labels: micro F1, macro F1 and exact match, each over 0 and 1 of records by labels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from pretune.errors import DataError
from pretune.metrics._scoring import signature
from pretune.metrics.statistics import BOOTSTRAP_SIGNATURE, bootstrap
from pretune.types import FloatArray, IntArray, Score


def multi_hot(sets: Sequence[Iterable[str]], labels: Sequence[str]) -> IntArray:
    """(n, C) 1 where a set holds a label; all labels of the sets must be among ``labels``."""
    number = {label: i for i, label in enumerate(labels)}
    held = np.zeros((len(sets), len(labels)), np.int64)
    for row, members in zip(held, sets, strict=True):
        row[[number[label] for label in members]] = 1
    return held


def micro_f1(predictions: IntArray, references: IntArray, *, language: str = "en") -> Score:
    """F1 of all (record, label) decisions together; 0 where nothing is said and nothing true.

    Args:
        predictions: (n, C) 0 or 1.
        references: (n, C) 0 or 1.
        language: does not matter.

    Raises:
        DataError: the shapes differ, or there is nothing to score.
    """
    return _score_with_interval("micro_f1", predictions, references, _micro)


def macro_f1(predictions: IntArray, references: IntArray, *, language: str = "en") -> Score:
    """The F1 of each label, averaged over all labels; a label neither said nor true counts 0.

    So in scikit-learn with ``zero_division=0``. Arguments and errors as in :func:`micro_f1`.
    """
    return _score_with_interval("macro_f1", predictions, references, _macro)


def exact_match(predictions: IntArray, references: IntArray, *, language: str = "en") -> Score:
    """The share of records of which every label is right (subset accuracy).

    Arguments and errors as in :func:`micro_f1`.
    """
    return _score_with_interval("exact_match", predictions, references, _exact)


Statistic = Callable[[FloatArray, FloatArray, FloatArray], FloatArray]
"""Draws of each kind of record, (resamples, kinds), what is said and true, (kinds, C), to (resamples,)."""


def _micro(resampled: FloatArray, predicted: FloatArray, references: FloatArray) -> FloatArray:
    hits, marks = resampled @ (predicted * references).sum(1), resampled @ (predicted + references).sum(1)
    f1: FloatArray = 2 * hits / np.maximum(marks, 1)
    return f1


def _macro(resampled: FloatArray, predicted: FloatArray, references: FloatArray) -> FloatArray:
    mean: FloatArray = (
        2 * (resampled @ (predicted * references)) / np.maximum(resampled @ (predicted + references), 1)
    ).mean(1)
    return mean


def _exact(resampled: FloatArray, predicted: FloatArray, references: FloatArray) -> FloatArray:
    share: FloatArray = resampled @ (predicted == references).all(1) / resampled.sum(1)
    return share


def _score_with_interval(
    name: str, predictions: IntArray, references: IntArray, statistic: Statistic
) -> Score:
    predicted, true = np.asarray(predictions, np.int64), np.asarray(references, np.int64)
    if predicted.shape != true.shape or predicted.ndim != 2 or not predicted.size:
        raise DataError(f"{name}: needs (records, labels) of both, got {predicted.shape} and {true.shape}")
    n, labels = true.shape
    # Records that are alike in all are drawn as one kind: there are far fewer of them than records.
    unique_rows, counts = np.unique(np.hstack([predicted, true]), axis=0, return_counts=True)
    saids, trues = unique_rows[:, :labels].astype(np.float64), unique_rows[:, labels:].astype(np.float64)

    def value(drawn: IntArray) -> FloatArray:
        return statistic(drawn.astype(np.float64), saids, trues)

    return Score(
        name=name,
        value=float(value(counts[None])[0]),
        n=n,
        signature=signature(name, n, labels=labels, bootstrap=BOOTSTRAP_SIGNATURE),
        interval=bootstrap(counts, value),
    )


def best_threshold(probabilities: FloatArray, references: IntArray) -> float:
    """The threshold, one for all labels, at which micro F1 is highest; 0.5 where none gives any.

    It lies halfway between two probabilities that occur, and among equals it is the highest.

    Args:
        probabilities: (n, C)
        references: (n, C) 0 or 1.
    """
    order = np.argsort(-probabilities, axis=None, kind="stable")
    shares, true = probabilities.ravel()[order], references.ravel()[order]
    f1 = 2 * np.cumsum(true) / (np.arange(1, len(true) + 1) + true.sum())
    last = np.append(shares[1:] < shares[:-1], True)  # equal probabilities fall on the same side
    f1 = np.where(last, f1, -1.0)
    best = int(np.argmax(f1))
    if f1[best] <= 0:
        return 0.5
    below = shares[best + 1] if best + 1 < len(shares) else 0.0
    return float((shares[best] + below) / 2)
