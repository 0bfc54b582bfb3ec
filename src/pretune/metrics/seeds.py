"""Runs that differ in their seed alone: their spread, and the difference of two settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from pretune.errors import DataError


@dataclass(frozen=True, slots=True)
class SeedDifference:
    """By how much the mean of ``a`` is above that of ``b``, over seeds."""

    mean: float
    interval: tuple[float, float]
    """95 %, of Student's t."""
    paired: bool


def seed_std(values: Sequence[float]) -> float | None:
    """Standard deviation over seeds; None for a single run."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def seed_difference(a: Sequence[float], b: Sequence[float], *, paired: bool) -> SeedDifference:
    """The difference of means of two settings' scores, one a seed.

    ``paired``: value k of both is of the same seed, and the interval is that of their differences; otherwise
    it is Welch's, for two samples of unequal variance (Welch 1947).

    Raises:
        DataError: fewer than two seeds of one, or different numbers of seeds that are to be paired.
    """
    first, second = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if min(len(first), len(second)) < 2 or (paired and len(first) != len(second)):
        raise DataError(
            "a difference over seeds needs two seeds or more of both, and as many of each to pair them; "
            f"got {len(first)} and {len(second)}"
        )
    mean = float(first.mean() - second.mean())
    if paired:
        error, freedom = _standard_error(first - second), len(first) - 1.0
    else:
        errors = _standard_error(first), _standard_error(second)
        error = float(np.hypot(*errors))
        terms = (e**4 / (len(x) - 1) for e, x in zip(errors, (first, second), strict=True))
        freedom = error**4 / (sum(terms) or 1.0) or 1.0
    half = float(stdtrit(freedom, 0.975)) * error
    return SeedDifference(mean, (mean - half, mean + half), paired)


def _standard_error(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> float:
    return float(values.std(ddof=1) / np.sqrt(len(values)))
