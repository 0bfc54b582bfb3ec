"""The baselines of a task with several labels a record: majority, and TF-IDF, one label at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from scipy.sparse import csr_matrix
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from pretune.baselines.base import Baseline
from pretune.baselines.tfidf import FOLDS, STRENGTHS, Counted, Terms, weighted
from pretune.errors import DataError
from pretune.metrics.label_sets import best_threshold, indicators
from pretune.tasks.multi_label_classification import texts, truth
from pretune.types import FloatArray, IntArray, Record

Features: TypeAlias = "csr_matrix | FloatArray"


def baselines(train: Sequence[Record], test: Sequence[Record]) -> dict[str, Baseline]:
    """Majority and TF-IDF, fitted on labelled records, by name."""
    labels = sorted({label for record in train for label in truth(record)})
    held = indicators([truth(record) for record in train], labels)
    return {
        "majority": majority(held, labels, len(test)),
        "tfidf": tfidf([texts(r) for r in train], held, labels, [texts(r) for r in test], seed=0),
    }


def majority(held: IntArray, labels: Sequence[str], tests: int) -> Baseline:
    """Say of each label what is true of most training records: of rare labels nothing.

    Raises:
        DataError: there is no training record.
    """
    if not len(held):
        raise DataError("the majority baseline needs at least one training record")
    said = tuple(label for label, share in zip(labels, held.mean(0), strict=True) if share > 0.5)
    named = ", ".join(said) or "no label"
    return Baseline((said,) * tests, f"what holds of most training records ({named})")


def tfidf(
    train_texts: Sequence[tuple[str, ...]],
    held: IntArray,
    labels: Sequence[str],
    test_texts: Sequence[tuple[str, ...]],
    *,
    seed: int,
) -> Baseline:
    """TF-IDF and a logistic regression a label, with one penalty and one threshold for all.

    Both are those of the best micro F1 on a fifth of the training records that is held out for it.

    Args:
        held: (n, C) 0 or 1, which label each training text has.

    Raises:
        DataError: there is no test text, or no training text holds a word.
    """
    if not test_texts:
        raise DataError("TF-IDF baseline: there is no test text")
    terms = Terms.of(train_texts, test_texts)
    with threadpool_limits(1):
        strength, threshold = _tuned(terms.train, held, seed)
        features, others = weighted(terms.train, terms.test)
        shares = _shares(features, held, others, strength)
    said = tuple(
        tuple(label for label, p in zip(labels, row, strict=True) if p >= threshold) for row in shares
    )
    return Baseline(
        said,
        f"TF-IDF ({terms.grams}) + logistic regression a label (C={strength:g}, threshold {threshold:.3f}, "
        f"best on 1 fold, seed={seed})",
    )


def _tuned(counts: Counted, held: IntArray, seed: int) -> tuple[float, float]:
    """(strength, threshold) of the best micro F1 on a fold that is held out; (1, 0.5) with too few texts."""
    n = len(held)
    if n < 2 * FOLDS:
        return 1.0, 0.5
    shuffled = np.random.default_rng(seed).permutation(n)
    check, learn = shuffled[: n // FOLDS], shuffled[n // FOLDS :]
    if not counts[learn].terms.nnz:
        return 1.0, 0.5
    features, others = weighted(counts[learn], counts[check])
    trials = []
    for strength in STRENGTHS:
        shares = _shares(features, held[learn], others, strength)
        threshold = best_threshold(shares, held[check])
        said = shares >= threshold
        f1 = 2 * (said & (held[check] > 0)).sum() / max(1, said.sum() + held[check].sum())
        trials.append((f1, -strength, threshold))
    _, strength, threshold = max(trials)  # among equals the strongest penalty
    return -strength, threshold


def _shares(features: Features, held: IntArray, others: Features, strength: float) -> FloatArray:
    """(m, C) probability of each label; of one that all training texts have, or none, that share itself."""
    shares = np.zeros((others.shape[0], held.shape[1]))
    for number, column in enumerate(held.T):
        if column.min() == column.max():
            shares[:, number] = column[0]
            continue
        classifier = LogisticRegression(C=strength, max_iter=2000).fit(features, column)
        shares[:, number] = classifier.predict_proba(others)[:, 1]
    return shares
