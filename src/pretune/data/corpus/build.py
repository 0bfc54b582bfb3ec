"""Raw text to two corpora on disk, one to train on and one held out, with their tokenizer.

``prepared.json`` is written last: a folder that has it is whole, and any run may use it.
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

from pretune.data.cleaning.fingerprints import FILE as FINGERPRINTS
from pretune.data.cleaning.fingerprints import Fingerprints
from pretune.data.corpus.documents import Documents, cut_up
from pretune.data.corpus.pairs import joint_of
from pretune.data.corpus.token_shards import Corpus, write_corpus
from pretune.data.sources.provenance import Origins, changes, origins
from pretune.data.sources.read_options import Reading
from pretune.errors import CheckpointError, ChecksumError, DataError
from pretune.runtime import atomic_files, state_file
from pretune.runtime.progress import Reporter
from pretune.runtime.run_folder import DATA, remove_files
from pretune.text.tokenizer import Tokenizer
from pretune.text.training import Kind, train_tokenizer
from pretune.text.vocabulary_size import LARGEST, advise_vocabulary_size
from pretune.types import IntArray

PREPARED, TOKENIZER = "prepared.json", "tokenizer"
TEXT = "text.sha256"
"""In a preparation that is under way: of what it is one."""
AGAIN = "prepare the text again"
WRITTEN = tuple(f"*{name}" for name in DATA)
"""What a preparation writes."""
SAMPLE = 600
"""Characters that a tokenizer learns from, for each of its tokens: four times as many make texts 0.5 %
shorter, and take two and a half times as long (vocabulary 8,192)."""
NAMED = 10
"""Files that have changed which are named on the terminal; summary.json has them all."""


@dataclass(frozen=True)
class Prepared:
    """A prepared text."""

    tokenizer: Tokenizer
    train: Corpus
    validation: Corpus
    fingerprints: Fingerprints
    sources: tuple[str, ...]
    columns: tuple[str, ...] = ("text",)
    """The fields of a record that a document is made of."""
    changed: tuple[str, ...] = ()
    """What has happened to the files of the sources since they were read, a sentence a file."""

    def sizes(self) -> str:
        """How much there is to train on, and how much is held out."""
        train, held = self.train, self.validation
        return (
            f"{len(train):,} documents, {train.tokens:,} tokens to train on; "
            f"{len(held):,} documents, {held.tokens:,} tokens held out"
        )

    def parts_of(self, document: IntArray) -> list[IntArray]:
        """A document's ids, those of a pair apart."""
        joint = joint_of(self.columns, self.tokenizer.specials)
        if joint is None:
            return [document]
        parts = np.split(document, np.flatnonzero(document == joint))
        return [part[part != joint] for part in parts]


def prepare(
    sources: tuple[str, ...],
    folder: Path,
    *,
    tokenizer: Tokenizer | None,
    vocabulary_size: int | Literal["auto"],
    held_out: float,
    validation: tuple[str, ...],
    reporter: Reporter,
    tokenizer_kind: Kind = "bpe",
    largest_vocabulary: int | None = None,
    columns: tuple[str, ...] = ("text",),
    anew: bool = False,
    reading: Reading | None = None,
) -> Prepared:
    """Read, deduplicate, split and tokenize ``sources`` into ``folder``, or open what lies there.

    Where ``sources`` is one folder that was prepared before, it is opened as it is. Without ``tokenizer``
    one is trained on the text; a size of ``auto`` is measured on it, up to ``largest_vocabulary``. Held out
    is that share of the documents, chosen by a hash of their text, or the ``validation`` files alone. A
    document is one field of a record, or a pair of them (``columns``), read as ``reading`` says. What lies
    in ``folder`` and is damaged is made anew from the sources, and so is all of it where ``anew`` is given.

    Raises:
        DataError: nothing usable in the sources, or too many bad records.
    """
    if is_prepared(sources):
        return open_prepared(Path(sources[0]), tokenizer, columns)
    if (folder / PREPARED).exists() and not anew:
        try:
            return _reopened(folder, tokenizer, (*sources, *validation), reporter)
        except (CheckpointError, ChecksumError) as error:
            reporter.say(f"  {error}; the text is prepared anew")
    # It gets its name when it is whole: what a killed process left half-made never stands in the way.
    partial = folder.with_name(f"{folder.name}.partial")
    spool = folder.with_name(f"{folder.name}.text.partial")
    kept = False
    try:
        partial.mkdir(parents=True, exist_ok=True)
        files = origins((*sources, *validation), columns)
        documents = Documents(sources, validation, held_out, spool, columns, reading)
        given = None if tokenizer is None else tokenizer.fingerprint
        _begin(partial, documents.digest(vocabulary_size, tokenizer_kind, largest_vocabulary, given))
        tokenizer = (
            tokenizer
            or _kept_tokenizer(partial, reporter)
            or _trained(
                documents.training_texts, vocabulary_size, tokenizer_kind, largest_vocabulary, reporter
            )
        )
        _write(documents, tokenizer, partial, sources, files)
        _replace(partial, folder)
    except (OSError, SafetensorError) as error:
        raise DataError(f"{folder}: the prepared text could not be written: {error}") from error
    except KeyboardInterrupt:
        kept = True  # the same command goes on from the parts that are finished
        raise
    finally:
        for path in (spool, cut_up(spool)):
            path.unlink(missing_ok=True)
        if not kept:
            shutil.rmtree(partial, ignore_errors=True)
    prepared = open_prepared(folder, tokenizer)
    reporter.say(f"  {prepared.sizes()}{documents.remark()}")
    return prepared


