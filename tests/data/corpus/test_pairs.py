"""Pairs of a source and a target in a corpus: what comes out is what went in."""

from __future__ import annotations

from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from pretune.data.corpus.pairs import CorpusPairs, pair_separator_id
from pretune.data.corpus.token_shards import TEXT_SEPARATOR, join_texts, write_corpus
from pretune.errors import DataError, UnsupportedError
from pretune.objectives import parse_objective
from pretune.text.tokenizer import Tokenizer
from pretune.text.training import train_byte_bpe
from pretune.types import SpecialTokens

PAIRS = [
    ("The king sent word.", "国王传话。"),
    (f"a{TEXT_SEPARATOR}b", "an odd character [PAD] <|endoftext|>"),
    ("long " * 40, "长" * 40),
]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_byte_bpe(["The king sent word to the city. 国王传话到城里。"] * 20, 300)


def test_sources_and_targets_come_back(tokenizer: Tokenizer, tmp_path: Path) -> None:
    pad = tokenizer.specials.pad_id
    corpus = write_corpus(map(join_texts, PAIRS), tokenizer, tmp_path / "corpus", separator_id=pad)
    pairs = CorpusPairs(corpus, 16, pad)
    assert len(pairs) == 3
    assert pairs.num_truncated == 2
    for i, texts in enumerate(PAIRS):
        whole = [tokenizer.encode(text.replace(TEXT_SEPARATOR, " ")).ids for text in texts]
        for found, ids in zip(pairs[i].sequences, whole, strict=True):
            np.testing.assert_array_equal(found, ids[:16])
        assert pairs.lengths[i].tolist() == [min(16, len(ids)) for ids in whole]
    assert pairs[0].word_starts is not None
    assert [len(flags) for flags in pairs[0].word_starts] == pairs.lengths[0].tolist()
    assert pairs.fingerprint != CorpusPairs(corpus, 17, pad).fingerprint


def test_plain_text_is_no_pairs(tokenizer: Tokenizer, tmp_path: Path) -> None:
    corpus = write_corpus(["The king", f"sent{TEXT_SEPARATOR}word"], tokenizer, tmp_path / "corpus")
    with pytest.raises(DataError, match="plain text"):
        CorpusPairs(corpus, 16, tokenizer.specials.pad_id)


def test_a_tokenizer_without_a_token_that_is_no_text_cannot_part_pairs() -> None:
    columns = ("source", "target")
    assert pair_separator_id(columns, SpecialTokens(100, pad_id=7, all_ids=(7,))) == 7
    assert pair_separator_id(("text",), SpecialTokens(100, pad_id=0)) is None
    with pytest.raises(UnsupportedError, match="neither a padding nor an end token"):
        pair_separator_id(columns, SpecialTokens(100, pad_id=0))


def test_ngrams_read_framed_targets(tokenizer: Tokenizer, tmp_path: Path) -> None:
    specials = tokenizer.specials
    corpus = write_corpus(
        map(join_texts, PAIRS), tokenizer, tmp_path / "corpus", separator_id=specials.pad_id
    )
    [first, *_] = (
        parse_objective("sequence_to_sequence").feature_store(corpus, specials, 32).iter_targets(specials)
    )
    before, after = specials.single
    assert first.tolist() == [*before, *tokenizer.encode(PAIRS[0][1]).ids, *after]


@given(st.tuples(st.text(max_size=20), st.text(max_size=20)))
def test_two_texts_are_one_document_that_parts_again(texts: tuple[str, str]) -> None:
    assert join_texts(texts).split(TEXT_SEPARATOR) == [text.replace(TEXT_SEPARATOR, " ") for text in texts]
