"""Metrics of labels against scikit-learn, their intervals and comparisons against a naive bootstrap."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from pretune.errors import DataError
from pretune.metrics.accuracy import ACCURACY, EXACT_MATCH
from pretune.metrics.base import Metric
from pretune.metrics.f1 import MACRO_F1, MICRO_F1, macro_f1_over
from pretune.metrics.label_sets import multi_hot
from pretune.metrics.matthews import MATTHEWS
from pretune.metrics.statistics import compare, metric_value, score

LABELS = ("a", "b", "c", "d", "e")
LABEL, SETS = st.sampled_from(LABELS), st.frozensets(st.sampled_from(LABELS[:3])).map(tuple)
SPEARMAN = Metric("spearman", {"en": "Spearman"}, over=lambda p, r: float(spearmanr(p, r).statistic))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(LABEL, LABEL), min_size=1, max_size=40))
def test_values_of_one_label_are_those_of_scikit_learn(pairs: list[tuple[str, str]]) -> None:
    predicted, true = [p for p, _ in pairs], [t for _, t in pairs]
    assert metric_value(ACCURACY, predicted, true) == pytest.approx(accuracy_score(true, predicted))
    expected = f1_score(true, predicted, average="macro", zero_division=0)
    found = score(MACRO_F1, predicted, true)
    assert found.value == pytest.approx(expected) == metric_value(MACRO_F1, predicted, true)
    assert found.interval is not None
    assert 0 <= found.interval[0] <= found.interval[1] <= 1
    expected = matthews_corrcoef(true, predicted)
    assert metric_value(MATTHEWS, predicted, true) == pytest.approx(expected, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(SETS, SETS), min_size=1, max_size=30))
def test_values_of_label_sets_are_those_of_scikit_learn(pairs: list[tuple[Any, Any]]) -> None:
    predicted, true = [p for p, _ in pairs], [t for _, t in pairs]
    said, held = multi_hot(predicted, LABELS[:3]), multi_hot(true, LABELS[:3])
    micro, macro = (f1_score(held, said, average=a, zero_division=0) for a in ("micro", "macro"))
    assert metric_value(MICRO_F1, predicted, true) == pytest.approx(micro)
    assert metric_value(macro_f1_over(LABELS[:3]), predicted, true) == pytest.approx(macro)
    sets = [[tuple(sorted(x)) for x in side] for side in (predicted, true)]
    assert metric_value(EXACT_MATCH, *sets) == pytest.approx(accuracy_score(held, said))


def sample(n: int) -> tuple[list[int], list[int]]:
    rng = np.random.default_rng(0)
    true = rng.choice(4, n, p=[0.6, 0.3, 0.08, 0.02])  # one label vanishes from many resamples
    return np.where(rng.random(n) < 0.7, true, rng.integers(4, size=n)).tolist(), true.tolist()


REFERENCES: dict[Metric | str, Callable[[Any, Any], float]] = {
    "accuracy": accuracy_score,
    "macro_f1": lambda t, p: f1_score(t, p, average="macro", zero_division=0),
    "mcc": matthews_corrcoef,
    "spearman": lambda t, p: float(spearmanr(t, p).statistic),
}


@pytest.mark.slow
@pytest.mark.parametrize("metric", [ACCURACY, MACRO_F1, MATTHEWS, SPEARMAN], ids=lambda m: m.name)
def test_intervals_are_those_of_drawing_records(metric: Metric) -> None:
    predicted, true = (np.array(x) for x in sample(150))
    other, reference = np.roll(predicted, 1), REFERENCES[metric.name]
    draws = np.random.default_rng(1).integers(150, size=(1500, 150))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        naive = [reference(true[d], predicted[d]) for d in draws]
        gains = [x - reference(true[d], other[d]) for x, d in zip(naive, draws, strict=True)]
    for values, interval in (
        (naive, score(metric, predicted.tolist(), true.tolist()).interval),
        (gains, compare(metric, [predicted.tolist()], [other.tolist()], true.tolist()).interval),
    ):
        low, high = np.quantile(values, [0.025, 0.975])
        # both ends are percentiles of 500 to 2,000 draws
        np.testing.assert_allclose(interval, (low, high), atol=0.15 * (high - low))


def test_seeds_are_averaged_and_the_direction_turns_the_sign() -> None:
    true = ["a", "b"] * 20
    good, bad = true, ["a"] * 40
    found = compare(ACCURACY, [good, bad], [bad], true)
    assert found.mean == pytest.approx(0.25)
    assert (found.seeds, found.n) == ((2, 1), 40)
    assert found.seed_std == (pytest.approx(np.std([1, 0.5], ddof=1)), None)
    assert 0 < found.interval[0] < found.mean < found.interval[1]
    errors = Metric(
        "errors", {}, lambda p, t: {"wrong": float(p != t), "n": 1.0}, lambda s: s["wrong"] / s["n"], "lower"
    )
    turned = compare(errors, [good, bad], [bad], true)
    assert turned.mean == pytest.approx(found.mean)
    assert turned.interval == pytest.approx(found.interval)
    assert compare(ACCURACY, [bad], [bad], true).interval == (0.0, 0.0)


def test_a_score_says_how_it_was_made() -> None:
    found = score(ACCURACY, ["x", "y"] * 500, ["x", "x"] * 500)
    assert found.n == 1000
    assert found.direction == "higher"
    assert found.signature.startswith("accuracy|n=1000|bootstrap=2000,seed=0,percentile|pretune=")
    assert found == score(ACCURACY, ["x", "y"] * 500, ["x", "x"] * 500)
    assert score(macro_f1_over("abc"), ["a"], ["b"]).signature.startswith("macro_f1|n=1|labels=3|")


def test_a_missing_word_is_the_name() -> None:
    assert ACCURACY.word("zh") == "准确率"
    assert SPEARMAN.word("zh") == "spearman"


def test_many_records_and_labels_stay_fast() -> None:
    rng = np.random.default_rng(0)
    true = rng.integers(50, size=20_000)
    said = np.where(rng.random(20_000) < 0.7, true, rng.integers(50, size=20_000))
    begin = time.process_time()
    score(MACRO_F1, said.tolist(), true.tolist())
    # drawing 2,000 x 20,000 records one by one takes far more
    assert time.process_time() - begin < 4


@pytest.mark.parametrize("metric", [ACCURACY, MACRO_F1, SPEARMAN], ids=lambda m: m.name)
def test_lists_that_do_not_pair_up(metric: Metric) -> None:
    with pytest.raises(DataError, match="1 predictions for 2 references"):
        score(metric, ["a"], ["a", "b"])
    with pytest.raises(DataError, match="nothing to score"):
        score(metric, [], [])
