"""Pairs of a source and a target in a corpus: what comes out is what went in."""

from __future__ import annotations

from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from pretune.data.corpus.pairs import CorpusPairs, joint_of
from pretune.data.corpus.token_shards import BETWEEN, joined, write_corpus
from pretune.errors import DataError, UnsupportedError
from pretune.objectives import objective_of
from pretune.text.tokenizer import Tokenizer
from pretune.text.training import train_byte_bpe
from pretune.types import Specials

PAIRS = [
    ("The king sent word.", "国王传话。"),
    (f"a{BETWEEN}b", "an odd character [PAD] <|endoftext|>"),
    ("long " * 40, "长" * 40),
]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_byte_bpe(["The king sent word to the city. 国王传话到城里。"] * 20, 300)


def test_sources_and_targets_come_back(tokenizer: Tokenizer, tmp_path: Path) -> None:
    pad = tokenizer.specials.pad
    corpus = write_corpus(map(joined, PAIRS), tokenizer, tmp_path / "corpus", joint=pad)
    pairs = CorpusPairs(corpus, 16, pad)
    assert len(pairs) == 3
    assert pairs.cut == 2
    for i, texts in enumerate(PAIRS):
        whole = [tokenizer.encode(text.replace(BETWEEN, " ")).ids for text in texts]
        for found, ids in zip(pairs[i].sequences, whole, strict=True):
            np.testing.assert_array_equal(found, ids[:16])
        assert pairs.lengths[i].tolist() == [min(16, len(ids)) for ids in whole]
    assert pairs[0].starts is not None
    assert [len(flags) for flags in pairs[0].starts] == pairs.lengths[0].tolist()
    assert pairs.fingerprint != CorpusPairs(corpus, 17, pad).fingerprint


def test_plain_text_is_no_pairs(tokenizer: Tokenizer, tmp_path: Path) -> None:
    corpus = write_corpus(["The king", f"sent{BETWEEN}word"], tokenizer, tmp_path / "corpus")
    with pytest.raises(DataError, match="plain text"):
        CorpusPairs(corpus, 16, tokenizer.specials.pad)


def test_a_tokenizer_without_a_token_that_is_no_text_cannot_part_pairs() -> None:
    columns = ("source", "target")
    assert joint_of(columns, Specials(100, pad=7, all=(7,))) == 7
    assert joint_of(("text",), Specials(100, pad=0)) is None
    with pytest.raises(UnsupportedError, match="neither a padding nor an end token"):
        joint_of(columns, Specials(100, pad=0))


def test_ngrams_read_framed_targets(tokenizer: Tokenizer, tmp_path: Path) -> None:
    specials = tokenizer.specials
    corpus = write_corpus(map(joined, PAIRS), tokenizer, tmp_path / "corpus", joint=specials.pad)
    [first, *_] = objective_of("sequence_to_sequence").store(corpus, specials, 32).told(specials)
    before, after = specials.single
    assert first.tolist() == [*before, *tokenizer.encode(PAIRS[0][1]).ids, *after]


@given(st.tuples(st.text(max_size=20), st.text(max_size=20)))
def test_two_texts_are_one_document_that_parts_again(texts: tuple[str, str]) -> None:
    assert joined(texts).split(BETWEEN) == [text.replace(BETWEEN, " ") for text in texts]
