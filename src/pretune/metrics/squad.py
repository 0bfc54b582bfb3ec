"""Exact match and F1 of answers, as SQuAD's official script has them (Rajpurkar et al. 2016, section 6.1).

Of several true answers the best counts. Chinese has no spaces, so there a character is a token, and Chinese
punctuation is left out as English punctuation is; the signature says which.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial

from pretune.metrics.accuracy import share_correct
from pretune.metrics.base import Counts, Metric

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = frozenset(string.punctuation)
_CHINESE = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_TOKEN = re.compile(rf"[{_CHINESE}]|[^\s{_CHINESE}]+")


def english_tokens(text: str) -> list[str]:
    """Lower case, without ASCII punctuation and articles, split at white space: ``normalize_answer``."""
    kept = "".join(character for character in text.lower() if character not in _PUNCTUATION)
    return _ARTICLES.sub(" ", kept).split()


def chinese_tokens(text: str) -> list[str]:
    """Lower case, without punctuation of any script: each Chinese character, and runs of others."""
    kept = "".join(c for c in text.lower() if not unicodedata.category(c).startswith(("P", "S")))
    return _TOKEN.findall(kept)


TOKENIZERS: dict[str, Callable[[str], list[str]]] = {"en": english_tokens, "zh": chinese_tokens}


def is_exact(language: str, prediction: str, references: Iterable[str]) -> bool:
    """Is an answer, normalised, one of the true ones?"""
    tokens = TOKENIZERS[language]
    return any(tokens(prediction) == tokens(true) for true in references)


def token_f1(language: str, prediction: str, reference: str) -> float:
    """F1 of the tokens of an answer, as bags; of two empty ones 1."""
    predicted, true = (TOKENIZERS[language](text) for text in (prediction, reference))
    if not predicted or not true:
        return float(predicted == true)
    shared = sum((Counter(predicted) & Counter(true)).values())
    return 2 * shared / (len(predicted) + len(true))


def _count_exact(language: str, prediction: str, references: Iterable[str]) -> Counts:
    return {"correct": float(is_exact(language, prediction, references)), "n": 1.0}


def _count_f1(language: str, prediction: str, references: Iterable[str]) -> Counts:
    return {"correct": max(token_f1(language, prediction, true) for true in references), "n": 1.0}


def squad_f1(language: str) -> Metric:
    """The mean over records of the best F1 of tokens."""
    words, settings = {"en": "answer F1", "zh": "答案 F1"}, {"tokens": language}
    return Metric("answer_f1", words, partial(_count_f1, language), share_correct, settings=settings)


def squad_exact_match(language: str) -> Metric:
    """The share of records whose answer is one of the true ones."""
    words, settings = {"en": "exact match", "zh": "完全匹配率"}, {"tokens": language}
    return Metric("exact_match", words, partial(_count_exact, language), share_correct, settings=settings)
