"""Matthews correlation: how far predicted and true labels go together, 0 where they do not at all."""

from __future__ import annotations

from typing import Any

import numpy as np

from pretune.metrics.base import Counts, Metric, Sums
from pretune.types import FloatArray


def count_cell(prediction: Any, reference: Any) -> Counts:
    """A cell of the confusion matrix, by its sums: how often it is right, each label predicted and true."""
    return {
        "correct": float(prediction == reference),
        "n": 1.0,
        ("predicted", prediction): 1.0,
        ("true", reference): 1.0,
    }


def correlation(sums: Sums) -> FloatArray:
    """The form for several classes (Gorodkin 2004, equation 8), which for two is Matthews (1975).

    It is 0, as in scikit-learn, where all predictions, or all true labels, are the same: unlike accuracy it
    gives nothing for predicting the majority label throughout.
    """
    n = sums["n"]
    nothing = np.zeros_like(n)
    labels = sorted({name[1] for name in sums if isinstance(name, tuple)}, key=repr)
    product, predicted_squares, true_squares = nothing.copy(), nothing.copy(), nothing.copy()
    for label in labels:
        predicted, true = sums.get(("predicted", label), nothing), sums.get(("true", label), nothing)
        product += predicted * true
        predicted_squares += predicted**2
        true_squares += true**2
    covariance = n * sums["correct"] - product
    variances = (n * n - true_squares) * (n * n - predicted_squares)
    scores: FloatArray = np.where(variances > 0, covariance / np.sqrt(np.maximum(variances, 1)), 0.0)
    return scores


MATTHEWS = Metric("mcc", {"en": "Matthews correlation", "zh": "马修斯相关系数"}, count_cell, correlation)