def _reopened(
    folder: Path, tokenizer: Tokenizer | None, paths: tuple[str, ...], reporter: Reporter
) -> Prepared:
    """What a run prepared before; which of its files have changed since is said."""
    prepared = open_prepared(folder, tokenizer)
    known = (state_file.read(folder / PREPARED, AGAIN, _Form) or {})["files"]
    changed = tuple(changes(paths, prepared.columns, known))
    for sentence in changed[:NAMED]:
        reporter.say(f"  {sentence} since this run read it; it goes on with the text as it was")
    if len(changed) > NAMED:
        reporter.say(f"  and {len(changed) - NAMED:,} more files have changed")
    return replace(prepared, changed=changed)


def _replace(partial: Path, folder: Path) -> None:
    """Give a preparation its name. What lies there is of no use; files of the user's stay."""
    remove_files(folder, WRITTEN)
    if folder.exists():
        atomic_files.move_files(folder, partial)
        shutil.rmtree(folder, ignore_errors=True)
    partial.replace(folder)


def _kept_tokenizer(folder: Path, reporter: Reporter) -> Tokenizer | None:
    """The tokenizer that an earlier start has finished, if it is there and whole."""
    if not (folder / TOKENIZER / atomic_files.MANIFEST).exists():
        return None
    try:
        tokenizer = load_tokenizer(folder / TOKENIZER)
    except CheckpointError as error:
        reporter.say(f"  {error}; it is trained anew")
        remove_files(folder / TOKENIZER, WRITTEN)
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
        atomic_files.write_folder(folder, tokenizer.save, about={"kind": "tokenizer"})
    except CheckpointError as error:
        raise DataError(f"{folder}: the tokenizer could not be written: {error.__cause__}") from error


def shared_tokenizer(
    texts: Sequence[tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...], Reading]],
    folder: Path,
    *,
    vocabulary_size: int | Literal["auto"],
    held_out: float,
    reporter: Reporter,
    tokenizer_kind: Kind = "bpe",
    largest_vocabulary: int | None = None,
) -> Tokenizer:
    """A tokenizer of the text of several (sources, validation, columns, reading), each document once in each.

    Where one of them was prepared before, its tokenizer is taken. It lies in ``folder`` when it is whole.

    Raises:
        DataError: nothing usable in the sources, or too many bad records.
    """
    for sources, *_ in texts:
        if is_prepared(sources):
            return load_tokenizer(Path(sources[0]) / TOKENIZER)
    kept = _kept_tokenizer(folder, reporter)
    if kept is not None:
        return kept
    spools = [folder / f"{number}.text.partial" for number in range(len(texts))]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        parts = [
            Documents(sources, held, held_out, spool, columns, reading)
            for (sources, held, columns, reading), spool in zip(texts, spools, strict=True)
        ]
        tokenizer = _trained(
            lambda: itertools.chain.from_iterable(part.training_texts() for part in parts),
            vocabulary_size, tokenizer_kind, largest_vocabulary, reporter,
        )  # fmt: skip
        save_tokenizer(tokenizer, folder / TOKENIZER)
    except OSError as error:
        raise DataError(f"{folder}: the tokenizer could not be written: {error}") from error
    finally:
        for path in spools:
            path.unlink(missing_ok=True)
            cut_up(path).unlink(missing_ok=True)
    return tokenizer


Texts = Callable[[], Iterator[str]]
"""Reads the documents from the first on."""


