"""How far a score may be trusted: bootstrap intervals and paired comparisons.

All intervals are 95 % percentile bootstraps (Efron & Tibshirani 1993, chapter 13) over test items. They
cover the sampling of those items and nothing else: neither the seeds of training, nor the choice of
the training set. A score without any variation, 100 % right say, gets an interval of width 0.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pretune.errors import DataError
from pretune.metrics._scoring import check_aligned, signature
from pretune.metrics.base import Metric
from pretune.types import FloatArray, IntArray, Score

RESAMPLES = 2000
PAIRED_RESAMPLES = 10_000
OVER_RESAMPLES = 500
"""Of a metric that does not add up, which is computed anew of each set of records."""
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

    To draw n items with replacement and count the patterns among them is one multinomial draw. So the cost
    grows with the number of patterns (2 for right and wrong, C * C for a confusion matrix) instead of n.

    Args:
        counts: (patterns,) items of each kind in the test set; ones, where every item is its own kind.
        statistic: takes (resamples, patterns) counts, returns (resamples,) values.
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
    a: npt.ArrayLike, b: npt.ArrayLike, *, resamples: int = PAIRED_RESAMPLES, seed: int = SEED
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


@dataclass(frozen=True)
class Statistics:
    """The counts of a metric, record by record; records of equal counts are one pattern."""

    metric: Metric
    names: tuple[Hashable, ...]
    matrix: FloatArray
    """(patterns, K) the count of each name, of each pattern: there are far fewer patterns than records."""
    pattern_of: IntArray
    """(n,) which pattern each record has."""

    @classmethod
    def from_records(
        cls, metric: Metric, predictions: Sequence[Any], references: Sequence[Any]
    ) -> Statistics:
        """Count each record.

        Raises:
            DataError: the lengths differ, or there is nothing to score.
        """
        check_aligned(metric.name, predictions, references)
        assert metric.count is not None
        patterns: dict[frozenset[tuple[Hashable, float]], int] = {}
        names: dict[Hashable, int] = {}
        pattern_of = []
        for prediction, reference in zip(predictions, references, strict=True):
            counts = metric.count(prediction, reference)
            for name in counts:
                names.setdefault(name, len(names))
            pattern_of.append(patterns.setdefault(frozenset(counts.items()), len(patterns)))
        matrix = np.zeros((len(patterns), len(names)))
        for row, counted in zip(matrix, patterns, strict=True):
            for name, number in counted:
                row[names[name]] = number
        return cls(metric, tuple(names), matrix, np.array(pattern_of, np.int64))

    def value(self, draws: IntArray, rows: FloatArray) -> FloatArray:
        """(R,) values of (R, patterns) draws, how often each pattern is drawn; ``rows`` (patterns, K)."""
        assert self.metric.value is not None
        sums = draws.astype(np.float64) @ rows  # (R, K)
        return self.metric.value(dict(zip(self.names, sums.T, strict=True)))


def score(metric: Metric, predictions: Sequence[Any], references: Sequence[Any]) -> Score:
    """The score of predictions (n,) against references (n,), with a bootstrap interval.

    Raises:
        DataError: the lengths differ, or there is nothing to score.
    """
    check_aligned(metric.name, predictions, references)
    n = len(references)
    if metric.over is not None:
        value = metric.over(predictions, references)
        interval = _over_interval(metric, [predictions], [], references, OVER_RESAMPLES)
        how = f"{OVER_RESAMPLES},seed={SEED},percentile"
    else:
        statistics = Statistics.from_records(metric, predictions, references)
        counts = np.bincount(statistics.pattern_of)
        value = float(statistics.value(counts[None], statistics.matrix)[0])
        interval = bootstrap(counts, lambda draws: statistics.value(draws, statistics.matrix))
        how = BOOTSTRAP_SIGNATURE
    return Score(
        metric.name, value, n, signature(metric.name, n, **metric.settings, bootstrap=how),
        metric.direction, interval,
    )  # fmt: skip


def metric_value(metric: Metric, predictions: Sequence[Any], references: Sequence[Any]) -> float:
    """The value alone, without an interval: of a slice of the records.

    Raises:
        DataError: the lengths differ, or there is nothing to score.
    """
    if metric.over is not None:
        check_aligned(metric.name, predictions, references)
        return metric.over(predictions, references)
    statistics = Statistics.from_records(metric, predictions, references)
    return float(statistics.value(np.bincount(statistics.pattern_of)[None], statistics.matrix)[0])


def compare(
    metric: Metric,
    a: Sequence[Sequence[Any]],
    b: Sequence[Sequence[Any]],
    references: Sequence[Any],
    *,
    resamples: int = PAIRED_RESAMPLES,
    seed: int = SEED,
) -> PairedDifference:
    """How much better, by a metric, the runs of ``a`` are than those of ``b`` on the same records.

    A paired bootstrap: records are drawn, the same ones for all runs, the metric is computed of each run and
    averaged over seeds (Koehn 2004; Berg-Kirkpatrick et al. 2012). Positive is better in the metric's own
    direction, also of one whose lower value is better.

    Args:
        a: (seeds, n) predictions of each run.
        b: (seeds', n) those of the other system.
        references: (n,)
        resamples: how many sets of records to draw.
        seed: of the draws.

    Raises:
        DataError: the two were not scored on equally many records, or on none.
    """
    sign = 1.0 if metric.direction == "higher" else -1.0
    values = [[metric_value(metric, run, references) for run in runs] for runs in (a, b)]
    if metric.over is not None:
        low, high = _over_interval(metric, a, b, references, OVER_RESAMPLES)
    else:
        statistics = [[Statistics.from_records(metric, run, references) for run in runs] for runs in (a, b)]
        of_record = np.stack([one.pattern_of for runs in statistics for one in runs], 1)  # (n, runs)
        joint, counts = np.unique(of_record, axis=0, return_counts=True)  # (patterns, runs)
        columns = iter(joint.T)
        patterns = [[(one, one.matrix[next(columns)]) for one in runs] for runs in statistics]

        def difference(draws: IntArray) -> FloatArray:
            first, second = (np.mean([s.value(draws, rows) for s, rows in runs], axis=0) for runs in patterns)
            gain: FloatArray = first - second
            return gain

        low, high = bootstrap(counts, difference, resamples=resamples, seed=seed)
    stds = [float(np.std(found, ddof=1)) if len(found) > 1 else None for found in values]
    low, high = sorted((sign * low, sign * high))
    return PairedDifference(
        mean=sign * float(np.mean(values[0]) - np.mean(values[1])),
        interval=(low, high), n=len(references), seeds=(len(a), len(b)), seed_std=(stds[0], stds[1]),
    )  # fmt: skip


def _over_interval(
    metric: Metric,
    a: Sequence[Sequence[Any]],
    b: Sequence[Sequence[Any]],
    references: Sequence[Any],
    resamples: int,
) -> tuple[float, float]:
    """The interval of a metric that does not add up, or of a difference of two systems by it."""
    assert metric.over is not None
    rng, n = np.random.default_rng(SEED), len(references)
    found = []
    for _ in range(resamples):
        drawn = rng.integers(n, size=n)
        true = [references[i] for i in drawn]
        means = [
            float(np.mean([metric.over([run[i] for i in drawn], true) for run in runs])) if runs else 0.0
            for runs in (a, b)
        ]
        found.append(means[0] - means[1])
    low, high = np.nanquantile(found, [0.025, 0.975])
    return float(low), float(high)
