"""Accuracy and macro F1 against scikit-learn, and their intervals against a naive bootstrap."""

from __future__ import annotations

import time
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score

from pretune.errors import DataError
from pretune.metrics.accuracy import accuracy
from pretune.metrics.macro_f1 import macro_f1

LABELS = st.sampled_from(["a", "b", "c", "d", "e"])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(LABELS, LABELS), min_size=1, max_size=40))
def test_values_are_those_of_scikit_learn(pairs: list[tuple[str, str]]) -> None:
    said, true = [p for p, _ in pairs], [t for _, t in pairs]
    assert accuracy(said, true).value == pytest.approx(accuracy_score(true, said))
    expected = f1_score(true, said, average="macro", zero_division=0)
    score = macro_f1(said, true)
    assert score.value == pytest.approx(expected)
    assert score.interval is not None
    assert 0 <= score.interval[0] <= score.interval[1] <= 1


@pytest.mark.slow
def test_macro_f1_interval_is_that_of_drawing_items() -> None:
    rng = np.random.default_rng(0)
    # one label is rare enough to vanish from many resamples
    true = rng.choice(4, 150, p=[0.6, 0.3, 0.08, 0.02])
    said = np.where(rng.random(150) < 0.7, true, rng.integers(4, size=150))
    draws = rng.integers(150, size=(1500, 150))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        naive = [f1_score(true[d], said[d], average="macro", zero_division=0) for d in draws]
    low, high = np.quantile(naive, [0.025, 0.975])
    score = macro_f1(said.tolist(), true.tolist())
    # both ends are percentiles of about 2,000 draws
    np.testing.assert_allclose(score.interval, (low, high), atol=0.1 * (high - low))


def test_a_score_says_how_it_was_made() -> None:
    score = accuracy(["x", "y"] * 500, ["x", "x"] * 500, language="zh")
    assert score.n == 1000
    assert score.direction == "higher"
    assert score.signature.startswith("accuracy|n=1000|bootstrap=2000,seed=0,percentile|pretune=")
    assert score == accuracy(["x", "y"] * 500, ["x", "x"] * 500)
    assert macro_f1([1, 2], [1, 3]).signature.startswith("macro_f1|n=2|labels=3|")


def test_many_items_and_labels_stay_fast() -> None:
    rng = np.random.default_rng(0)
    true = rng.integers(50, size=20_000)
    said = np.where(rng.random(20_000) < 0.7, true, rng.integers(50, size=20_000))
    begin = time.process_time()
    macro_f1(said.tolist(), true.tolist())
    # 0.3 s on one core; drawing 2,000 x 20,000 items one by one takes far more
    assert time.process_time() - begin < 3


@pytest.mark.parametrize("metric", [accuracy, macro_f1])
def test_lists_that_do_not_pair_up(metric: object) -> None:
    with pytest.raises(DataError, match="1 predictions for 2 references"):
        metric(["a"], ["a", "b"])  # type: ignore[operator]
    with pytest.raises(DataError, match="nothing to score"):
        metric([], [])  # type: ignore[operator]
