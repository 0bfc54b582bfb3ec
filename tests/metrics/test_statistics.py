"""Bootstrap intervals against a naive bootstrap, their coverage, and the paired comparison."""

from __future__ import annotations

import numpy as np
import pytest

from pretune.errors import DataError
from pretune.metrics.statistics import bootstrap, mean_interval, paired_difference


def naive_interval(values: np.ndarray, resamples: int, seed: int) -> tuple[float, float]:
    rng = np.random.default_rng(seed)
    means = [rng.choice(values, len(values)).mean() for _ in range(resamples)]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


@pytest.mark.parametrize("kind", ["binary", "skewed"])
def test_mean_interval_is_that_of_drawing_items(kind: str) -> None:
    rng = np.random.default_rng(1)
    values = rng.random(300) < 0.7 if kind == "binary" else rng.exponential(size=300)
    expected = naive_interval(values.astype(float), 8000, seed=2)
    # the ends are percentiles of 8,000 draws: their own error is some 3 % of the width
    width = expected[1] - expected[0]
    np.testing.assert_allclose(mean_interval(values, resamples=8000), expected, atol=0.08 * width)


def test_intervals_cover_the_truth() -> None:
    rng = np.random.default_rng(3)
    trials = 300
    hits = 0
    for _ in range(trials):
        low, high = mean_interval(rng.random(200) < 0.7, resamples=400)
        hits += low <= 0.7 <= high
    # 95 % nominal; three standard errors of 300 trials, and a little under-coverage at n = 200
    assert 0.90 <= hits / trials <= 0.99


def test_the_seed_decides_and_the_memory_bound_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).random(50)
    first = mean_interval(values, seed=5)
    assert mean_interval(values, seed=5) == first
    assert mean_interval(values, seed=6) != first
    monkeypatch.setattr("pretune.metrics.statistics._NUMBERS_PER_CHUNK", 120)
    assert mean_interval(values, seed=5) == pytest.approx(first, abs=1e-12)


def test_no_variation_no_width() -> None:
    assert mean_interval([1, 1, 1]) == (1.0, 1.0)


def test_nothing_to_resample() -> None:
    with pytest.raises(DataError, match="at least one item"):
        bootstrap(np.array([0, 0]), lambda drawn: drawn[:, 0] / 1.0)


def test_paired_difference_uses_the_pairing() -> None:
    rng = np.random.default_rng(0)
    hard = rng.random(1000) < 0.5  # both fail on the same items
    a = ~hard
    b = ~hard & (rng.random(1000) < 0.95)
    result = paired_difference(a, b)
    assert result.mean == pytest.approx(a.mean() - b.mean())
    assert result.n == 1000
    assert result.seeds == (1, 1)
    assert result.seed_std == (None, None)
    assert 0 < result.interval[0] < result.mean < result.interval[1]
    # unpaired, the noise of the shared hard items would hide the gain
    unpaired = mean_interval(a)[1] - mean_interval(a)[0]
    assert result.interval[1] - result.interval[0] < 0.5 * unpaired


def test_paired_difference_averages_seeds_first() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.random((5, 400)) < 0.8, rng.random((3, 400)) < 0.8
    result = paired_difference(a, b)
    expected = naive_interval(a.mean(axis=0) - b.mean(axis=0), 4000, seed=1)
    np.testing.assert_allclose(result.interval, expected, atol=0.005)
    assert result.seeds == (5, 3)
    assert result.seed_std[0] == pytest.approx(a.mean(axis=1).std(ddof=1))
    mirrored = paired_difference(b, a)
    assert mirrored.mean == pytest.approx(-result.mean)


def test_paired_difference_of_a_system_with_itself_is_nothing() -> None:
    a = np.random.default_rng(0).random((2, 100)) < 0.5
    assert paired_difference(a, a).interval == (0.0, 0.0)


@pytest.mark.parametrize(("a", "b"), [([1, 0], [1]), ([], []), (np.ones((2, 2, 2)), np.ones((2, 2)))])
def test_paired_difference_refuses_other_items(a: object, b: object) -> None:
    with pytest.raises(DataError, match="same items"):
        paired_difference(a, b)  # type: ignore[arg-type]
