"""Differences over seeds equal scipy's confidence intervals of the t tests."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from pretune.errors import DataError
from pretune.metrics.seeds import seed_difference, seed_std


@pytest.mark.parametrize("sizes", [(2, 2), (3, 3), (3, 5), (8, 2)])
def test_welchs_interval_is_scipys(sizes: tuple[int, int]) -> None:
    draw = np.random.default_rng(sum(sizes))
    a, b = draw.normal(5, 0.1, sizes[0]).tolist(), draw.normal(5.2, 0.3, sizes[1]).tolist()
    found = seed_difference(a, b, paired=False)
    expected = stats.ttest_ind(a, b, equal_var=False).confidence_interval()
    assert found.interval == pytest.approx((expected.low, expected.high))
    assert found.mean == pytest.approx(np.mean(a) - np.mean(b))


@pytest.mark.parametrize("seeds", [2, 3, 7])
def test_the_paired_interval_is_scipys(seeds: int) -> None:
    draw = np.random.default_rng(seeds)
    a = draw.normal(5, 1, seeds)
    b = a + draw.normal(0.2, 0.05, seeds)
    found = seed_difference(a.tolist(), b.tolist(), paired=True)
    expected = stats.ttest_rel(a, b).confidence_interval()
    assert found.interval == pytest.approx((expected.low, expected.high))


def test_seeds_that_all_say_the_same_leave_no_doubt() -> None:
    assert seed_difference([1.0, 1.0], [0.5, 0.5], paired=False).interval == (0.5, 0.5)
    assert seed_difference([1.0, 1.0], [1.0, 1.0], paired=True).interval == (0.0, 0.0)
    assert seed_std([1.0]) is None
    assert seed_std([1.0, 3.0]) == pytest.approx(2**0.5)


def test_one_seed_has_no_interval() -> None:
    for a, b, paired in (([1.0], [1.0, 2.0], False), ([1.0, 2.0], [1.0, 2.0, 3.0], True)):
        with pytest.raises(DataError, match="two seeds or more"):
            seed_difference(a, b, paired=paired)
