"""Raw text to two corpora on disk, one to train on and one held out, with their tokenizer.

``tokenized_corpus.json`` is written last: a folder that has it is whole, and any run may use it.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pydantic
from safetensors import SafetensorError

from pretune.data.cleaning.fingerprints import FINGERPRINTS_FILE as FINGERPRINTS
from pretune.data.cleaning.fingerprints import Fingerprints
from pretune.data.corpus.documents import DocumentSplit, pieces_path
from pretune.data.corpus.pairs import pair_separator_id
from pretune.data.corpus.token_shards import Corpus, write_corpus
from pretune.data.sources.provenance import FileStates, file_states, find_changes
from pretune.data.sources.read_options import ReadOptions
from pretune.errors import CheckpointError, ChecksumError, DataError
from pretune.runtime import atomic_files, state_file
from pretune.runtime.progress import Reporter
from pretune.runtime.run_folder import DATA_FILES, remove_files
from pretune.text.tokenizer import Tokenizer
from pretune.text.training import TokenizerAlgorithm, train_tokenizer
from pretune.text.vocabulary_size import MAX_VOCABULARY_SIZE, advise_vocabulary_size
from pretune.types import IntArray

CORPUS_FILE, TOKENIZER_FOLDER = "tokenized_corpus.json", "tokenizer"
OLD_CORPUS_FILE = "prepared.json"
"""What the first was called before."""
DIGEST_FILE = "text.sha256"
"""In a preparation that is under way: of what it is one."""
REBUILD_HINT = "prepare the text again"
CORPUS_FILE_PATTERNS = tuple(f"*{name}" for name in DATA_FILES)
"""What a preparation writes."""
CHARACTERS_PER_TOKEN = 600
"""Characters that a tokenizer learns from, for each of its tokens: four times as many make texts 0.5 %
shorter, and take two and a half times as long (vocabulary 8,192)."""
MAX_CHANGES_SHOWN = 10
"""Files that have changed which are named on the terminal; summary.json has them all."""


@dataclass(frozen=True)
class TokenizedCorpus:
    """A prepared text."""

    tokenizer: Tokenizer
    train: Corpus
    validation: Corpus
    fingerprints: Fingerprints
    sources: tuple[str, ...]
    columns: tuple[str, ...] = ("text",)
    """The fields of a record that a document is made of."""
    source_changes: tuple[str, ...] = ()
    """What has happened to the files of the sources since they were read, a sentence a file."""

    def describe_size(self) -> str:
        """How much there is to train on, and how much is held out."""
        train, held = self.train, self.validation
        return (
            f"{len(train):,} documents, {train.num_tokens:,} tokens to train on; "
            f"{len(held):,} documents, {held.num_tokens:,} tokens held out"
        )

    def split_pair(self, document: IntArray) -> list[IntArray]:
        """A document's ids, those of a pair apart."""
        joint = pair_separator_id(self.columns, self.tokenizer.specials)
        if joint is None:
            return [document]
        segments = np.split(document, np.flatnonzero(document == joint))
        return [ids[ids != joint] for ids in segments]


