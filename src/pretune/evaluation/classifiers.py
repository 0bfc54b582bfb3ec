"""What a fine-tuned classifier must beat: the majority label, and TF-IDF with logistic regression."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold

from pretune.errors import DataError
from pretune.types import IntArray

STRENGTHS = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
"""The values of C, the inverse of the L2 penalty, that cross-validation chooses from."""
FOLDS = 5

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
    characters where Chinese (or Japanese) prevails. ``seed`` shuffles the folds of the cross-validation.

    Raises:
        DataError: texts and labels do not pair up, there are fewer than two labels, or no text holds
            a single word.
    """
    if len(train_texts) != len(train_labels):
        raise DataError(f"TF-IDF baseline: {len(train_texts)} texts for {len(train_labels)} labels")
    labels = sorted(set(train_labels), key=str)
    if len(labels) < 2:
        raise DataError(f"TF-IDF baseline: a classifier needs two labels or more, the training set has {labels}")
    numbers = {label: i for i, label in enumerate(labels)}
    targets = np.array([numbers[label] for label in train_labels])
    characters = chinese_prevails(train_texts)
    texts = np.array(train_texts, dtype=object)

    right = dict.fromkeys(STRENGTHS, 0)
    folds = 0
    for learn, check in _folds(targets, seed):
        folds += 1
        for strength, said in _fit_and_predict(texts[learn], targets[learn], texts[check], characters, STRENGTHS):
            right[strength] += int((said == targets[check]).sum())
    # max keeps the first among equals: the strongest penalty
    best = max(STRENGTHS, key=right.__getitem__) if folds else 1.0
    ((_, said),) = _fit_and_predict(texts, targets, test_texts, characters, (best,))

    grams = "characters 1-2" if characters else "words 1-2"
    trials = f"best of {len(STRENGTHS)} by {folds}-fold cross-validation" if folds else "too few texts to tune"
    return Baseline(
        tuple(labels[i] for i in said),
        f"TF-IDF ({grams}) + logistic regression (C={best:g}, {trials}, seed={seed})",
    )


def chinese_prevails(texts: Sequence[str]) -> bool:
    """Whether the texts hold more Chinese (or Japanese) characters than words of other scripts."""
    characters = words = 0
    for text in texts:
        apart, found = _CHINESE.subn(" ", text)
        characters += found
        words += len(_WORD.findall(apart))
    return characters > words


def _folds(targets: IntArray, seed: int) -> Iterator[tuple[IntArray, IntArray]]:
    """Yield (learn, check) indices: at most five folds, fewer where no label has five items.

    Rare labels are spread over the folds as far as they go; a fold that would leave a single label to
    learn from is left out, so there may be none at all.
    """
    folds = min(FOLDS, int(np.bincount(targets).max()))
    if folds < 2:
        return
    order = np.random.default_rng(seed).permutation(len(targets))
    shuffled = targets[order]
    rank = np.empty(len(targets), dtype=np.int64)  # of each item among those of its label
    for label in np.unique(shuffled):
        mine = shuffled == label
        rank[order[mine]] = np.arange(mine.sum())
    for fold in range(folds):
        check = rank % folds == fold
        if len(np.unique(targets[~check])) > 1 and check.any():
            yield np.flatnonzero(~check), np.flatnonzero(check)
