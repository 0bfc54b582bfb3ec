"""Scores of sets of labels, and Matthews correlation, against scikit-learn and a naive bootstrap."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from pretune.errors import DataError
from pretune.metrics.label_sets import best_threshold, exact_match, macro_f1, micro_f1, multi_hot
from pretune.metrics.matthews import matthews

LABELS = ("a", "b", "c")
SETS = st.frozensets(st.sampled_from(LABELS))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(SETS, SETS), min_size=1, max_size=30))
def test_values_are_those_of_scikit_learn(pairs: list[tuple[frozenset[str], frozenset[str]]]) -> None:
    said, true = (multi_hot([pair[side] for pair in pairs], LABELS) for side in (0, 1))
    assert micro_f1(said, true).value == pytest.approx(f1_score(true, said, average="micro", zero_division=0))
    assert macro_f1(said, true).value == pytest.approx(f1_score(true, said, average="macro", zero_division=0))
    assert exact_match(said, true).value == pytest.approx(accuracy_score(true, said))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from("abcd")), min_size=1, max_size=40))
def test_matthews_is_that_of_scikit_learn(pairs: list[tuple[str, str]]) -> None:
    said, true = [p for p, _ in pairs], [t for _, t in pairs]
    assert matthews(said, true).value == pytest.approx(matthews_corrcoef(true, said), abs=1e-12)


@pytest.mark.slow
def test_intervals_are_those_of_drawing_records() -> None:
    rng = np.random.default_rng(0)
    true = (rng.random((120, 4)) < [0.5, 0.3, 0.1, 0.03]).astype(np.int64)
    said = np.where(rng.random(true.shape) < 0.85, true, 1 - true)
    draws = rng.integers(120, size=(1500, 120))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for score, reference in (
            (micro_f1(said, true), lambda t, s: f1_score(t, s, average="micro", zero_division=0)),
            (macro_f1(said, true), lambda t, s: f1_score(t, s, average="macro", zero_division=0)),
            (exact_match(said, true), accuracy_score),
            (
                matthews(said[:, 0].tolist(), true[:, 0].tolist()),
                lambda t, s: matthews_corrcoef(t[:, 0], s[:, 0]),
            ),
        ):
            naive = np.quantile([reference(true[d], said[d]) for d in draws], [0.025, 0.975])
            # both ends are percentiles of about 2,000 draws
            np.testing.assert_allclose(score.interval, naive, atol=0.1 * (naive[1] - naive[0]))


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


def test_shapes_that_differ_are_refused() -> None:
    with pytest.raises(DataError, match="micro_f1: needs"):
        micro_f1(np.zeros((2, 3), np.int64), np.zeros((2, 2), np.int64))
    with pytest.raises(DataError, match="exact_match: needs"):
        exact_match(np.zeros((0, 3), np.int64), np.zeros((0, 3), np.int64))
