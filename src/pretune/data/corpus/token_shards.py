"""A corpus: documents as ids in files that are read in slices, with where words and sentences start."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from pretune.config import digest
from pretune.data.corpus.array_file import ArrayFile, chunk_checksums
from pretune.data.sources.text_hash import text_hash
from pretune.errors import ChecksumError, DataError
from pretune.runtime.state_file import RENAMED_KEYS_PAGE
from pretune.text.segmentation import SENTENCE_START, WORD_START, find_word_starts
from pretune.text.tokenizer import Encoding, Tokenizer, replace_surrogates
from pretune.types import BoolArray, IntArray

SCHEMA = 3
INDEX_FILE = "corpus.json"
MIN_DOCUMENTS = 1000
MIN_PIECE_CHARACTERS = 4000
_BATCH_CHARACTERS = 1 << 20  # what is tokenised at once: enough for the tokenizer's threads
_PIECE_CHARACTERS = 1 << 18
_VERIFY_BLOCK = 1 << 22  # numbers that are read at once
_MIX = (1 << 64) - 1


class Corpus:
    """Documents on disk, opened by ``Corpus.open``; nothing of them is held in memory but their ends."""

    def __init__(self, folder: Path, index: dict[str, Any]) -> None:
        self.folder = folder
        self.num_tokens: int = index["num_tokens"]
        self.fingerprint: str = index["fingerprint"]
        self.tokenizer_fingerprint: str = index["tokenizer_fingerprint"]
        """Fingerprint of the tokenizer that wrote it."""
        dtype = np.dtype(index["dtype"])
        sizes = np.array(index["shards"], np.int64)
        self._shard_ends = np.cumsum(sizes)
        self._token_files, self._word_start_files = (
            [ArrayFile(folder / name, of, index["checksums"][name]) for name in names]
            for of, names in (
                (dtype, [_shard_name("tokens", shard) for shard in range(len(sizes))]),
                (np.dtype(np.uint8), [_shard_name("word_starts", shard) for shard in range(len(sizes))]),
            )
        )
        documents = np.fromfile(folder / "documents.bin", "<i8").reshape(3, -1)
        self.ends: IntArray = documents[0]
        """(documents,) where each ends, in tokens of the whole corpus."""
        self.byte_counts: IntArray = documents[1]
        """(documents,) UTF-8 bytes of each."""
        self.hashes: npt.NDArray[np.uint64] = documents[2].view(np.uint64)
        """(documents,) ``deduplicate.text_hash`` of each."""

    @classmethod
    def open(cls, folder: str | Path) -> Corpus:
        """The corpus in ``folder``.

        Raises:
            ChecksumError: it is no corpus, or a file is missing, cut short or not the one that was written;
                names the file. Of tokens the size is looked at here, and their checksums where they are read
                first: so that a start costs the same whatever the size of the corpus.
        """
        folder = Path(folder)
        try:
            index = json.loads((folder / INDEX_FILE).read_text(encoding="utf-8"))
            if "seal" in index:
                raise ChecksumError(
                    folder / INDEX_FILE,
                    "key 'seal' is called 'sha256' now: an earlier version wrote it "
                    f"({RENAMED_KEYS_PAGE} has all names); write the corpus again",
                )
            checksum = index.pop("sha256")
            sizes = index["files"]
        except FileNotFoundError:
            raise ChecksumError(folder / INDEX_FILE, "is missing: no corpus is there") from None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ChecksumError(folder / INDEX_FILE, f"damaged ({error}); write the corpus again") from None
        if checksum != digest(index) or index["schema"] != SCHEMA:
            raise ChecksumError(folder / INDEX_FILE, "damaged or of another version; write the corpus again")
        for name, size in sizes.items():
            path = folder / name
            found = path.stat().st_size if path.is_file() else 0
            if found != size:
                raise ChecksumError(path, f"{found} bytes, expected {size}; write the corpus again")
        documents = hashlib.sha256((folder / "documents.bin").read_bytes()).hexdigest()
        if documents != index["documents_sha256"]:
            raise ChecksumError(folder / "documents.bin", "not what was written; write the corpus again")
        return cls(folder, index)

    def verify(self) -> None:
        """Read everything and compare it with the fingerprint.

        Raises:
            ChecksumError: a token or flag is not what was written.
        """
        content = hashlib.sha256()
        for ids, flags in zip(self._token_files, self._word_start_files, strict=True):
            for values in (ids, flags):
                for low in range(0, len(values), _VERIFY_BLOCK):
                    content.update(values.read(low, low + _VERIFY_BLOCK).tobytes())
        if _fingerprint(content, self.ends, self.tokenizer_fingerprint) != self.fingerprint:
            raise ChecksumError(self.folder, "tokens are not what was written; write the corpus again")

    def __len__(self) -> int:
        return len(self.ends)

    def document(self, i: int, start: int = 0, end: int | None = None) -> IntArray:
        """(T,) ids of document ``i``, or of its tokens [start, end)."""
        return self._read(self._token_files, i, start, end).astype(np.int64)

    def word_starts(self, i: int, start: int = 0, end: int | None = None) -> npt.NDArray[np.uint8]:
        """(T,) bit 1: a word starts here; bit 2: a sentence starts here."""
        return self._read(self._word_start_files, i, start, end).astype(np.uint8)

    def document_bytes(self, i: int) -> int:
        """UTF-8 bytes of document ``i``."""
        return int(self.byte_counts[i])

    def _read(self, shards: list[ArrayFile], i: int, start: int, end: int | None) -> npt.NDArray[Any]:
        first = int(self.ends[i - 1]) if i > 0 else 0
        size = int(self.ends[i]) - first
        low, high = first + min(start, size), first + (size if end is None else min(end, size))
        shard = int(np.searchsorted(self._shard_ends, first, side="right"))
        base = int(self._shard_ends[shard - 1]) if shard else 0
        return shards[shard].read(low - base, high - base)


@dataclass
class _CorpusWriter:
    """The open files of a corpus that is being written."""

    folder: Path
    dtype: np.dtype[Any]
    shard_tokens: int
    sizes: list[int]
    content: Any
    files: list[BinaryIO]

    def add(self, ids: IntArray, word_starts: npt.NDArray[np.uint8]) -> None:
        """Append a document; it lies in one shard whole, so that reading it is one slice."""
        if not self.sizes or (self.sizes[-1] and self.sizes[-1] + len(ids) > self.shard_tokens):
            self.close()
            number = len(self.sizes)
            self.files = [
                (self.folder / _shard_name(kind, number)).open("wb") for kind in ("tokens", "word_starts")
            ]
            self.sizes.append(0)
        for file, values in zip(self.files, (ids.astype(self.dtype), word_starts), strict=True):
            file.write(values.tobytes())
        self.sizes[-1] += len(ids)

    def close(self) -> None:
        for file in self.files:
            file.flush()
            os.fsync(file.fileno())
            file.close()
        self.files = []


TEXT_SEPARATOR = "\x1e"
"""Stands between the two texts of a pair that is one document (the record separator of ASCII)."""


def join_texts(texts: Sequence[str]) -> str:
    """Several texts as one document."""
    return (
        TEXT_SEPARATOR.join(text.replace(TEXT_SEPARATOR, " ") for text in texts)
        if len(texts) > 1
        else texts[0]
    )


def write_corpus(
    documents: Iterable[str],
    tokenizer: Tokenizer,
    folder: str | Path,
    *,
    separator_id: int | None = None,
    shard_tokens: int = 1 << 27,
) -> Corpus:
    """Tokenise ``documents`` as they come and open the corpus that they make.

    Text is data: ``<|endoftext|>`` or ``[MASK]`` in a document becomes ordinary ids. A document over 256
    thousand characters is tokenised in pieces that end at a line end where there is one (elsewhere a token at
    the cut may differ). Documents without a token are left out. Memory does not grow with the corpus, except
    by 24 bytes a document.

    Args:
        folder: must not hold a corpus already; it appears under its name only when it is whole.
        separator_id: id that is put between the texts of each document, which were `joined`; None: it is
            one text.
        shard_tokens: a shard is closed before it would grow beyond this; a longer document has its own.

    Raises:
        DataError: no document has a token, or ``folder`` is there already.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder}: is there already; remove it or choose another")
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(f".{folder.name}.partial-{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        _write_shards(partial, documents, tokenizer, separator_id, shard_tokens)
        partial.replace(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return Corpus.open(folder)


def _write_shards(
    folder: Path, documents: Iterable[str], tokenizer: Tokenizer, separator_id: int | None, shard_tokens: int
) -> None:
    dtype = np.dtype("<u2" if tokenizer.vocabulary_size <= 1 << 16 else "<u4")
    writer = _CorpusWriter(folder, dtype, shard_tokens, [], None, [])
    lengths, byte_counts, hashes = [], [], []
    try:
        for text, ids, flags in _tokenize(documents, tokenizer, separator_id):
            if len(ids):
                writer.add(ids, flags)
                lengths.append(len(ids))
                byte_counts.append(len(text.encode()))
                hashes.append(text_hash(text))
    finally:
        writer.close()
    if not lengths:
        raise DataError("the corpus is empty: no document has a token")
    ends = np.cumsum(np.array(lengths, "<i8"))
    table = np.stack([ends, np.array(byte_counts, "<i8"), np.array(hashes, "<u8").view("<i8")])
    (folder / "documents.bin").write_bytes(table.tobytes())
    content = hashlib.sha256()
    for shard in range(len(writer.sizes)):
        for kind in ("tokens", "word_starts"):
            with (folder / _shard_name(kind, shard)).open("rb") as file:
                while block := file.read(1 << 22):
                    content.update(block)
    index = {
        "schema": SCHEMA,
        "documents": len(lengths),
        "num_tokens": int(ends[-1]),
        "bytes": sum(byte_counts),
        "dtype": dtype.str,
        "shards": writer.sizes,
        "tokenizer_fingerprint": tokenizer.fingerprint,
        "fingerprint": _fingerprint(content, ends, tokenizer.fingerprint),
        "documents_sha256": hashlib.sha256(table.tobytes()).hexdigest(),
        "files": {path.name: path.stat().st_size for path in sorted(folder.iterdir())},
        "checksums": {
            name: chunk_checksums(folder / name)
            for shard in range(len(writer.sizes))
            for name in (_shard_name("tokens", shard), _shard_name("word_starts", shard))
        },
    }
    with (folder / INDEX_FILE).open("w", encoding="utf-8") as file:
        json.dump({**index, "sha256": digest(index)}, file)
        file.flush()
        os.fsync(file.fileno())


def _fingerprint(content: Any, ends: IntArray, tokenizer: str) -> str:
    return digest([content.hexdigest(), hashlib.sha256(ends.tobytes()).hexdigest(), tokenizer])


def _shard_name(prefix: str, shard: int) -> str:
    return f"{prefix}-{shard:05d}.bin"


def _tokenize(
    documents: Iterable[str], tokenizer: Tokenizer, separator_id: int | None
) -> Iterator[tuple[str, IntArray, npt.NDArray[np.uint8]]]:
    for batch, pieces, found_pieces in _iter_encoded(
        documents, tokenizer, split_pairs=separator_id is not None
    ):
        encoded = iter(found_pieces)
        for text, parts in zip(batch, pieces, strict=True):
            ids, flags = [np.zeros(0, np.int64)], [np.zeros(0, np.uint8)]
            for number, piece in enumerate(parts):
                if number and separator_id is not None:
                    ids.append(np.array([separator_id]))
                    flags.append(np.array([WORD_START | SENTENCE_START], np.uint8))
                found = next(encoded)
                ids.append(found.ids)
                flags.append(find_word_starts(piece, found.offsets))
            yield text, np.concatenate(ids), np.concatenate(flags)


def _iter_encoded(
    documents: Iterable[str], tokenizer: Tokenizer, *, split_pairs: bool
) -> Iterator[tuple[list[str], list[list[str]], list[Encoding]]]:
    """(texts, their pieces, all pieces encoded), a batch at a time; the next is encoded meanwhile."""
    with ThreadPoolExecutor(1) as thread:
        waiting: tuple[list[str], list[list[str]], Future[list[Encoding]]] | None = None
        for batch in _iter_batches(documents):
            pieces = [
                text.split(TEXT_SEPARATOR) if split_pairs else list(split_document(text, _PIECE_CHARACTERS))
                for text in batch
            ]
            flat = [piece for parts in pieces for piece in parts]
            ready, waiting = waiting, (batch, pieces, thread.submit(tokenizer.encode_batch, flat))
            if ready:
                yield ready[0], ready[1], ready[2].result()
        if waiting:
            yield waiting[0], waiting[1], waiting[2].result()


def _iter_batches(documents: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for text in documents:
        batch.append(replace_surrogates(text))
        size += len(text)
        if size >= _BATCH_CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def split_document(text: str, max_characters: int) -> Iterator[str]:
    """Pieces of at most ``max_characters``, ended at a blank line, a line, or a sentence where there is
    one.
    """
    start = 0
    while len(text) - start > max_characters:
        end = start + max_characters
        for mark in ("\n\n", "\n", "。", ". ", " "):
            at = text.rfind(mark, start + max_characters // 2, end)
            if at >= 0:
                # White space goes with the next piece for a mark that ends in it, as pre-tokenizers have it.
                end = at + len(mark.rstrip(" "))
                break
        yield text[start:end]
        start = end
    if start < len(text):
        yield text[start:]


def is_held_out(text_hash: int, fraction: float, seed: int) -> bool:
    """Is the document with this hash in the held-out part? The same text is on the same side, always."""
    return _mix_hash(text_hash, seed) < fraction * 2.0**64


def held_out_mask(
    hashes: npt.NDArray[np.uint64], fraction: float, seed: int, min_count: int = 1
) -> BoolArray:
    """(documents,) True where held out: ``min_count`` different ones at least, and never all of them.

    Chosen by ``held_out``; where that leaves too few, the documents nearest to the border change sides.
    A small corpus should be ``cut`` into pieces first (``piece_size``): one whole book of three is no sample.

    Raises:
        DataError: all documents are the same text, or there is only one.
    """
    ranks = np.array([_mix_hash(int(value), seed) for value in hashes], np.uint64)
    chosen = np.array([is_held_out(int(value), fraction, seed) for value in hashes], bool)
    different = np.unique(ranks)
    if len(different) < 2:
        raise DataError("a held-out part needs at least two different documents")
    if fraction > 0 and len(np.unique(ranks[chosen])) < min_count:
        chosen = ranks <= different[min(min_count, len(different) - 1) - 1]
    elif chosen.all():
        chosen = ranks != ranks.max()
    return chosen


def piece_size(documents: int, characters: int) -> int | None:
    """Characters to ``cut`` the documents of a small corpus into, so that a share can be held out.

    Of few documents, or of some long among many short ones, a share of whole documents is no sample. None
    where there are enough: a thousand.
    """
    if documents >= MIN_DOCUMENTS:
        return None
    size = max(characters // MIN_DOCUMENTS, MIN_PIECE_CHARACTERS)
    # A handful of short texts still gives twenty pieces, if each is as long as a paragraph.
    return size if characters // size >= 20 else max(characters // 20, 200)


def _mix_hash(text_hash: int, seed: int) -> int:
    """64 mixed bits of (hash, seed): splitmix64's finaliser (Steele et al. 2014)."""
    x = (text_hash + (seed + 1) * 0x9E3779B97F4A7C15) & _MIX
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MIX
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MIX
    return x ^ (x >> 31)
