"""The n-gram baselines: proper, equal to a naive implementation, bounded in memory."""

from __future__ import annotations

import math
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pretune.baselines.ngrams import NgramBaselines
from pretune.errors import DataError

V = 12
DOCUMENTS = st.lists(st.lists(st.integers(0, V - 3), max_size=30), min_size=1, max_size=6).filter(any)


class Naive:
    """Chen & Goodman's formulas in dictionaries, a token at a time."""

    def __init__(self, documents: list[list[int]], size: int) -> None:
        self.size = size
        self.pairs: dict[object, Counter[int]] = defaultdict(Counter)
        for document in documents:
            for previous, target in zip([-1, *document], document, strict=False):
                self.pairs[previous][target] += 1
        self.tokens: Counter[int] = Counter()
        self.contexts: Counter[int] = Counter()
        for row in self.pairs.values():
            self.tokens.update(row)
            self.contexts.update(row.keys())
        self.discount = self.estimate(c for row in self.pairs.values() for c in row.values())

    @staticmethod
    def estimate(counts: object) -> float:
        seen = Counter(counts)  # type: ignore[call-overload]
        return seen[1] / (seen[1] + 2 * seen[2]) if seen[1] else 0.5

    def lower(self, counts: Counter[int], target: int) -> float:
        discount = self.estimate(counts.values())
        total = sum(counts.values())
        return max(counts[target] - discount, 0) / total + discount * len(counts) / total / self.size

    def unigram(self, target: int) -> float:
        return self.lower(self.tokens, target)

    def bigram(self, previous: int, target: int) -> float:
        backed_off = self.lower(self.contexts, target)
        row = self.pairs.get(previous)
        if row is None:
            return backed_off
        total = sum(row.values())
        kept = max(row[target] - self.discount, 0) if target in row else 0.0
        return kept / total + self.discount * len(row) / total * backed_off


def grid() -> tuple[np.ndarray, np.ndarray]:
    """Every context, the start and unseen ones included, with every target."""
    previous, targets = np.meshgrid(np.arange(-1, V), np.arange(V), indexing="ij")
    return previous.ravel(), targets.ravel()


@settings(max_examples=60, deadline=None)
@given(DOCUMENTS)
def test_equal_to_the_naive_implementation(documents: list[list[int]]) -> None:
    model = NgramBaselines.fit(documents, V)
    naive = Naive(documents, V)
    previous, targets = grid()
    expected = [-math.log(naive.bigram(p, t)) for p, t in zip(previous, targets, strict=True)]
    np.testing.assert_allclose(model.bigram_nll(previous, targets), expected, rtol=1e-10)
    expected = [-math.log(naive.unigram(t)) for t in range(V)]
    np.testing.assert_allclose(model.unigram_nll(np.arange(V)), expected, rtol=1e-10)


@settings(max_examples=60, deadline=None)
@given(DOCUMENTS, st.sampled_from([None, 0, V - 1]))
def test_sums_to_one_in_every_context(documents: list[list[int]], start: int | None) -> None:
    documents = [*documents, [1]]  # a document of the start token alone holds no target
    model = NgramBaselines.fit(documents, V, bos_id=start)
    previous, targets = grid()
    sums = np.exp(-model.bigram_nll(previous, targets)).reshape(V + 1, V).sum(axis=1)
    np.testing.assert_allclose(sums, 1, rtol=1e-12)
    assert np.exp(-model.unigram_nll(np.arange(V))).sum() == pytest.approx(1)


