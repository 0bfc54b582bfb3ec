"""How far a score may be trusted: bootstrap intervals and paired comparisons.

All intervals are 95 % percentile bootstraps (Efron & Tibshirani 1993, chapter 13) over test items. They
cover the sampling of those items and nothing else: neither the seeds of training, nor the choice of
the training set. A score without any variation, 100 % right say, gets an interval of width 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pretune.errors import DataError
from pretune.types import FloatArray, IntArray

RESAMPLES = 2000
SEED = 0
BOOTSTRAP_SIGNATURE = f"{RESAMPLES},seed={SEED},percentile"
"""How the interval of a metric is made, for its signature."""

_NUMBERS_PER_CHUNK = 1 << 22  # 32 MB of int64


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """How much better ``a`` is than ``b`` on the same test items."""

    mean: float
    interval: tuple[float, float]
    """95 %, over test items, the trained models held fixed."""
    n: int
    """Test items."""
    seeds: tuple[int, int]
    """Runs of ``a`` and of ``b``."""
    seed_std: tuple[float | None, float | None]
    """Standard deviation of the score over the runs of ``a`` and of ``b``; None for a single run."""


def bootstrap(
    counts: IntArray,
    statistic: Callable[[IntArray], FloatArray],
    *,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> tuple[float, float]:
    """Percentile interval of a statistic that depends only on how often each kind of item occurs.

    To draw n items with replacement and count the kinds among them is one multinomial draw. So the cost
    grows with the number of kinds (2 for right and wrong, C * C for a confusion matrix) instead of n.

    Args:
        counts: (kinds,) items of each kind in the test set; ones, where every item is its own kind.
        statistic: takes (resamples, kinds) counts, returns (resamples,) values.
        resamples: how many test sets to draw.
        seed: of the draws; the same seed gives the same interval.

    Raises:
        DataError: there is no item.
    """
    counts = np.asarray(counts, dtype=np.int64)
    n = int(counts.sum())
    if n == 0:
        raise DataError("a bootstrap interval needs at least one item")
    rng = np.random.default_rng(seed)
    at_once = max(1, _NUMBERS_PER_CHUNK // len(counts))
    values = [
        statistic(rng.multinomial(n, counts / n, size=min(at_once, resamples - done)))
        for done in range(0, resamples, at_once)
    ]
    low, high = np.quantile(np.concatenate(values), [0.025, 0.975])
    return float(low), float(high)


def mean_interval(
    values: npt.ArrayLike, *, resamples: int = RESAMPLES, seed: int = SEED
) -> tuple[float, float]:
    """Percentile interval of the mean of ``values`` (n,), one number a test item.

    Raises:
        DataError: there is no value.
    """
    unique_values, counts = np.unique(np.asarray(values, dtype=np.float64), return_counts=True)
    n = counts.sum()
    return bootstrap(counts, lambda drawn: drawn @ unique_values / n, resamples=resamples, seed=seed)


def paired_difference(
    a: npt.ArrayLike, b: npt.ArrayLike, *, resamples: int = 10_000, seed: int = 0
) -> PairedDifference:
    """Compare two systems by a paired bootstrap over the test items that both were scored on.

    Scores are averaged over seeds first, then items are drawn, the same ones for both systems
    (Koehn 2004; Berg-Kirkpatrick et al. 2012). The interval therefore says what other test items could
    change, for these very models; ``spread`` says what other seeds changed.

    Args:
        a: (seeds, n) or (n,) score of each run on each item, 0 or 1 for wrong and right.
        b: (seeds', n) or (n,) the same of the other system; the number of seeds may differ.
        resamples: how many test sets to draw.
        seed: of the draws.

    Raises:
        DataError: the two were not scored on equally many items, or on none.
    """
    first = np.atleast_2d(np.asarray(a, dtype=np.float64))
    second = np.atleast_2d(np.asarray(b, dtype=np.float64))
    if (
        first.ndim != 2
        or second.ndim != 2
        or first.shape[1] != second.shape[1]
        or not first.size * second.size
    ):
        raise DataError(
            "a paired comparison needs (seeds, n) scores on the same items, "
            f"got {first.shape} and {second.shape}"
        )
    gains = first.mean(axis=0) - second.mean(axis=0)  # (n,)
    return PairedDifference(
        mean=float(gains.mean()),
        interval=mean_interval(gains, resamples=resamples, seed=seed),
        n=gains.size,
        seeds=(len(first), len(second)),
        seed_std=(_seed_std(first), _seed_std(second)),
    )


def _seed_std(scores: FloatArray) -> float | None:
    return float(scores.mean(axis=1).std(ddof=1)) if len(scores) > 1 else None
