"""The scores of a language-model loss: units, intervals, refusals."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pretune.errors import DataError
from pretune.metrics.cross_entropy import cross_entropy


def test_a_uniform_model_of_bytes_has_eight_bits_a_byte() -> None:
    loss, perplexity, bits = cross_entropy(100 * math.log(256), 100, tokenizer="bytes", text_bytes=100)
    assert (loss.name, perplexity.name, bits.name) == ("loss", "perplexity", "bits_per_byte")
    assert loss.value == pytest.approx(math.log(256))
    assert perplexity.value == pytest.approx(256)
    assert bits.value == pytest.approx(8)
    for score in (loss, perplexity, bits):
        assert score.n == 100
        assert score.direction == "lower"
        assert score.interval is None
        assert "tokenizer=bytes" in score.signature
        assert "bootstrap" not in score.signature


def test_long_documents_weigh_more() -> None:
    scores = cross_entropy([10.0, 90.0], [10, 30], tokenizer="t")
    assert [s.name for s in scores] == ["loss", "perplexity"]
    assert scores[0].value == pytest.approx(100 / 40)
    assert scores[0].n == 40


def test_intervals_are_over_documents() -> None:
    rng = np.random.default_rng(0)
    targets = rng.integers(20, 200, size=80)
    nats = targets * rng.normal(4, 0.5, size=80)
    loss, perplexity, bits = cross_entropy(nats, targets, tokenizer="t", text_bytes=targets * 4)
    draws = rng.integers(80, size=(4000, 80))
    low, high = np.quantile(nats[draws].sum(1) / targets[draws].sum(1), [0.025, 0.975])
    assert loss.interval is not None
    np.testing.assert_allclose(loss.interval, (low, high), atol=0.1 * (high - low))
    np.testing.assert_allclose(perplexity.interval, np.exp(loss.interval))
    np.testing.assert_allclose(bits.interval, np.array(loss.interval) / math.log(2) / 4)


def test_documents_without_targets_do_not_matter() -> None:
    assert cross_entropy([5.0, 0.0], [5, 0], tokenizer="t")[0].interval is None
    assert cross_entropy([5.0, 8.0, 0.0], [5, 4, 0], tokenizer="t")[0].interval is not None


def test_a_diverged_model_has_an_infinite_perplexity() -> None:
    assert cross_entropy(1e6, 1, tokenizer="t")[1].value == math.inf


@pytest.mark.parametrize(
    ("nats", "targets", "text_bytes", "reason"),
    [
        (1.0, 0, None, "above 0"),
        ([1.0, 2.0], [1], None, "shape"),
        ([[1.0]], [[1]], None, "shape"),
        ([1.0, 2.0], [3, -1], None, "above 0"),
        (1.0, 1, 0, "above 0"),
    ],
)
def test_refusals(nats: object, targets: object, text_bytes: object, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        cross_entropy(nats, targets, tokenizer="t", text_bytes=text_bytes)  # type: ignore[arg-type]
