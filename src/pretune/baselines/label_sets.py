"""Baselines for several labels a record: majority, and TF-IDF, one label at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from scipy.sparse import csr_matrix
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from pretune.baselines.base import MAJORITY_WORDS, TFIDF_WORDS, Baseline
from pretune.baselines.tfidf import C_VALUES, FOLDS, TermCounts, TrainTestCounts, tfidf_features
from pretune.errors import DataError
from pretune.metrics.label_sets import best_threshold
from pretune.types import FloatArray, IntArray

Features: TypeAlias = "csr_matrix | FloatArray"


def majority(label_matrix: IntArray, labels: Sequence[str], num_tests: int) -> Baseline:
    """Say of each label what is true of most training records: of rare labels nothing.

    Raises:
        DataError: there is no training record.
    """
    if not len(label_matrix):
        raise DataError("the majority baseline needs at least one training record")
    predicted = tuple(label for label, share in zip(labels, label_matrix.mean(0), strict=True) if share > 0.5)
    named = ", ".join(predicted) or "no label"
    description = f"what holds of most training records ({named})"
    return Baseline((predicted,) * num_tests, description, "majority", MAJORITY_WORDS)


def tfidf(
    train_texts: Sequence[tuple[str, ...]],
    label_matrix: IntArray,
    labels: Sequence[str],
    test_texts: Sequence[tuple[str, ...]],
    *,
    seed: int,
) -> Baseline:
    """TF-IDF and a logistic regression a label, with one penalty and one threshold for all.

    Both are those of the best micro F1 on a fifth of the training records that is held out for it.

    Args:
        label_matrix: (n, C) 0 or 1, which label each training text has.

    Raises:
        DataError: there is no test text, or no training text holds a word.
    """
    if not test_texts:
        raise DataError("TF-IDF baseline: there is no test text")
    terms = TrainTestCounts.from_texts(train_texts, test_texts)
    with threadpool_limits(1):
        strength, threshold = _tune(terms.train, label_matrix, seed)
        features, others = tfidf_features(terms.train, terms.test)
        shares = _predict_probabilities(features, label_matrix, others, strength)
    predicted = tuple(
        tuple(label for label, p in zip(labels, row, strict=True) if p >= threshold) for row in shares
    )
    return Baseline(
        predicted,
        f"TF-IDF ({terms.ngram_description}) + logistic regression a label (C={strength:g}, threshold "
        f"{threshold:.3f}, "
        f"best on 1 fold, seed={seed})",
        "tfidf",
        TFIDF_WORDS,
    )


def _tune(counts: TermCounts, label_matrix: IntArray, seed: int) -> tuple[float, float]:
    """(strength, threshold) of the best micro F1 on a fold that is held out; (1, 0.5) with too few texts."""
    n = len(label_matrix)
    if n < 2 * FOLDS:
        return 1.0, 0.5
    shuffled = np.random.default_rng(seed).permutation(n)
    check, learn = shuffled[: n // FOLDS], shuffled[n // FOLDS :]
    if not counts[learn].terms.nnz:
        return 1.0, 0.5
    features, others = tfidf_features(counts[learn], counts[check])
    trials = []
    for strength in C_VALUES:
        shares = _predict_probabilities(features, label_matrix[learn], others, strength)
        threshold = best_threshold(shares, label_matrix[check])
        predicted = shares >= threshold
        f1 = (
            2
            * (predicted & (label_matrix[check] > 0)).sum()
            / max(1, predicted.sum() + label_matrix[check].sum())
        )
        trials.append((f1, -strength, threshold))
    _, strength, threshold = max(trials)  # among equals the strongest penalty
    return -strength, threshold


def _predict_probabilities(
    features: Features, label_matrix: IntArray, test_features: Features, c_value: float
) -> FloatArray:
    """(m, C) probability of each label; of one that all training texts have, or none, that share itself."""
    shares = np.zeros((test_features.shape[0], label_matrix.shape[1]))
    for number, column in enumerate(label_matrix.T):
        if column.min() == column.max():
            shares[:, number] = column[0]
            continue
        classifier = LogisticRegression(C=c_value, max_iter=2000).fit(features, column)
        shares[:, number] = classifier.predict_proba(test_features)[:, 1]
    return shares
