"""A trained vocabulary is sane in both languages and the same every time."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from pretune.errors import ConfigError, DataError
from pretune.text.sample import sample_texts, split_pieces
from pretune.text.training import SPECIAL_TOKENS, train_byte_bpe

CLAUSE = "从西边涌来的大雾笼罩着整个港口"
TEXT = ("The fishermen were understandably disappointed. " * 3 + f"他们看见{CLAUSE}，于是{CLAUSE}。\n") * 30


def test_no_token_is_longer_than_the_limit() -> None:
    for limit in (6, 16):
        tokenizer = train_byte_bpe([TEXT], 1000, max_token_length=limit)
        special = set(tokenizer.specials.all_ids)
        longest = max(n for i, n in enumerate(tokenizer.byte_lengths()) if i not in special)
        assert 3 < longest <= limit
        tokens = len(tokenizer.encode(CLAUSE).ids)
        assert len(CLAUSE.encode()) / limit <= tokens < len(CLAUSE), (
            "no clause by heart, fewer than a character"
        )


def test_every_byte_and_special_is_there_even_for_little_text() -> None:
    tokenizer = train_byte_bpe(["ab"], 300)
    assert tokenizer.vocabulary_size == 256 + len(set(SPECIAL_TOKENS.values()))
    assert tokenizer.specials.eos_id == tokenizer.specials.bos_id
    assert tokenizer.decode(tokenizer.encode("渡船😀").ids) == "渡船😀"


def test_the_same_text_gives_the_same_tokenizer_whatever_order_and_threads() -> None:
    texts = [line + f" {i % 7} 第{i % 5}行" for i, line in enumerate(TEXT.splitlines())]
    here = train_byte_bpe(texts, 700).fingerprint
    assert train_byte_bpe(reversed(texts), 700).fingerprint == here
    code = (
        "import sys, json; from pretune.text.training import train_byte_bpe;"
        "print(train_byte_bpe(json.load(sys.stdin), 700).fingerprint)"
    )
    for parallel in ("true", "false"):
        found = subprocess.run(
            [sys.executable, "-c", code],
            input=json.dumps(texts),
            env={**os.environ, "TOKENIZERS_PARALLELISM": parallel},
            capture_output=True,
            text=True,
            check=True,
        )
        assert found.stdout.strip() == here


def test_a_sample_is_bounded_and_independent_of_order() -> None:
    texts = [f"{i} {'词' * 50}" for i in range(1000)]
    sample = sample_texts(texts, 5000)
    assert 4000 < sum(map(len, sample)) <= 5000
    assert sample_texts(reversed(texts), 5000) == sample
    assert "".join(split_pieces(TEXT)) == TEXT


def test_lone_surrogates_do_not_stop_training() -> None:
    assert train_byte_bpe(["broken \ud800 text " * 9], 300).vocabulary_size > 261


def test_wrong_use_says_why() -> None:
    with pytest.raises(ConfigError, match="at least 261"):
        train_byte_bpe(["text"], 100)
    with pytest.raises(DataError, match="no text"):
        train_byte_bpe([], 300)
