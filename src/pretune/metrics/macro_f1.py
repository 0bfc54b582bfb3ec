"""Macro F1: the F1 of each label, averaged with equal weight."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from itertools import chain

import numpy as np

from pretune.metrics._scoring import check_aligned, signature
from pretune.metrics.statistics import BOOTSTRAP_SIGNATURE, bootstrap
from pretune.types import FloatArray, IntArray, Score


def macro_f1(
    predictions: Sequence[Hashable], references: Sequence[Hashable], *, language: str = "en"
) -> Score:
    """Score labels (n,) against labels (n,), with a bootstrap interval; ``language`` does not matter.

    The labels are those that occur in the references or in the predictions, as in scikit-learn; so a
    resample in which a label does not occur averages over the others. With hundreds of rare labels
    resampling pulls the value down, and the percentile interval may lie below it.

    Raises:
        DataError: the lengths differ, or there is nothing to score.
    """
    check_aligned("macro_f1", predictions, references)
    n = len(references)
    number = {label: i for i, label in enumerate(dict.fromkeys(chain(references, predictions)))}
    true = np.array([number[label] for label in references])
    predicted_ids = np.array([number[label] for label in predictions])
    cells, counts = np.unique(true * len(number) + predicted_ids, return_counts=True)
    true, predicted_ids = np.divmod(
        cells, len(number)
    )  # of each cell of the confusion matrix that is not empty

    def statistic(drawn: IntArray) -> FloatArray:
        hits = _sum_by_label(drawn * (true == predicted_ids), true, len(number))  # (resamples, C)
        support = _sum_by_label(drawn, true, len(number)) + _sum_by_label(drawn, predicted_ids, len(number))
        f1 = 2 * hits / np.maximum(support, 1)
        mean: FloatArray = f1.sum(axis=1) / (support > 0).sum(axis=1)
        return mean

    return Score(
        name="macro_f1",
        value=float(statistic(counts[None])[0]),
        n=n,
        signature=signature("macro_f1", n, labels=len(number), bootstrap=BOOTSTRAP_SIGNATURE),
        interval=bootstrap(counts, statistic),
    )


def _sum_by_label(resampled: IntArray, labels: IntArray, size: int) -> IntArray:
    """Add up the columns of ``resampled`` (resamples, cells) that share a label: (resamples, size)."""
    order = np.argsort(labels, kind="stable")
    present, starts = np.unique(labels[order], return_index=True)
    sums = np.zeros((len(resampled), size), dtype=np.int64)
    sums[:, present] = np.add.reduceat(resampled[:, order], starts, axis=1)
    return sums
