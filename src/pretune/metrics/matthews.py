"""Matthews correlation: how far predicted and true labels go together, 0 where they do not at all."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from itertools import chain

import numpy as np

from pretune.metrics._scoring import check_aligned, signature
from pretune.metrics.statistics import BOOTSTRAP_SIGNATURE, bootstrap
from pretune.types import FloatArray, IntArray, Score


def matthews(
    predictions: Sequence[Hashable], references: Sequence[Hashable], *, language: str = "en"
) -> Score:
    """Score labels (n,) against labels (n,), with a bootstrap interval; ``language`` does not matter.

    The form for several classes (Gorodkin 2004, equation 8), which for two is Matthews (1975). It is 0, as in
    scikit-learn, where all predictions, or all true labels, are the same: unlike accuracy it gives nothing
    for saying the majority label throughout.

    Raises:
        DataError: the lengths differ, or there is nothing to score.
    """
    check_aligned("mcc", predictions, references)
    n = len(references)
    number = {label: i for i, label in enumerate(dict.fromkeys(chain(references, predictions)))}
    size = len(number)
    true = np.array([number[label] for label in references])
    predicted_ids = np.array([number[label] for label in predictions])
    cells, counts = np.unique(true * size + predicted_ids, return_counts=True)
    true, predicted_ids = np.divmod(cells, size)  # of each cell of the confusion matrix that is not empty
    in_true = (true[:, None] == np.arange(size)).astype(np.int64)  # (cells, C)
    in_predicted = (predicted_ids[:, None] == np.arange(size)).astype(np.int64)
    right = (true == predicted_ids).astype(np.int64)

    def statistic(drawn: IntArray) -> FloatArray:
        trues, saids = drawn @ in_true, drawn @ in_predicted  # (resamples, C)
        covariance = n * (drawn @ right) - (trues * saids).sum(1)
        variance_product = (n * n - (trues**2).sum(1)) * (n * n - (saids**2).sum(1)).astype(np.float64)
        scores: FloatArray = np.where(
            variance_product > 0, covariance / np.sqrt(np.maximum(variance_product, 1)), 0.0
        )
        return scores

    return Score(
        name="mcc",
        value=float(statistic(counts[None])[0]),
        n=n,
        signature=signature("mcc", n, labels=size, bootstrap=BOOTSTRAP_SIGNATURE),
        interval=bootstrap(counts, statistic),
    )