def build_corpus(
    sources: tuple[str, ...],
    folder: Path,
    *,
    tokenizer: Tokenizer | None,
    vocabulary_size: int | Literal["auto"],
    validation_fraction: float,
    validation: tuple[str, ...],
    reporter: Reporter,
    algorithm: TokenizerAlgorithm = "bpe",
    max_vocabulary_size: int | None = None,
    columns: tuple[str, ...] = ("text",),
    rebuild: bool = False,
    reading: ReadOptions | None = None,
) -> TokenizedCorpus:
    """Read, deduplicate, split and tokenize ``sources`` into ``folder``, or open what lies there.

    Where ``sources`` is one folder that was prepared before, it is opened as it is. Without ``tokenizer``
    one is trained on the text; a size of ``auto`` is measured on it, up to ``max_vocabulary_size``. Held out
    is that share of the documents, chosen by a hash of their text, or the ``validation`` files alone. A
    document is one field of a record, or a pair of them (``columns``), read as ``reading`` says. What lies
    in ``folder`` and is damaged is made anew from the sources, and so is all of it where ``rebuild`` is
    given.

    Raises:
        DataError: nothing usable in the sources, or too many bad records.
    """
    if is_tokenized_corpus(sources):
        return open_corpus(Path(sources[0]), tokenizer, columns)
    if (folder / CORPUS_FILE).exists() and not rebuild:
        try:
            return _open_existing(folder, tokenizer, (*sources, *validation), reporter)
        except (CheckpointError, ChecksumError) as error:
            reporter.say(f"  {error}; the text is prepared anew")
    # It gets its name when it is whole: what a killed process left half-made never stands in the way.
    partial = folder.with_name(f"{folder.name}.partial")
    text_cache_path = folder.with_name(f"{folder.name}.text.partial")
    interrupted = False
    try:
        partial.mkdir(parents=True, exist_ok=True)
        files = file_states((*sources, *validation), columns)
        documents = DocumentSplit(sources, validation, validation_fraction, text_cache_path, columns, reading)
        tokenizer_fingerprint = None if tokenizer is None else tokenizer.fingerprint
        _discard_stale(
            partial,
            documents.digest(vocabulary_size, algorithm, max_vocabulary_size, tokenizer_fingerprint),
        )
        tokenizer = (
            tokenizer
            or _load_finished_tokenizer(partial, reporter)
            or _train_tokenizer(
                documents.train_texts, vocabulary_size, algorithm, max_vocabulary_size, reporter
            )
        )
        _write(documents, tokenizer, partial, sources, files)
        _move_into_place(partial, folder)
    except (OSError, SafetensorError) as error:
        raise DataError(f"{folder}: the prepared text could not be written: {error}") from error
    except KeyboardInterrupt:
        interrupted = True  # the same command goes on from the parts that are finished
        raise
    finally:
        for path in (text_cache_path, pieces_path(text_cache_path)):
            path.unlink(missing_ok=True)
        if not interrupted:
            shutil.rmtree(partial, ignore_errors=True)
    corpus = open_corpus(folder, tokenizer)
    reporter.say(f"  {corpus.describe_size()}{documents.left_out_summary()}")
    return corpus


def _open_existing(
    folder: Path, tokenizer: Tokenizer | None, paths: tuple[str, ...], reporter: Reporter
) -> TokenizedCorpus:
    """What a run prepared before; which of its files have changed since is said."""
    corpus = open_corpus(folder, tokenizer)
    known = (state_file.read(folder / CORPUS_FILE, REBUILD_HINT, _CorpusFile) or {})["files"]
    changed = tuple(find_changes(paths, corpus.columns, known))
    for sentence in changed[:MAX_CHANGES_SHOWN]:
        reporter.say(f"  {sentence} since this run read it; it goes on with the text as it was")
    if len(changed) > MAX_CHANGES_SHOWN:
        reporter.say(f"  and {len(changed) - MAX_CHANGES_SHOWN:,} more files have changed")
    return replace(corpus, source_changes=changed)


def _move_into_place(partial: Path, folder: Path) -> None:
    """Give a preparation its name. What lies there is of no use; files of the user's stay."""
    remove_files(folder, CORPUS_FILE_PATTERNS)
    if folder.exists():
        atomic_files.move_files(folder, partial)
        shutil.rmtree(folder, ignore_errors=True)
    partial.replace(folder)


def _load_finished_tokenizer(folder: Path, reporter: Reporter) -> Tokenizer | None:
    """The tokenizer that an earlier start has finished, if it is there and whole."""
    if not (folder / TOKENIZER_FOLDER / atomic_files.MANIFEST).exists():
        return None
    try:
        tokenizer = load_tokenizer(folder / TOKENIZER_FOLDER)
    except CheckpointError as error:
        reporter.say(f"  {error}; it is trained anew")
        remove_files(folder / TOKENIZER_FOLDER, CORPUS_FILE_PATTERNS)
        return None
    reporter.say("  the tokenizer is there already, from before this was stopped")
    return tokenizer


