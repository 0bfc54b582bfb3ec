"""Spans of tags against seqeval, over random sequences of tags."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from seqeval import scheme as seqeval_schemes
from seqeval.metrics import accuracy_score, f1_score

from pretune.metrics.spans import CONLLEVAL_F1, SCHEMES, TAG_ACCURACY, Scheme, span_f1
from pretune.metrics.statistics import metric_value

PREFIXES = {"IOB2": "BI", "IOBES": "BIES", "BILOU": "BILU"}


def sequences(prefixes: str, seed: int) -> list[list[str]]:
    rng = np.random.default_rng(seed)
    tags = ["O", *(f"{prefix}-{name}" for prefix in prefixes for name in ("PER", "LOC"))]
    return [rng.choice(tags, size).tolist() for size in (1, 2, 3, 5, 8, 12) * 6]


def noisy(true: list[list[str]], seed: int) -> list[list[str]]:
    rng = np.random.default_rng(seed)
    tags = sorted({tag for tags in true for tag in tags})
    return [[tag if rng.random() < 0.8 else str(rng.choice(tags)) for tag in row] for row in true]


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("seed", range(25))
def test_strict_spans_are_those_of_seqeval(scheme: Scheme, seed: int) -> None:
    true = sequences(PREFIXES[scheme], seed)
    for predicted in (
        sequences(PREFIXES[scheme], seed + 100),
        noisy(true, seed),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = f1_score(
                true, predicted, mode="strict", scheme=getattr(seqeval_schemes, scheme), zero_division=0
            )
        assert metric_value(span_f1(scheme), predicted, true) == pytest.approx(theirs)


@pytest.mark.parametrize("seed", range(25))
def test_the_other_mode_is_seqevals_default(seed: int) -> None:
    true = sequences("BIES", seed)
    for predicted in (sequences("BIES", seed + 100), noisy(true, seed)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = f1_score(true, predicted, zero_division=0)
        assert metric_value(CONLLEVAL_F1, predicted, true) == pytest.approx(theirs)
    assert metric_value(TAG_ACCURACY, noisy(true, seed), true) == pytest.approx(
        accuracy_score(true, noisy(true, seed))
    )


def test_the_mode_is_named_in_the_signature_and_a_stray_tag_counts_in_one_alone() -> None:
    assert span_f1("IOB2").settings == {"mode": "strict", "scheme": "IOB2"}
    stray, true = [["O", "I-PER"]], [["O", "B-PER"]]
    assert metric_value(span_f1("IOB2"), stray, true) == 0
    assert metric_value(CONLLEVAL_F1, stray, true) == 1
