"""A baseline for tags of words: the most frequent tag that a word has in the training records."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from pretune.baselines.base import Baseline

WORDS = {"en": "most frequent tag of each word", "zh": "按词取最常见标签"}


def most_frequent_tags(
    train: Sequence[tuple[Sequence[str], Sequence[str]]], test: Sequence[Sequence[str]]
) -> Baseline:
    """Tag each word of ``test`` as most of its occurrences in ``train``, (words, tags) a record.

    A word that is not there has the most frequent tag of all; among equals the first by name wins.
    """
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for words, tags in train:
        for word, tag in zip(words, tags, strict=True):
            counts[word][tag] += 1
    overall = sum(counts.values(), Counter[str]())
    best = {word: min(found, key=lambda tag: (-found[tag], tag)) for word, found in counts.items()}
    default = min(overall, key=lambda tag: (-overall[tag], tag), default="O")
    predictions = tuple(tuple(best.get(word, default) for word in words) for words in test)
    description = f"the most frequent tag of each of {len(best):,} training words, {default} for others"
    return Baseline(predictions, description, "dictionary", WORDS)