def load_tokenizer(folder: Path) -> Tokenizer:
    """A tokenizer that was written beside tokens.

    Raises:
        CheckpointError: a file of it is not what was written.
    """
    atomic_files.verify_folder(folder)
    return Tokenizer.load(folder)


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write what :func:`load_tokenizer` reads.

    Raises:
        DataError: the disk refused.
    """
    try:
        atomic_files.write_folder(folder, tokenizer.save, metadata={"type": "tokenizer"})
    except CheckpointError as error:
        raise DataError(f"{folder}: the tokenizer could not be written: {error.__cause__}") from error


def train_shared_tokenizer(
    texts: Sequence[tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...], ReadOptions]],
    folder: Path,
    *,
    vocabulary_size: int | Literal["auto"],
    validation_fraction: float,
    reporter: Reporter,
    algorithm: TokenizerAlgorithm = "bpe",
    max_vocabulary_size: int | None = None,
) -> Tokenizer:
    """A tokenizer of the text of several (sources, validation, columns, reading), each document once in each.

    Where one of them was prepared before, its tokenizer is taken. It lies in ``folder`` when it is whole.

    Raises:
        DataError: nothing usable in the sources, or too many bad records.
    """
    for sources, *_ in texts:
        if is_tokenized_corpus(sources):
            return load_tokenizer(Path(sources[0]) / TOKENIZER_FOLDER)
    tokenizer_on_disk = _load_finished_tokenizer(folder, reporter)
    if tokenizer_on_disk is not None:
        return tokenizer_on_disk
    spools = [folder / f"{number}.text.partial" for number in range(len(texts))]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        document_splits = [
            DocumentSplit(sources, held, validation_fraction, text_cache_path, columns, reading)
            for (sources, held, columns, reading), text_cache_path in zip(texts, spools, strict=True)
        ]
        tokenizer = _train_tokenizer(
            lambda: itertools.chain.from_iterable(documents.train_texts() for documents in document_splits),
            vocabulary_size, algorithm, max_vocabulary_size, reporter,
        )  # fmt: skip
        save_tokenizer(tokenizer, folder / TOKENIZER_FOLDER)
    except OSError as error:
        raise DataError(f"{folder}: the tokenizer could not be written: {error}") from error
    finally:
        for path in spools:
            path.unlink(missing_ok=True)
            pieces_path(path).unlink(missing_ok=True)
    return tokenizer


IterTexts = Callable[[], Iterator[str]]
"""Reads the documents from the first on."""


def _train_tokenizer(
    texts: IterTexts,
    size: int | Literal["auto"],
    algorithm: TokenizerAlgorithm,
    max_vocabulary_size: int | None,
    reporter: Reporter,
) -> Tokenizer:
    """A tokenizer of the training text, of the size that is asked for or advised."""
    if size == "auto":
        size = _choose_vocabulary_size(texts, max_vocabulary_size, reporter)
    reporter.say(f"  training a tokenizer of {size:,} tokens")
    return train_tokenizer(texts(), size, algorithm=algorithm, max_characters=CHARACTERS_PER_TOKEN * size)


def _choose_vocabulary_size(texts: IterTexts, max_vocabulary_size: int | None, reporter: Reporter) -> int:
    """A vocabulary's size as measured on the text."""
    advice = advise_vocabulary_size(texts(), max_size=max_vocabulary_size or MAX_VOCABULARY_SIZE)
    reporter.say(f"  a vocabulary of {advice.vocabulary_size:,} tokens: {advice.reason}")
    return advice.vocabulary_size


def _write(
    documents: DocumentSplit, tokenizer: Tokenizer, folder: Path, sources: tuple[str, ...], files: FileStates
) -> None:
    """Training text, held-out text, fingerprints; each in bounded memory. Finished parts stay as they are."""
    if not (folder / TOKENIZER_FOLDER / atomic_files.MANIFEST).exists():
        save_tokenizer(tokenizer, folder / TOKENIZER_FOLDER)
    joint = pair_separator_id(documents.columns, tokenizer.specials)
    try:
        train = Corpus.open(folder / "train")
    except ChecksumError:  # not there yet, or damaged
        shutil.rmtree(folder / "train", ignore_errors=True)
        train = write_corpus(documents.train_documents(), tokenizer, folder / "train", separator_id=joint)
    shutil.rmtree(folder / "validation", ignore_errors=True)  # its files may have changed
    held = write_corpus(
        documents.validation_documents(), tokenizer, folder / "validation", separator_id=joint
    )
    Fingerprints.from_texts(documents.train_texts()).save(folder)
    about = {
        "sources": list(sources),
        "train": train.fingerprint,
        "validation": held.fingerprint,
        "columns": list(documents.columns),
        "files": files,
        "fingerprints": atomic_files.sha256(folder / FINGERPRINTS),
    }
    state_file.write(folder / CORPUS_FILE, about)
    (folder / DIGEST_FILE).unlink()


