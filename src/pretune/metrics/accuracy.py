"""Accuracy: the share of items whose predicted label is the true one."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from pretune.metrics._scoring import check_aligned, signature
from pretune.metrics.statistics import BOOTSTRAP_SIGNATURE, bootstrap
from pretune.types import Score


def accuracy(
    predictions: Sequence[Hashable], references: Sequence[Hashable], *, language: str = "en"
) -> Score:
    """Score labels (n,) against labels (n,), with a bootstrap interval; ``language`` does not matter.

    Raises:
        DataError: the lengths differ, or there is nothing to score.
    """
    check_aligned("accuracy", predictions, references)
    n = len(references)
    right = sum(predicted == true for predicted, true in zip(predictions, references, strict=True))
    return Score(
        name="accuracy",
        value=right / n,
        n=n,
        signature=signature("accuracy", n, bootstrap=BOOTSTRAP_SIGNATURE),
        interval=bootstrap(np.array([n - right, right]), lambda drawn: drawn[:, 1] / n),
    )