def test_figures_of_nltk() -> None:
    # nltk 3.10.4, KneserNeyInterpolated(2, discount=0.8), <s> before each text; its lower order
    # is not smoothed, so it replaces ours before comparing
    texts = [[1, 2, 3, 1, 2, 4, 1, 2, 3, 5, 2, 3, 1, 5], [2, 3, 3, 1, 4], [1, 2]]
    lower = np.array([0, 1 / 4, 1 / 4, 1 / 6, 1 / 6, 1 / 6])
    scores = {
        -1: [0.0, 0.533333, 0.2, 0.088889, 0.088889, 0.088889],
        1: [0.0, 0.1, 0.633333, 0.066667, 0.1, 0.1],
        2: [0.0, 0.08, 0.08, 0.693333, 0.093333, 0.053333],
        3: [0.0, 0.56, 0.12, 0.12, 0.08, 0.12],
        4: [0.0, 0.4, 0.2, 0.133333, 0.133333, 0.133333],
        5: [0.0, 0.2, 0.4, 0.133333, 0.133333, 0.133333],
    }
    model = NgramBaselines.fit(texts, 6)
    targets = np.arange(6)
    ours_lower = np.exp(-model.bigram_nll(np.zeros(6, dtype=int), targets))  # 0 was never seen
    for context, expected in scores.items():
        ours = np.exp(-model.bigram_nll(np.full(6, context), targets))
        backoff = ours[0] / ours_lower[0]
        np.testing.assert_allclose(ours + backoff * (lower - ours_lower), expected, atol=1e-6)


def test_no_pair_spans_two_documents() -> None:
    apart = NgramBaselines.fit([[1, 2], [3, 4]] * 3, V)
    together = NgramBaselines.fit([[1, 2, 3, 4]] * 3, V)
    assert apart.bigram_nll([2], [3])[0] > together.bigram_nll([2], [3])[0]


def test_the_start_token_is_context_and_no_target() -> None:
    model = NgramBaselines.fit([[0, 1, 2], [0, 1, 3]], V, bos_id=0)
    plain = NgramBaselines.fit([[1, 2], [1, 3]], V)
    targets = np.arange(V)
    np.testing.assert_array_equal(model.unigram_nll(targets), plain.unigram_nll(targets))
    for context in (-1, 0):
        np.testing.assert_array_equal(
            model.bigram_nll(np.full(V, context), targets), plain.bigram_nll(np.full(V, -1), targets)
        )


def test_chunks_do_not_change_the_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    documents = [rng.zipf(1.5, size=n).clip(max=99) for n in rng.integers(0, 80, size=60)]
    whole = NgramBaselines.fit(documents, 100)
    monkeypatch.setattr("pretune.baselines.ngrams._PAIRS_PER_CHUNK", 100)
    chunks = NgramBaselines.fit(iter(documents), 100)
    targets = np.arange(100)
    np.testing.assert_array_equal(chunks.unigram_probabilities, whole.unigram_probabilities)
    for previous in range(-1, 100):
        contexts = np.full(100, previous)
        np.testing.assert_array_equal(
            chunks.bigram_nll(contexts, targets), whole.bigram_nll(contexts, targets)
        )


def test_bigram_learns_what_a_markov_chain_has_to_teach() -> None:
    rng = np.random.default_rng(0)
    size, n = 50, 60_000
    transitions = rng.dirichlet(np.full(size, 0.05), size=size)
    tokens = [0]
    sums = transitions.cumsum(axis=1)
    for draw in rng.random(n):
        tokens.append(min(int(np.searchsorted(sums[tokens[-1]], draw)), size - 1))
    train, test = np.array(tokens[: n // 2]), np.array(tokens[n // 2 :])
    model = NgramBaselines.fit([train], size)
    entropy = -np.log(transitions[test[:-1], test[1:]]).mean()
    bigram = model.bigram_nll(test[:-1], test[1:]).mean()
    assert entropy - 0.01 < bigram < entropy + 0.05
    assert model.unigram_nll(test[1:]).mean() > bigram + 0.5


def test_refusals() -> None:
    with pytest.raises(DataError, match="document 1"):
        NgramBaselines.fit([[1], [V]], V)
    with pytest.raises(DataError, match="at least one training token"):
        NgramBaselines.fit([[], [0]], V, bos_id=0)
    model = NgramBaselines.fit([[1, 2]], V)
    with pytest.raises(DataError, match=r"0\.\.11"):
        model.unigram_nll([-1])
    with pytest.raises(DataError, match=r"-1\.\.11"):
        model.bigram_nll([-2], [0])
