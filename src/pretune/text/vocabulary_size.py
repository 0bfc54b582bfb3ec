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

SMALLEST, LARGEST = 1024, 65_536
_HELD_OUT = 10  # every tenth piece of the sample is measured on, and not learnt from
_TRAINED_CHARACTERS = 3_000_000


@dataclass(frozen=True, slots=True)
class Advice:
    """A size of vocabulary, and what was measured."""

    size: int
    reason: str
    """Which bound decided."""
    measured: tuple[tuple[int, float], ...]
    """(size, held-out bytes per token) of each size that the text can fill."""


def advise_vocabulary_size(
    texts: Iterable[str], *, least_gain: float = 0.06, sightings: int = 100, most: int = LARGEST
) -> Advice:
    """The smallest power of two whose doubling would save less than ``least_gain`` of the tokens.

    A byte-level BPE is trained once, at the largest size. Its merges are ordered, so the first of them are
    the tokenizer of any smaller size; each is measured on a tenth of the text that it has not seen. The other
    kinds of tokenizer follow the same curve closely enough to take its advice.

    Args:
        texts: what the model will be trained on; 3 million characters of it are read closely.
        least_gain: share of the tokens that a vocabulary of twice the size must save to be worth it.
        sightings: a token should be seen this often on average, so that its embedding is learnt:
            the text must have at least this many times as many tokens as the vocabulary.
        most: the largest size to advise, for instance where embeddings would outweigh the model.

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
    most = min(most, LARGEST, 2 * total // sightings)  # a byte is a token at most
    largest = train_tokenizer(learnt, max(most, SMALLEST))
    sizes = [SMALLEST << step for step in range(7) if SMALLEST << step <= min(most, largest.vocabulary_size)]
    held_bytes = sum(len(piece.encode()) for piece in held)
    measured = [
        (size, held_bytes / _tokens(_shortened(largest.describe(), size), held))
        for size in sizes or [SMALLEST]
    ]
    return _decide(measured, total, least_gain, sightings)


def _shortened(description: dict[str, Any], size: int) -> tokenizers.Tokenizer:
    """The BPE of the first ``size`` tokens."""
    model = description["model"]
    vocabulary = {token: id for token, id in model["vocab"].items() if id < size}
    merges = [pair for pair in model["merges"] if "".join(pair) in vocabulary]
    shorter = {**description, "model": {**model, "vocab": vocabulary, "merges": merges}}
    return tokenizers.Tokenizer.from_str(json.dumps(shorter))


def _tokens(backend: tokenizers.Tokenizer, texts: list[str]) -> int:
    return sum(len(encoding) for encoding in backend.encode_batch(texts, add_special_tokens=False))


def _decide(measured: Sequence[tuple[int, float]], total: int, least_gain: float, sightings: int) -> Advice:
    shown = tuple((size, round(ratio, 3)) for size, ratio in measured)
    for (size, ratio), (double, doubled) in pairwise(measured):
        gain = 1 - ratio / doubled
        if gain < least_gain:
            reason = f"{double:,} would save {gain:.1%} of the tokens, less than {least_gain:.0%}"
            return Advice(size, reason, shown)
        if total / doubled < double * sightings:
            reason = f"of {double:,} each would be seen less than {sightings} times on average"
            return Advice(size, reason, shown)
    return Advice(measured[-1][0], "the largest that is allowed, or that this text fills", shown)
