"""A corpus gives back what was written, or says that it cannot."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pretune.data.corpus import token_shards
from pretune.data.corpus.token_shards import (
    Corpus,
    held_out_mask,
    is_held_out,
    piece_size,
    split_document,
    write_corpus,
)
from pretune.data.corpus.windows import EncodedRecords, Windows
from pretune.data.sources.text_hash import text_hash
from pretune.errors import ConfigError, DataError
from pretune.text.segmentation import find_word_starts
from pretune.text.tokenizer import Tokenizer
from pretune.text.training import train_byte_bpe
from pretune.types import Feature

DOCUMENTS = [
    "The ferry left early. Nobody saw it.",
    "",
    "渡船在日出之前离开了港口。没有人注意到。",
    "Raw <|endoftext|> and [MASK] are text \ud800.",
    "x",
] + [f"Document {i} says number {i * i}. 第{i}篇。" for i in range(40)]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_byte_bpe(["The ferry left. Document says number 渡船离开了港口。" * 9], 400)


@pytest.fixture
def corpus(tokenizer: Tokenizer, tmp_path: Path) -> Corpus:
    return write_corpus(DOCUMENTS, tokenizer, tmp_path / "corpus", shard_tokens=100)


def test_documents_come_back(corpus: Corpus, tokenizer: Tokenizer) -> None:
    texts = [text.replace("\ud800", "\ufffd") for text in DOCUMENTS if text]
    assert len(corpus) == len(texts)
    assert len(list(corpus.folder.glob("tokens-*"))) > 3
    for i, text in enumerate(texts):
        encoded = tokenizer.encode(text)
        np.testing.assert_array_equal(corpus.document(i), encoded.ids)
        np.testing.assert_array_equal(corpus.word_starts(i), find_word_starts(text, encoded.offsets))
        assert corpus.document_bytes(i) == len(text.encode())
        assert int(corpus.hashes[i]) == text_hash(text)
        assert not set(corpus.document(i).tolist()) & set(tokenizer.specials.all_ids)
    assert corpus.num_tokens == sum(len(corpus.document(i)) for i in range(len(corpus)))
    corpus.verify()


def test_the_fingerprint_is_of_the_content(corpus: Corpus, tokenizer: Tokenizer, tmp_path: Path) -> None:
    again = write_corpus(iter(DOCUMENTS), tokenizer, tmp_path / "b", shard_tokens=100)
    other = write_corpus([*DOCUMENTS, "more"], tokenizer, tmp_path / "c", shard_tokens=100)
    assert corpus.fingerprint == again.fingerprint != other.fingerprint


def test_an_enormous_document_is_one_document(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "A line of the book, and on.\n" * 400
    whole = write_corpus([text], tokenizer, tmp_path / "whole")
    monkeypatch.setattr(token_shards, "_PIECE_CHARACTERS", 1000)
    pieces = write_corpus([text], tokenizer, tmp_path / "pieces")
    np.testing.assert_array_equal(whole.document(0), pieces.document(0))
    np.testing.assert_array_equal(whole.word_starts(0), pieces.word_starts(0))


def test_nothing_is_left_under_the_name_when_writing_fails(tokenizer: Tokenizer, tmp_path: Path) -> None:
    def breaking():
        yield "a good one"
        raise DataError("the source broke")

    for documents, message in ((breaking(), "source broke"), (["", ""], "empty")):
        with pytest.raises(DataError, match=message):
            write_corpus(documents, tokenizer, tmp_path / "corpus")
        assert list(tmp_path.iterdir()) == []
    write_corpus(["a"], tokenizer, tmp_path / "corpus")
    with pytest.raises(DataError, match="is there already"):
        write_corpus(["a"], tokenizer, tmp_path / "corpus")


def test_damage_is_found_when_it_is_opened(corpus: Corpus) -> None:
    folder = corpus.folder
    for name in ("tokens-00001.bin", "word_starts-00000.bin", "documents.bin"):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[:-2])
        with pytest.raises(DataError, match=rf"{name}: {len(content) - 2} bytes, expected {len(content)}"):
            Corpus.open(folder)
        (folder / name).write_bytes(content)
    Corpus.open(folder)
    content = (folder / "documents.bin").read_bytes()
    (folder / "documents.bin").write_bytes(content[:-1] + b"~")
    with pytest.raises(DataError, match="not what was written"):
        Corpus.open(folder)
    (folder / "documents.bin").write_bytes(content)
    tokens = (folder / "tokens-00000.bin").read_bytes()
    (folder / "tokens-00000.bin").write_bytes(b"~" + tokens[1:])
    with pytest.raises(DataError, match="tokens are not what was written"):
        Corpus.open(folder).verify()
    index = json.loads((folder / "corpus.json").read_text())
    for broken in ({**index, "tokens": 1}, [], {}):
        (folder / "corpus.json").write_text(json.dumps(broken))
        with pytest.raises(DataError, match=r"corpus\.json: damaged"):
            Corpus.open(folder)
    (folder / "corpus.json").unlink()
    with pytest.raises(DataError, match="no corpus"):
        Corpus.open(folder)


def test_a_wide_vocabulary_is_stored_wide(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer = Tokenizer(tokenizer._backend, tokenizer.settings)
    tokenizer.vocabulary_size = (1 << 16) + 1
    corpus = write_corpus(["The ferry"], tokenizer, tmp_path / "wide")
    np.testing.assert_array_equal(corpus.document(0), tokenizer.encode("The ferry").ids)
    assert (corpus.folder / "tokens-00000.bin").stat().st_size == 4 * corpus.num_tokens


def test_a_text_is_held_out_by_itself_alone() -> None:
    hashes = np.array([text_hash(f"text {i}") for i in range(4000)], np.uint64)
    chosen = held_out_mask(hashes, 0.1, seed=1)
    assert 300 < chosen.sum() < 500
    assert all(is_held_out(int(h), 0.1, 1) == c for h, c in zip(hashes[:50], chosen, strict=False))
    assert (chosen != held_out_mask(hashes, 0.1, seed=2)).any()


@pytest.mark.parametrize("n", [2, 3, 19])
def test_a_small_corpus_has_both_sides(n: int) -> None:
    hashes = np.array([text_hash(f"text {i}") for i in range(n)], np.uint64)
    for seed in range(20):
        assert 1 <= held_out_mask(hashes, 0.01, seed).sum() < n
        assert 1 <= held_out_mask(hashes, 0.99, seed).sum() < n
    with pytest.raises(DataError, match="two different"):
        held_out_mask(hashes[:1].repeat(n), 0.1, 0)


def test_few_documents_are_cut_and_many_are_not() -> None:
    book = "One sentence of the book.\n" * 1000
    size = piece_size(2, 2 * len(book))
    assert size is not None
    pieces = [piece for text in (book, book) for piece in split_document(text, size)]
    assert 20 <= len(pieces) <= 45
    assert "".join(pieces) == book + book
    assert piece_size(1000, 10**9) is None
    assert piece_size(153, 8_000_000) == 8_000  # books among web pages
    assert piece_size(60, 9_000) == 450  # sentences
    assert "".join(split_document("渡船。" * 50, 40)) == "渡船。" * 50


@pytest.mark.parametrize("overlap", [0, 1])
@pytest.mark.parametrize(("start", "end"), [(None, None), (4, None), (None, 4), (1, 2)])
def test_windows_are_slices_of_the_framed_documents(
    corpus: Corpus, overlap: int, start: int | None, end: int | None
) -> None:
    chosen = np.array([5, 0, 3, 1])
    windows = Windows(corpus, 7, overlap, start, end, documents=chosen)
    expected, marks = [], []
    for d in chosen:
        first, last = [] if start is None else [start], [] if end is None else [end]
        ids = [*first, *corpus.document(d), *last]
        flags = [*[3 for _ in first], *corpus.word_starts(d), *[3 for _ in last]]
        for part, low in enumerate(range(0, max(len(ids) - overlap, 0), 7 - overlap)):
            expected.append((d, part, ids[low : low + 7]))
            marks.append(flags[low : low + 7])
    found = [windows[i] for i in range(len(windows))]
    assert [(f.record, f.window, f.sequences[0].tolist()) for f in found] == expected
    assert [windows.word_starts(i).tolist() for i in range(len(windows))] == marks
    assert windows.lengths[:, 0].tolist() == [len(ids) for _, _, ids in expected]
    assert windows.text_bytes == corpus.byte_counts[chosen].sum()


def test_a_window_with_nothing_new_is_not_made(corpus: Corpus) -> None:
    assert len(corpus.document(3)) == 1
    with pytest.raises(DataError, match="none gives a window"):
        Windows(corpus, 8, 1, None, None, documents=np.array([3]))
    with pytest.raises(ConfigError, match="overlap < length"):
        Windows(corpus, 1, 1, None, None)
    with pytest.raises(IndexError):
        Windows(corpus, 8, 1, None, None)[10**6]


def test_documents_are_told_whole_or_evenly_apart(corpus: Corpus, tokenizer: Tokenizer) -> None:
    windows = Windows(corpus, 8, eos_id=0)
    every = [part.tolist() for part in windows.iter_targets(tokenizer.specials)]
    assert every == [[*corpus.document(i), 0] for i in range(len(corpus))]
    assert [part.tolist() for part in windows.iter_targets(tokenizer.specials, 3)] == every[::3]
    assert len(list(windows.iter_targets(tokenizer.specials, 10**6))) == 1


def test_fingerprints_of_stores_cover_what_they_hold(corpus: Corpus) -> None:
    made = [
        Windows(corpus, 8, 0, None, None).fingerprint,
        Windows(corpus, 9, 0, None, None).fingerprint,
        Windows(corpus, 8, 1, None, None).fingerprint,
        Windows(corpus, 8, 0, None, 4).fingerprint,
        Windows(corpus, 8, 0, None, None, documents=np.array([1, 2])).fingerprint,
    ]
    for ids, label in (([1, 2], 0), ([1, 2], 1), ([1], 0)):
        features = [Feature(0, 0, (np.array(ids), np.array([3])), {"label": label})]
        made.append(EncodedRecords(features).fingerprint)
    assert len(set(made)) == len(made)
    assert EncodedRecords([Feature(0, 0, (np.arange(3),)), *features]).lengths.tolist() == [[3, 0], [1, 1]]