def _trained(
    texts: Texts, size: int | Literal["auto"], kind: Kind, largest: int | None, reporter: Reporter
) -> Tokenizer:
    """A tokenizer of the training text, of the size that is asked for or advised."""
    if size == "auto":
        size = _advised(texts, largest, reporter)
    reporter.say(f"  training a tokenizer of {size:,} tokens")
    return train_tokenizer(texts(), size, kind=kind, max_characters=SAMPLE * size)


def _advised(texts: Texts, largest: int | None, reporter: Reporter) -> int:
    """A vocabulary's size as measured on the text."""
    advice = advise_vocabulary_size(texts(), most=largest or LARGEST)
    reporter.say(f"  a vocabulary of {advice.size:,} tokens: {advice.reason}")
    return advice.size


def _write(
    documents: Documents, tokenizer: Tokenizer, folder: Path, sources: tuple[str, ...], files: Origins
) -> None:
    """Training text, held-out text, fingerprints; each in bounded memory. Finished parts stay as they are."""
    if not (folder / TOKENIZER / atomic_files.MANIFEST).exists():
        save_tokenizer(tokenizer, folder / TOKENIZER)
    joint = joint_of(documents.columns, tokenizer.specials)
    try:
        train = Corpus.open(folder / "train")
    except ChecksumError:  # not there yet, or damaged
        shutil.rmtree(folder / "train", ignore_errors=True)
        train = write_corpus(documents.training(), tokenizer, folder / "train", joint=joint)
    shutil.rmtree(folder / "validation", ignore_errors=True)  # its files may have changed
    held = write_corpus(documents.validation(), tokenizer, folder / "validation", joint=joint)
    Fingerprints.of(documents.training_texts()).save(folder)
    about = {
        "sources": list(sources),
        "train": train.fingerprint,
        "validation": held.fingerprint,
        "columns": list(documents.columns),
        "files": files,
        "fingerprints": atomic_files.sha256(folder / FINGERPRINTS),
    }
    state_file.write(folder / PREPARED, about)
    (folder / TEXT).unlink()


def _begin(folder: Path, text: str) -> None:
    """Leave in ``folder`` only what a preparation of the same text that was stopped has finished."""
    mark = folder / TEXT
    if not mark.exists() or mark.read_bytes() != text.encode():
        shutil.rmtree(folder)
        folder.mkdir()
        atomic_files.write_text(mark, text)
    for pattern in ("*.partial", ".*.partial-*"):
        for leftover in folder.glob(pattern):
            shutil.rmtree(leftover, ignore_errors=True)


def is_prepared(sources: tuple[str, ...]) -> bool:
    """Are the sources one folder that was prepared before?"""
    return len(sources) == 1 and (Path(sources[0]) / PREPARED).exists()


def open_prepared(
    folder: Path, tokenizer: Tokenizer | None = None, wanted: tuple[str, ...] | None = None
) -> Prepared:
    """Open a folder that :func:`prepare` wrote.

    Raises:
        CheckpointError: the folder is damaged.
        DataError: it was prepared with another tokenizer, or from other fields than those ``wanted``.
    """
    about = state_file.read(folder / PREPARED, AGAIN, _Form) or {}
    sources, columns = tuple(about["sources"]), tuple(about["columns"])
    own = load_tokenizer(folder / TOKENIZER)
    if tokenizer is not None and tokenizer.fingerprint != own.fingerprint:
        raise DataError(
            f"{folder}: was prepared with another tokenizer; prepare the text again with this one"
        )
    if wanted is not None and wanted != columns:
        raise DataError(
            f"{folder}: was prepared from the fields {', '.join(columns)}, not {', '.join(wanted)}; give the "
            "records themselves"
        )
    path = folder / FINGERPRINTS
    if not path.is_file() or atomic_files.sha256(path) != about["fingerprints"]:
        raise CheckpointError(f"{path}: is missing or not what was written; {AGAIN}")
    fingerprints = Fingerprints.load(folder)
    assert fingerprints is not None, "it is there, as it was written"
    train, held = Corpus.open(folder / "train"), Corpus.open(folder / "validation")
    for corpus, name in ((train, "train"), (held, "validation")):
        if corpus.fingerprint != about[name] or corpus.tokenizer != own.fingerprint:
            raise CheckpointError(f"{corpus.folder}: is the text of another preparation; {AGAIN}")
    return Prepared(own, train, held, fingerprints, sources, columns)


class _Form(state_file.Form):
    """The form of prepared.json."""

    sources: list[str]
    columns: list[str]
    train: str
    validation: str
    files: dict[str, tuple[int, int, str]]
    fingerprints: str

    model_config = pydantic.ConfigDict(strict=False)  # JSON has no tuples
