"""What a fine-tuned classifier must beat: the majority label, and TF-IDF with logistic regression."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from threadpoolctl import threadpool_limits

from pretune.errors import DataError
from pretune.types import FloatArray, IntArray

STRENGTHS = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
"""The values of C, the inverse of the L2 penalty, that cross-validation chooses from."""
FOLDS = 5
MANY = 2000
"""Above so many training texts one fold is held out instead of each in turn, and terms of one text go."""

Label = str | int

_CHINESE = re.compile("[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Baseline:
    """What a baseline says of the test texts."""

    predictions: tuple[Label, ...]
    description: str
    """How it was made, for signatures and reports."""


def majority(train_labels: Sequence[Label], test_texts: Sequence[str]) -> Baseline:
    """Predict the most frequent training label throughout; the first by name among equals.

    Raises:
        DataError: there is no training label.
    """
    if not train_labels:
        raise DataError("the majority baseline needs at least one training label")
    counts = Counter(train_labels)
    label = min(counts, key=lambda name: (-counts[name], str(name)))
    share = f"{counts[label]} of {len(train_labels)}"
    return Baseline((label,) * len(test_texts), f"majority label of the training set ({label!r}, {share})")


def tfidf(
    train_texts: Sequence[str],
    train_labels: Sequence[Label],
    test_texts: Sequence[str],
    *,
    seed: int,
) -> Baseline:
    """Classify with TF-IDF and logistic regression, its penalty tuned on the training set alone.

    The features are words and pairs of words where words are written apart, and runs of one and two
    characters where Chinese (or Japanese) prevails. ``seed`` shuffles the folds of the cross-validation;
    the same arguments give the same predictions.

    Raises:
        DataError: texts and labels do not pair up, there are fewer than two labels, no training text
            holds a word, or there is no test text.
    """
    if len(train_texts) != len(train_labels):
        raise DataError(f"TF-IDF baseline: {len(train_texts)} texts for {len(train_labels)} labels")
    if not test_texts:
        raise DataError("TF-IDF baseline: there is no test text")
    labels = sorted(set(train_labels), key=str)
    if len(labels) < 2:
        raise DataError(
            f"TF-IDF baseline: a classifier needs two labels or more, the training set has {labels}"
        )
    numbers = {label: i for i, label in enumerate(labels)}
    targets = np.array([numbers[label] for label in train_labels])
    characters = chinese_prevails(train_texts)
    rarest = 1 if len(targets) <= MANY else 2  # what occurs in one text only is most of the terms by then
    if characters:
        vectorizer = CountVectorizer(analyzer="char", ngram_range=(1, 2), min_df=rarest)
    else:  # the default pattern drops words of one letter, "I" among them
        vectorizer = CountVectorizer(ngram_range=(1, 2), token_pattern=r"\b\w+\b", min_df=rarest)
    try:
        counts = vectorizer.fit_transform(train_texts)
    except ValueError:
        raise DataError("TF-IDF baseline: no training text holds a word") from None

    # many small products: threads would wait for each other far longer than they work
    with threadpool_limits(1):
        trials = _trials(counts, targets, seed)
        right = {strength: sum(trial[strength] for trial in trials) for strength in STRENGTHS}
        # max keeps the first among equals: the strongest penalty
        best = max(STRENGTHS, key=right.__getitem__) if trials else 1.0
        said = _predict(counts, targets, vectorizer.transform(test_texts), (best,))[best]

    grams = "characters 1-2" if characters else "words 1-2"
    tuned = f"best of {len(STRENGTHS)} on {len(trials)} folds" if trials else "too few texts to tune it"
    return Baseline(
        tuple(labels[i] for i in said),
        f"TF-IDF ({grams}) + logistic regression (C={best:g}, {tuned}, seed={seed})",
    )


def chinese_prevails(texts: Sequence[str]) -> bool:
    """Whether the texts hold more Chinese (or Japanese) characters than words of other scripts."""
    characters = words = 0
    for text in texts:
        apart, found = _CHINESE.subn(" ", text)
        characters += found
        words += len(_WORD.findall(apart))
    return characters > words


def _trials(counts: csr_matrix, targets: IntArray, seed: int) -> list[dict[float, int]]:
    """Return the hits of each strength, a dict a fold.

    A fold that leaves a single label, or no word, to learn from is passed over, so with few texts there
    may be none.
    """
    folds = min(FOLDS, int(np.bincount(targets).max()))
    if folds < 2:
        return []
    splitter = StratifiedKFold(folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # a label with fewer items than folds is missing from some, which does no harm here
        warnings.filterwarnings("ignore", "The least populated class")
        splits = list(splitter.split(targets, targets))
    results = []
    for learn, check in splits if len(targets) <= MANY else splits[:1]:
        if len(np.unique(targets[learn])) > 1 and counts[learn].nnz:
            said = _predict(counts[learn], targets[learn], counts[check], STRENGTHS)
            results.append({c: int((said[c] == targets[check]).sum()) for c in STRENGTHS})
    return results


def _predict(
    counts: csr_matrix, targets: IntArray, other: csr_matrix, strengths: Sequence[float]
) -> dict[float, IntArray]:
    """Learn from term counts (n, terms) and say the labels of ``other`` (m, terms), for each strength."""
    known = counts.getnnz(axis=0) > 0  # terms of a held-out fold alone are as unknown as those of a test
    weighting = TfidfTransformer(sublinear_tf=True)
    features = weighting.fit_transform(counts[:, known])
    others = weighting.transform(other[:, known])
    if features.shape[0] ** 2 <= 10 * features.shape[1]:  # where products of dense rows are the cheaper
        features, others = _rotated(features, others)
    classifier = LogisticRegression(max_iter=2000, warm_start=True)
    said = {}
    for strength in sorted(strengths):
        classifier.set_params(C=strength).fit(features, targets)
        said[strength] = classifier.predict(others)
    return said


def _rotated(features: csr_matrix, others: csr_matrix) -> tuple[FloatArray, FloatArray]:
    """Express (n, terms) and (m, terms) in an orthonormal basis of the training rows: at most n columns.

    Under an L2 penalty the weights lie in the span of the training rows, and a rotation changes neither
    penalty nor products: the classifier is the same, found ten times faster for a few hundred texts.
    """
    values, vectors = np.linalg.eigh((features @ features.T).toarray())
    kept = values > 1e-10 * values[-1]
    values, vectors = values[kept], vectors[:, kept]
    return vectors * np.sqrt(values), (others @ features.T) @ (vectors / np.sqrt(values))
