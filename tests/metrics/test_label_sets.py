"""The threshold at which probabilities of labels become a set."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pretune.metrics.label_sets import best_threshold


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_no_other_threshold_gives_a_higher_f1(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shares = np.round(rng.random((rng.integers(1, 12), 3)), 1)  # many are equal
    true = (rng.random(shares.shape) < 0.4).astype(np.int64)
    found = best_threshold(shares, true)

    def f1(threshold: float) -> float:
        said = shares >= threshold
        return float(2 * (said & (true == 1)).sum() / max(1, said.sum() + true.sum()))

    assert f1(found) == pytest.approx(max(f1(threshold) for threshold in np.arange(0, 1.05, 0.05)))
