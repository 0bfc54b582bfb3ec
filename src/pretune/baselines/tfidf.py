"""What a fine-tuned classifier must beat: the majority label, and TF-IDF with logistic regression.

Of a pair of texts, the terms of both count together; those that both have count again, as terms of their own,
and one more feature is the share that the two texts have in common.
"""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix, hstack
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from threadpoolctl import threadpool_limits

from pretune.baselines.base import MAJORITY_WORDS, TFIDF_WORDS, Baseline
from pretune.errors import DataError
from pretune.types import FloatArray, IntArray

C_VALUES = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
"""The values of C, the inverse of the L2 penalty, that cross-validation chooses from."""
FOLDS = 5
MAX_FULL_CV_TEXTS = 500
"""Up to so many training texts each fold is held out in turn; of more, only one is: it is large enough to
choose by, and all five of 2,000 Chinese texts take a minute."""
MAX_RARE_TERM_TEXTS = 2000
"""Above so many training texts the terms that occur in one text only are left out."""

Label = str | int
Texts = Sequence[str] | Sequence[tuple[str, ...]]
"""A text each, or a tuple of a text or a pair each."""

_CJK = re.compile("[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
_WORD = re.compile(r"\w+")


def majority(train_labels: Sequence[Label], test_texts: Sequence[Any]) -> Baseline:
    """Predict the most frequent training label throughout; the first by name among equals.

    Raises:
        DataError: there is no training label.
    """
    if not train_labels:
        raise DataError("the majority baseline needs at least one training label")
    counts = Counter(train_labels)
    label = min(counts, key=lambda name: (-counts[name], str(name)))
    share = f"{counts[label]} of {len(train_labels)}"
    description = f"majority label of the training set ({label!r}, {share})"
    return Baseline((label,) * len(test_texts), description, "majority", MAJORITY_WORDS)


def tfidf(
    train_texts: Texts,
    train_labels: Sequence[Label],
    test_texts: Texts,
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
    terms = TrainTestCounts.from_texts(train_texts, test_texts)
    counts = terms.train

    # many small products: threads would wait for each other far longer than they work
    with threadpool_limits(1):
        trials = _cross_validate(counts, targets, seed)
        hits = {strength: sum(trial[strength] for trial in trials) for strength in C_VALUES}
        # max keeps the first among equals: the strongest penalty
        best = max(C_VALUES, key=hits.__getitem__) if trials else 1.0
        predicted = _predict(counts, targets, terms.test, (best,))[best]

    tuned = f"best of {len(C_VALUES)} on {len(trials)} folds" if trials else "too few texts to tune it"
    return Baseline(
        tuple(labels[i] for i in predicted),
        f"TF-IDF ({terms.ngram_description}) + logistic regression (C={best:g}, {tuned}, seed={seed})",
        "tfidf",
        TFIDF_WORDS,
    )


@dataclass(frozen=True, slots=True)
class TermCounts:
    """Term counts of texts, and features that stand beside them unweighted."""

    terms: csr_matrix
    """(n, terms)"""
    extra_features: csr_matrix
    """(n, 0), or (n, 1) with the share of terms that a pair has in common."""

    def __getitem__(self, rows: IntArray) -> TermCounts:
        return TermCounts(self.terms[rows], self.extra_features[rows])


@dataclass(frozen=True, slots=True)
class TrainTestCounts:
    """The term counts of training and test texts."""

    train: TermCounts
    test: TermCounts
    ngram_description: str
    """What a term is, for the description."""

    @classmethod
    def from_texts(cls, train: Texts, test: Texts) -> TrainTestCounts:
        """Count words and pairs of words, or runs of one and two characters where Chinese prevails.

        Raises:
            DataError: no training text holds a word.
        """
        learn, check = _to_tuples(train), _to_tuples(test)
        joined = ["\n".join(texts) for texts in learn]
        characters = is_mostly_chinese(joined)
        rarest = (
            1 if len(learn) <= MAX_RARE_TERM_TEXTS else 2
        )  # what occurs in one text only is most of the terms by then
        if characters:
            vectorizer = CountVectorizer(analyzer="char", ngram_range=(1, 2), min_df=rarest)
        else:  # the default pattern drops words of one letter, "I" among them
            vectorizer = CountVectorizer(ngram_range=(1, 2), token_pattern=r"\b\w+\b", min_df=rarest)
        try:
            vectorizer.fit(joined)
        except ValueError:
            raise DataError("TF-IDF baseline: no training text holds a word") from None
        pairs = any(len(parts) > 1 for parts in learn)
        grams = "characters 1-2" if characters else "words 1-2"
        return cls(
            _count_terms(vectorizer, learn, pairs), _count_terms(vectorizer, check, pairs),
            f"{grams} of both texts, shared ones apart" if pairs else grams,
        )  # fmt: skip


def _to_tuples(texts: Texts) -> list[tuple[str, ...]]:
    return [(item,) if isinstance(item, str) else item for item in texts]


def _count_terms(vectorizer: CountVectorizer, texts: Sequence[tuple[str, ...]], pairs: bool) -> TermCounts:
    joint = vectorizer.transform(["\n".join(pair) for pair in texts])
    if not pairs:
        return TermCounts(joint, csr_matrix((len(texts), 0)))
    first, second = (
        vectorizer.transform([parts[n] if len(parts) > n else "" for parts in texts]) for n in (0, 1)
    )
    shared = first.minimum(second)
    smaller = np.minimum(np.asarray(first.sum(1)), np.asarray(second.sum(1)))
    share = np.asarray(shared.sum(1)) / np.maximum(smaller, 1)  # (n, 1)
    return TermCounts(hstack([joint, shared]).tocsr(), csr_matrix(share))


def is_mostly_chinese(texts: Sequence[str]) -> bool:
    """Whether the texts hold more Chinese (or Japanese) characters than words of other scripts."""
    characters = words = 0
    for text in texts:
        apart, found = _CJK.subn(" ", text)
        characters += found
        words += len(_WORD.findall(apart))
    return characters > words


def _cross_validate(counts: TermCounts, targets: IntArray, seed: int) -> list[dict[float, int]]:
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
    for learn, check in splits if len(targets) <= MAX_FULL_CV_TEXTS else splits[:1]:
        if len(np.unique(targets[learn])) > 1 and counts[learn].terms.nnz:
            predicted = _predict(counts[learn], targets[learn], counts[check], C_VALUES)
            results.append({c: int((predicted[c] == targets[check]).sum()) for c in C_VALUES})
    return results


def _predict(
    counts: TermCounts, targets: IntArray, test_counts: TermCounts, c_values: Sequence[float]
) -> dict[float, IntArray]:
    """Learn from term counts (n, terms) and say the labels of ``test_counts`` (m, terms), for each
    strength.
    """
    features, others = tfidf_features(counts, test_counts)
    classifier = LogisticRegression(max_iter=2000, warm_start=True)
    predicted = {}
    for strength in sorted(c_values):
        classifier.set_params(C=strength).fit(features, targets)
        predicted[strength] = classifier.predict(others)
    return predicted


def tfidf_features(
    counts: TermCounts, test_counts: TermCounts
) -> tuple[csr_matrix | FloatArray, csr_matrix | FloatArray]:
    """The TF-IDF features of texts to learn from, and of others, weighted by what the first hold."""
    known = (
        counts.terms.getnnz(axis=0) > 0
    )  # terms of a held-out fold alone are as unknown as those of a test
    weighting = TfidfTransformer(sublinear_tf=True)
    features = weighting.fit_transform(counts.terms[:, known])
    others = weighting.transform(test_counts.terms[:, known])
    if counts.extra_features.shape[1]:
        features, others = (
            hstack([features, counts.extra_features]).tocsr(),
            hstack([others, test_counts.extra_features]).tocsr(),
        )
    if features.shape[0] ** 2 <= 10 * features.shape[1]:  # where products of dense rows are the cheaper
        return _project_to_row_space(features, others)
    return features, others


def _project_to_row_space(features: csr_matrix, test_features: csr_matrix) -> tuple[FloatArray, FloatArray]:
    """Express (n, terms) and (m, terms) in an orthonormal basis of the training rows: at most n columns.

    Under an L2 penalty the weights lie in the span of the training rows, and a rotation changes neither
    penalty nor products: the classifier is the same, found ten times faster for a few hundred texts.
    """
    values, vectors = np.linalg.eigh((features @ features.T).toarray())
    kept = values > 1e-10 * values[-1]
    values, vectors = values[kept], vectors[:, kept]
    return vectors * np.sqrt(values), (test_features @ features.T) @ (vectors / np.sqrt(values))
