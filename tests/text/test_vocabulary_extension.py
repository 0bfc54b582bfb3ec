"""More tokens for a tokenizer: those that training would have made next."""

from __future__ import annotations

import random

import pytest

from pretune.errors import ConfigError, UnsupportedError
from pretune.text.tokenizer import Tokenizer
from pretune.text.training import train_tokenizer
from pretune.text.vocabulary_extension import extend_tokenizer

WORDS = (
    *("the", "quick", "brown", "foxes", "jumped", "over", "lazy", "dogs", "contract", "party", "liability"),
    *("合同", "当事人", "违约责任", "人民法院", "应当承担", "龙门", "客栈"),
)


def texts(seed: int, count: int = 400) -> list[str]:
    draw = random.Random(seed)
    weights = [1 / (n + 1) for n in range(len(WORDS))]
    return [" ".join(draw.choices(WORDS, weights, k=9)) + "。" for _ in range(count)]


def vocabulary(tokenizer: Tokenizer) -> set[str]:
    return set(tokenizer.to_dict()["model"]["vocab"])


def test_bpe_goes_on_as_one_training_would_have() -> None:
    """The reference is the `tokenizers` library, trained to the larger size at once."""
    small, large = (train_tokenizer(texts(0), size) for size in (300, 380))
    found = extend_tokenizer(small, texts(0), 80)
    assert vocabulary(small) < vocabulary(large)
    assert vocabulary(found.tokenizer) == vocabulary(large)
    for text in texts(1, 50):
        ours, theirs = ([t.id_to_token(i) for i in t.encode(text).ids] for t in (found.tokenizer, large))
        assert ours == theirs


def test_old_ids_stay_and_new_tokens_say_what_wrote_them() -> None:
    small = train_tokenizer(texts(0), 300)
    found = extend_tokenizer(small, ["人民法院应当保护当事人。"] * 5, 30)
    assert list(found.pieces) == list(range(300, 300 + len(found.pieces)))
    for id in range(300):
        assert found.tokenizer.id_to_token(id) == small.id_to_token(id)
    for id, pieces in found.pieces.items():
        assert len(pieces) > 1
        assert "".join(small.id_to_token(p) for p in pieces) == found.tokenizer.id_to_token(id)


def test_text_comes_back_and_takes_fewer_tokens() -> None:
    small = train_tokenizer(texts(0), 280)
    found = extend_tokenizer(small, texts(0), 100)
    for text in (*texts(2, 30), "Wholly new: 天地玄黃 <|endoftext|> é\n\n"):
        ids = found.tokenizer.encode(text).ids
        assert found.tokenizer.decode(ids, skip_special_tokens=False) == text
        assert len(ids) <= len(small.encode(text).ids)


def test_no_token_is_longer_than_allowed() -> None:
    small = train_tokenizer(texts(0), 280)
    found = extend_tokenizer(small, texts(0), 200, max_token_length=6)
    assert max(len(found.tokenizer.id_to_token(id)) for id in found.pieces) == 6


def test_wordpiece_takes_words_and_characters_that_it_could_not_write() -> None:
    small = train_tokenizer(texts(0), 120, algorithm="wordpiece")
    assert "[UNK]" in [small.id_to_token(i) for i in small.encode("龘").ids]
    found = extend_tokenizer(small, ["龘 the liabilities of the liabilities 龘 龘"] * 3, 2)
    assert {found.tokenizer.id_to_token(id) for id in found.pieces} == {"龘", "liabilities"}
    assert [found.tokenizer.id_to_token(i) for i in found.tokenizer.encode("龘 liabilities").ids] == [
        "龘",
        "liabilities",
    ]


def test_what_cannot_be_extended_is_refused() -> None:
    unigram = train_tokenizer(texts(0), 400, algorithm="unigram")
    with pytest.raises(UnsupportedError, match="Unigram tokenizer cannot be extended"):
        extend_tokenizer(unigram, texts(0), 10)
    with pytest.raises(ConfigError, match="tokens = 0"):
        extend_tokenizer(train_tokenizer(texts(0), 280), texts(0), 0)