def _discard_stale(folder: Path, text_digest: str) -> None:
    """Leave in ``folder`` only what a preparation of the same text that was stopped has finished."""
    mark = folder / DIGEST_FILE
    if not mark.exists() or mark.read_bytes() != text_digest.encode():
        shutil.rmtree(folder)
        folder.mkdir()
        atomic_files.write_text(mark, text_digest)
    for pattern in ("*.partial", ".*.partial-*"):
        for leftover in folder.glob(pattern):
            shutil.rmtree(leftover, ignore_errors=True)


def is_tokenized_corpus(sources: tuple[str, ...]) -> bool:
    """Are the sources one folder that was prepared before?

    Raises:
        CheckpointError: they are, by an earlier version, whose files have other names.
    """
    path = Path(sources[0]) / OLD_CORPUS_FILE if len(sources) == 1 else None
    if path is not None and path.is_file() and (path.parent / TOKENIZER_FOLDER).is_dir():
        raise state_file.renamed_error(
            path, f"file {OLD_CORPUS_FILE} is called {CORPUS_FILE} now", REBUILD_HINT
        )
    return len(sources) == 1 and (Path(sources[0]) / CORPUS_FILE).exists()


def open_corpus(
    folder: Path, tokenizer: Tokenizer | None = None, expected_columns: tuple[str, ...] | None = None
) -> TokenizedCorpus:
    """Open a folder that :func:`prepare` wrote.

    Raises:
        CheckpointError: the folder is damaged.
        DataError: it was prepared with another tokenizer, or from other fields than those
            ``expected_columns``.
    """
    about = state_file.read(folder / CORPUS_FILE, REBUILD_HINT, _CorpusFile) or {}
    sources, columns = tuple(about["sources"]), tuple(about["columns"])
    corpus_tokenizer = load_tokenizer(folder / TOKENIZER_FOLDER)
    if tokenizer is not None and tokenizer.fingerprint != corpus_tokenizer.fingerprint:
        raise DataError(
            f"{folder}: was prepared with another tokenizer; prepare the text again with this one"
        )
    if expected_columns is not None and expected_columns != columns:
        raise DataError(
            f"{folder}: was prepared from the fields {', '.join(columns)}, not "
            f"{', '.join(expected_columns)}; give the "
            "records themselves"
        )
    path = folder / FINGERPRINTS
    if not path.is_file() or atomic_files.sha256(path) != about["fingerprints"]:
        raise CheckpointError(f"{path}: is missing or not what was written; {REBUILD_HINT}")
    fingerprints = Fingerprints.load(folder)
    assert fingerprints is not None, "it is there, as it was written"
    train, held = Corpus.open(folder / "train"), Corpus.open(folder / "validation")
    for corpus, name in ((train, "train"), (held, "validation")):
        if corpus.fingerprint != about[name] or corpus.tokenizer_fingerprint != corpus_tokenizer.fingerprint:
            raise CheckpointError(f"{corpus.folder}: is the text of another preparation; {REBUILD_HINT}")
    return TokenizedCorpus(corpus_tokenizer, train, held, fingerprints, sources, columns)


class _CorpusFile(state_file.StateSchema):
    """The form of tokenized_corpus.json."""

    sources: list[str]
    columns: list[str]
    train: str
    validation: str
    files: dict[str, tuple[int, int, str]]
    fingerprints: str

    model_config = pydantic.ConfigDict(strict=False)  # JSON has no tuples
