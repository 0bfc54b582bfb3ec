"""The advised size follows the text, and what it was measured on is what the tokenizer does."""

from __future__ import annotations

import random

import pytest

from pretune.errors import DataError
from pretune.text.training import train_tokenizer
from pretune.text.vocabulary_size import _truncate_bpe, advise_vocabulary_size

WORDS = [
    f"{a}{b}{c}" for a in ("ka", "to", "mi", "re", "su") for b in "bdfgklmn" for c in ("an", "or", "ey", "us")
]


def texts(words: list[str], number: int) -> list[str]:
    draw = random.Random(0)
    return [" ".join(draw.choices(words, k=40)) for _ in range(number)]


def test_more_text_of_more_words_wants_more_tokens() -> None:
    everything = [f"{a}{b}" for a in WORDS for b in WORDS[:30]]
    few = advise_vocabulary_size(texts(WORDS, 800), min_occurrences=1)
    many = advise_vocabulary_size(texts(everything, 4000), min_occurrences=1)
    assert few.vocabulary_size == 1024
    assert many.vocabulary_size > few.vocabulary_size
    assert [size for size, _ in many.measurements][:2] == [1024, 2048]
    assert many.measurements[1][1] > many.measurements[0][1]


def test_little_text_and_a_limit_hold_it_down() -> None:
    everything = [f"{a}{b}" for a in WORDS for b in WORDS[:30]]
    sample = texts(everything, 4000)
    assert advise_vocabulary_size(sample, max_size=2048, min_occurrences=1).vocabulary_size == 2048
    seldom = advise_vocabulary_size(sample, min_occurrences=1000)
    assert seldom.vocabulary_size == 1024
    assert "less than 1000 times" in seldom.reason


def test_the_first_merges_are_the_smaller_tokenizer() -> None:
    sample = texts(WORDS, 200)
    large, small = train_tokenizer(sample, 500), train_tokenizer(sample, 330)
    assert _truncate_bpe(large.to_dict(), 330).get_vocab() == _vocabulary(small.to_dict())


def _vocabulary(description: dict) -> dict[str, int]:
    return description["model"]["vocab"]


def test_no_text_is_an_error() -> None:
    with pytest.raises(DataError, match="no text"):
        advise_vocabulary_size([])
