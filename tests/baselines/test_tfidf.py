"""The classical baselines of a classifier: what they learn, how they are tuned, what they refuse."""

from __future__ import annotations

import time
import warnings

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from pretune.baselines import tfidf as tfidf_module
from pretune.baselines.tfidf import is_mostly_chinese, majority, tfidf
from pretune.errors import DataError

ENGLISH = ("ship sail sea captain wave harbour", "bread oven flour baker dough yeast")
CHINESE = ("船帆海港浪潮舵手", "面包烤箱粉酵母炉")


def corpus(kinds: tuple[str, ...], n: int, seed: int, noise: float = 0.3) -> tuple[list[str], list[str]]:
    """Texts of six symbols, each from the words (or characters) of its own kind or, as noise, of any."""
    rng = np.random.default_rng(seed)
    spaced = " " in kinds[0]
    pools = [kind.split() if spaced else list(kind) for kind in kinds]
    everything = [symbol for pool in pools for symbol in pool]
    labels = rng.integers(len(kinds), size=n)
    texts = [
        (" " if spaced else "").join(
            rng.choice(everything if rng.random() < noise else pools[label]) for _ in range(6)
        )
        for label in labels
    ]
    return texts, [f"kind {label}" for label in labels]


def test_majority() -> None:
    baseline = majority(["b", "a", "b"], ["x", "y"])
    assert baseline.predictions == ("b", "b")
    assert baseline.description == "majority label of the training set ('b', 2 of 3)"
    assert majority(["b", "a"], ["x"]).predictions == ("a",)
    with pytest.raises(DataError, match="training label"):
        majority([], ["x"])


@pytest.mark.parametrize(("kinds", "grams"), [(ENGLISH, "words 1-2"), (CHINESE, "characters 1-2")])
def test_tfidf_learns_and_says_how(kinds: tuple[str, ...], grams: str) -> None:
    texts, labels = corpus(kinds, 120, seed=0)
    others, truth = corpus(kinds, 200, seed=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        baseline = tfidf(texts, labels, others, seed=0)
    assert np.mean(np.array(baseline.predictions) == truth) > 0.9
    assert grams in baseline.description
    assert "best of 6 on 5 folds, seed=0" in baseline.description
    assert tfidf(texts, labels, others, seed=0) == baseline


def test_rotated_features_give_the_same_classifier(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    words = [f"w{i}" for i in range(400)]
    texts = [" ".join(rng.choice(words[:250] if i % 3 else words[150:], 30)) for i in range(60)]
    labels = ["ab"[i % 3 == 0] for i in range(60)]
    calls = []
    rotated = tfidf_module._project_to_row_space
    monkeypatch.setattr(tfidf_module, "_project_to_row_space", lambda *a: calls.append(1) or rotated(*a))
    monkeypatch.setattr(tfidf_module, "C_VALUES", (3.0,))
    baseline = tfidf(texts[:40], labels[:40], texts[40:], seed=0)
    assert calls
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    plain = LogisticRegression(C=3.0).fit(vectorizer.fit_transform(texts[:40]), labels[:40])
    assert list(baseline.predictions) == plain.predict(vectorizer.transform(texts[40:])).tolist()


def test_the_test_set_has_no_say() -> None:
    texts, labels = corpus(ENGLISH, 60, seed=0)
    others, _ = corpus(ENGLISH, 30, seed=1)
    alone = tfidf(texts, labels, others[:1], seed=0)
    assert alone.predictions[0] == tfidf(texts, labels, others, seed=0).predictions[0]


@pytest.mark.parametrize("sizes", [(30, 1), (30, 2, 1), (3, 2), (2, 1), (1, 1, 1)])
def test_tiny_classes(sizes: tuple[int, ...]) -> None:
    labels = [number for number, size in enumerate(sizes) for _ in range(size)]
    texts = [f"common word{label} other{i}" for i, label in enumerate(labels)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        baseline = tfidf(texts, labels, ["word0", "unknown", ""], seed=0)
    assert set(baseline.predictions) <= set(labels)
    assert all(type(label) is int for label in baseline.predictions)


def test_many_texts_are_tuned_on_one_fold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tfidf_module, "MAX_FULL_CV_TEXTS", 50)
    texts, labels = corpus(ENGLISH, 60, seed=0)
    assert "on 1 folds" in tfidf(texts, labels, texts, seed=0).description


def test_a_few_hundred_texts_take_seconds() -> None:
    rng = np.random.default_rng(0)
    words = np.array([f"w{i}" for i in range(5000)])
    labels = rng.integers(8, size=1400).tolist()
    texts = [" ".join(words[(rng.zipf(1.3, 40).clip(max=2000) + 300 * label) % 5000]) for label in labels]
    begin = time.process_time()
    tfidf(texts[:400], labels[:400], texts[400:], seed=0)
    assert time.process_time() - begin < 6  # 1 s on one core


@pytest.mark.parametrize(
    ("texts", "labels", "others", "reason"),
    [
        (["a", "b"], ["x", "x"], ["a"], "two labels or more"),
        (["a"], ["x", "y"], ["a"], "1 texts for 2 labels"),
        (["!", "?"], ["x", "y"], ["a"], "holds a word"),
        (["a", "b"], ["x", "y"], [], "no test text"),
    ],
)
def test_refusals(texts: list[str], labels: list[str], others: list[str], reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        tfidf(texts, labels, others, seed=0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("床前明月光", True),
        ("The moon before my bed", False),
        ("我用 Python 写了一个程序", True),
        ("The word 月 means moon", False),
        ("Über die Brücke", False),
        ("", False),
    ],
)
def test_chinese_prevails(text: str, *, expected: bool) -> None:
    assert is_mostly_chinese([text]) is expected


@pytest.mark.parametrize("kinds", [ENGLISH, CHINESE])
def test_of_a_pair_both_texts_and_what_they_share_count(kinds: tuple[str, ...]) -> None:
    """Whether two texts speak of the same: neither text alone, nor both without their overlap, can tell."""
    rng = np.random.default_rng(0)
    spaced = " " in kinds[0]
    pool = [symbol for kind in kinds for symbol in (kind.split() if spaced else kind)]

    def pairs(n: int) -> tuple[list[tuple[str, ...]], list[str]]:
        found, labels = [], []
        for _ in range(n):
            first, other = rng.permutation(pool)[:4], rng.permutation(pool)[:4]
            same = bool(rng.random() < 0.5)
            second = rng.permutation(first) if same else other
            found.append(tuple((" " if spaced else "").join(part) for part in (first, second)))
            labels.append("same" if same else "other")
        return found, labels

    train, test = pairs(200), pairs(100)
    said = tfidf(*train, test[0], seed=0)
    right = np.mean([p == t for p, t in zip(said.predictions, test[1], strict=True)])
    joined = tfidf([" ".join(p) for p in train[0]], train[1], [" ".join(p) for p in test[0]], seed=0)
    blind = np.mean([p == t for p, t in zip(joined.predictions, test[1], strict=True)])
    assert right > 0.9
    assert blind < right - 0.1
    assert "shared ones apart" in said.description
