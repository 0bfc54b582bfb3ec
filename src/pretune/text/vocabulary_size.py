"""How many tokens a vocabulary should have, measured on the text itself."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import tokenizers

from pretune.errors import DataError
from pretune.text.sample import sample_texts
from pretune.text.training import train_tokenizer

MIN_VOCABULARY_SIZE, MAX_VOCABULARY_SIZE = 1024, 65_536
_HELD_OUT = 10  # every tenth piece of the sample is measured on, and not learnt from
_TRAINED_CHARACTERS = 3_000_000


@dataclass(frozen=True, slots=True)
class Advice:
    """A size of vocabulary, and what was measured."""

    vocabulary_size: int
    reason: str
    """Which bound decided."""
    measurements: tuple[tuple[int, float], ...]
    """(size, held-out bytes per token) of each size that the text can fill."""


def advise_vocabulary_size(
    texts: Iterable[str],
    *,
    min_gain: float = 0.06,
    min_occurrences: int = 100,
    max_size: int = MAX_VOCABULARY_SIZE,
) -> Advice:
    """The smallest power of two whose doubling would save less than ``min_gain`` of the tokens.

    A byte-level BPE is trained once, at the largest size. Its merges are ordered, so the first of them are
    the tokenizer of any smaller size; each is measured on a tenth of the text that it has not seen. The other
    kinds of tokenizer follow the same curve closely enough to take its advice.

    Args:
        texts: what the model will be trained on; 3 million characters of it are read closely.
        min_gain: share of the tokens that a vocabulary of twice the size must save to be worth it.
        min_occurrences: a token should be seen this often on average, so that its embedding is learnt:
            the text must have at least this many times as many tokens as the vocabulary.
        max_size: the largest size to advise, for instance where embeddings would outweigh the model.

    Raises:
        DataError: there is no text.
    """
    total = 0

    def counted() -> Iterator[str]:
        nonlocal total
        for text in texts:
            total += len(text.encode("utf-8", "replace"))
            yield text

    sample = sample_texts(counted(), _TRAINED_CHARACTERS)
    if not sample:
        raise DataError("no text to measure a vocabulary on")
    held = sample[::_HELD_OUT]
    learnt = [piece for i, piece in enumerate(sample) if i % _HELD_OUT] or held
    max_size = min(max_size, MAX_VOCABULARY_SIZE, 2 * total // min_occurrences)  # a byte is a token at most
    largest = train_tokenizer(learnt, max(max_size, MIN_VOCABULARY_SIZE))
    sizes = [
        MIN_VOCABULARY_SIZE << step
        for step in range(7)
        if MIN_VOCABULARY_SIZE << step <= min(max_size, largest.vocabulary_size)
    ]
    held_bytes = sum(len(piece.encode()) for piece in held)
    measured = [
        (size, held_bytes / _count_tokens(_truncate_bpe(largest.to_dict(), size), held))
        for size in sizes or [MIN_VOCABULARY_SIZE]
    ]
    return _choose_size(measured, total, min_gain, min_occurrences)


def _truncate_bpe(description: dict[str, Any], size: int) -> tokenizers.Tokenizer:
    """The BPE of the first ``size`` tokens."""
    model = description["model"]
    vocabulary = {token: id for token, id in model["vocab"].items() if id < size}
    merges = [pair for pair in model["merges"] if "".join(pair) in vocabulary]
    shorter = {**description, "model": {**model, "vocab": vocabulary, "merges": merges}}
    return tokenizers.Tokenizer.from_str(json.dumps(shorter))


def _count_tokens(backend: tokenizers.Tokenizer, texts: list[str]) -> int:
    return sum(len(encoding) for encoding in backend.encode_batch(texts, add_special_tokens=False))


def _choose_size(
    measurements: Sequence[tuple[int, float]], total: int, min_gain: float, min_occurrences: int
) -> Advice:
    shown = tuple((size, round(ratio, 3)) for size, ratio in measurements)
    for (size, ratio), (double, doubled) in pairwise(measurements):
        gain = 1 - ratio / doubled
        if gain < min_gain:
            reason = f"{double:,} would save {gain:.1%} of the tokens, less than {min_gain:.0%}"
            return Advice(size, reason, shown)
        if total / doubled < double * min_occurrences:
            reason = f"of {double:,} each would be seen less than {min_occurrences} times on average"
            return Advice(size, reason, shown)
    return Advice(measurements[-1][0], "the largest that is allowed, or that this text fills", shown)
