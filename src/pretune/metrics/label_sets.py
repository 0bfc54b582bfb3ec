"""Sets of labels as a matrix of 0 and 1, and the threshold at which probabilities become such a set."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from pretune.types import FloatArray, IntArray


def multi_hot(sets: Sequence[Iterable[str]], labels: Sequence[str]) -> IntArray:
    """(n, C) 1 where a set holds a label; all labels of the sets must be among ``labels``."""
    number = {label: i for i, label in enumerate(labels)}
    held = np.zeros((len(sets), len(labels)), np.int64)
    for row, members in zip(held, sets, strict=True):
        row[[number[label] for label in members]] = 1
    return held


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
