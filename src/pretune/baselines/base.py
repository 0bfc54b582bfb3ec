"""What a simpler method says, beside a model's predictions; without the libraries that it is made by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Baseline:
    """What a baseline says of the test texts."""

    predictions: tuple[Any, ...]
    """One value a text, as a task's predictions have them."""
    description: str
    """How it was made, for signatures and reports."""
    name: str
    """As summaries have it."""
    words: Mapping[str, str] = field(default_factory=dict)
    """What it is called: ``{"en": "majority class", "zh": "多数类"}``."""

    def word(self, language: str) -> str:
        """What it is called in a language; its name where there is no word."""
        return self.words.get(language, self.name)


MAJORITY_WORDS = {"en": "majority class", "zh": "多数类"}
TFIDF_WORDS = {"en": "TF-IDF + logistic regression", "zh": "TF-IDF + 逻辑回归"}
