"""Raw text to two corpora on disk, one to train on and one held out, with their tokenizer.

``prepared.json`` is written last: a folder that has it is whole, and any run may use it.
"""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from safetensors import SafetensorError

from pretune.checkpoint import store
from pretune.config import digest
from pretune.data.deduplicate import ExactDuplicates
from pretune.data.fingerprints import Fingerprints
from pretune.data.pairs import joint_of
from pretune.data.reading import Reading
from pretune.data.shards import BETWEEN, Corpus, cut, joined, piece_size, split, write_corpus
from pretune.data.sources import RecordLog, read_records
from pretune.data.spool import Spool
from pretune.errors import CheckpointError, DataError
from pretune.text.advice import LARGEST, advise_vocabulary_size
from pretune.text.tokenizer import Tokenizer
from pretune.text.training import Kind, train_tokenizer
from pretune.training.progress import Reporter
from pretune.types import IntArray

PREPARED, TOKENIZER = "prepared.json", "tokenizer"
TEXT = "text.sha256"
"""In a preparation that is under way: of what it is one."""
SAMPLE = 600
"""Characters that a tokenizer learns from, for each of its tokens: four times as many make texts 0.5 %
shorter, and take two and a half times as long (vocabulary 8,192)."""
SEVERAL = 20
"""Documents from which on two are held out at least."""


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
    reading: Reading | None = None,
) -> Prepared:
    """Read, deduplicate, split and tokenize ``sources`` into ``folder``, or open what lies there.

    Where ``sources`` is one folder that was prepared before, it is opened as it is. Without ``tokenizer``
    one is trained on the text; a size of ``auto`` is measured on it, up to ``largest_vocabulary``. Held out
    is that share of the documents, chosen by a hash of their text, or the ``validation`` files alone. A
    document is one field of a record, or a pair of them (``columns``), read as ``reading`` says.

    Raises:
        DataError: nothing usable in the sources, or too many bad records.
    """
    if is_prepared(sources):
        return open_prepared(Path(sources[0]), tokenizer, columns)
    if (folder / PREPARED).exists():
        return _reopened(folder, tokenizer)
    # It gets its name when it is whole: what a killed process left half-made never stands in the way.
    partial = folder.with_name(f"{folder.name}.partial")
    spool = folder.with_name(f"{folder.name}.text.partial")
    kept = False
    try:
        partial.mkdir(parents=True, exist_ok=True)
        documents = _Documents(sources, validation, held_out, spool, columns, reading)
        given = None if tokenizer is None else tokenizer.fingerprint
        _begin(partial, documents.digest(vocabulary_size, tokenizer_kind, largest_vocabulary, given))
        if tokenizer is None and (partial / TOKENIZER).exists():
            tokenizer = Tokenizer.load(partial / TOKENIZER)
            reporter.say("  the tokenizer is there already, from before this was stopped")
        if tokenizer is None:
            tokenizer = _trained(
                documents.training_texts, vocabulary_size, tokenizer_kind, largest_vocabulary, reporter
            )
        _write(documents, tokenizer, partial, sources)
        shutil.rmtree(folder, ignore_errors=True)  # without prepared.json it is of no use
        partial.replace(folder)
    except (OSError, SafetensorError) as error:
        raise DataError(f"{folder}: the prepared text could not be written: {error}") from error
    except KeyboardInterrupt:
        kept = True  # the same command goes on from the parts that are finished
        raise
    finally:
        for path in (spool, _cut_up(spool)):
            path.unlink(missing_ok=True)
        if not kept:
            shutil.rmtree(partial, ignore_errors=True)
    prepared = open_prepared(folder, tokenizer)
    reporter.say(f"  {prepared.sizes()}{documents.remark()}")
    return prepared


def _reopened(folder: Path, tokenizer: Tokenizer | None) -> Prepared:
    try:
        return open_prepared(folder, tokenizer)
    except (CheckpointError, DataError) as error:
        raise DataError(f"{error}; remove {folder} and run the command again to prepare it anew") from None


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
            return Tokenizer.load(Path(sources[0]) / TOKENIZER)
    if (folder / TOKENIZER).exists():
        return Tokenizer.load(folder / TOKENIZER)
    spools = [folder / f"{number}.text.partial" for number in range(len(texts))]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        parts = [
            _Documents(sources, held, held_out, spool, columns, reading)
            for (sources, held, columns, reading), spool in zip(texts, spools, strict=True)
        ]
        tokenizer = _trained(
            lambda: itertools.chain.from_iterable(part.training_texts() for part in parts),
            vocabulary_size, tokenizer_kind, largest_vocabulary, reporter,
        )  # fmt: skip
        tokenizer.save(folder / f"{TOKENIZER}.partial")
        (folder / f"{TOKENIZER}.partial").replace(folder / TOKENIZER)
    except OSError as error:
        raise DataError(f"{folder}: the tokenizer could not be written: {error}") from error
    finally:
        for path in spools:
            path.unlink(missing_ok=True)
            _cut_up(path).unlink(missing_ok=True)
        shutil.rmtree(folder / f"{TOKENIZER}.partial", ignore_errors=True)
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


def _write(documents: _Documents, tokenizer: Tokenizer, folder: Path, sources: tuple[str, ...]) -> None:
    """Training text, held-out text, fingerprints; each in bounded memory. Finished parts stay as they are."""
    if not (folder / TOKENIZER).exists():
        tokenizer.save(folder / f"{TOKENIZER}.partial")
        (folder / f"{TOKENIZER}.partial").replace(folder / TOKENIZER)
    joint = joint_of(documents.columns, tokenizer.specials)
    if (folder / "train").exists():
        train = Corpus.open(folder / "train")
    else:
        train = write_corpus(documents.training(), tokenizer, folder / "train", joint=joint)
    shutil.rmtree(folder / "validation", ignore_errors=True)  # its files may have changed
    held = write_corpus(documents.validation(), tokenizer, folder / "validation", joint=joint)
    Fingerprints.of(documents.training_texts()).save(folder)
    about = {
        "sources": list(sources),
        "train": train.fingerprint,
        "validation": held.fingerprint,
        "columns": list(documents.columns),
    }
    store.write_json(folder / PREPARED, about)
    (folder / TEXT).unlink()


def _begin(folder: Path, text: str) -> None:
    """Leave in ``folder`` only what a preparation of the same text that was stopped has finished."""
    mark = folder / TEXT
    if not mark.exists() or mark.read_text(encoding="utf-8") != text:
        shutil.rmtree(folder)
        folder.mkdir()
        store.write_text(mark, text)
    for pattern in ("*.partial", ".*.partial-*"):
        for leftover in folder.glob(pattern):
            shutil.rmtree(leftover, ignore_errors=True)


def _cut_up(spool: Path) -> Path:
    """Where the pieces of a small corpus are spooled."""
    return spool.with_name(f"pieces.{spool.name}")


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
    try:
        about = json.loads((folder / PREPARED).read_text(encoding="utf-8"))
        sources = tuple(str(source) for source in about["sources"])
        columns = tuple(str(column) for column in about.get("columns", ("text",)))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder / PREPARED}: damaged: {error}; prepare the text again") from None
    own = Tokenizer.load(folder / TOKENIZER)
    if tokenizer is not None and tokenizer.fingerprint != own.fingerprint:
        raise DataError(
            f"{folder}: was prepared with another tokenizer; prepare the text again with this one"
        )
    if wanted is not None and wanted != columns:
        raise DataError(
            f"{folder}: was prepared from the fields {', '.join(columns)}, not {', '.join(wanted)}; give the "
            "records themselves"
        )
    fingerprints = Fingerprints.load(folder)
    if fingerprints is None:
        raise CheckpointError(f"{folder}: its text fingerprints are missing; prepare the text again")
    train, held = Corpus.open(folder / "train"), Corpus.open(folder / "validation")
    return Prepared(own, train, held, fingerprints, sources, columns)


class _Documents:
    """The documents of the sources, each once, on either side of the split; read once, kept in a spool."""

    def __init__(
        self,
        sources: tuple[str, ...],
        validation: tuple[str, ...],
        held_out: float,
        spool: Path,
        columns: tuple[str, ...],
        reading: Reading | None,
    ) -> None:
        self.validation_files, self.columns, self._reading = validation, columns, reading
        self.duplicates = 0
        self.log = RecordLog()
        self._spool = self._pieces(Spool(self._unique(sources, self.log), spool))
        self._held = np.zeros(len(self._spool), bool)
        if validation:
            return
        if len(self._spool) < 2:
            raise DataError(
                f"{', '.join(sources)}: {len(self._spool)} document{self.remark()}: too little to train "
                "on one part and hold out another; give more text, or other text as validation"
            )
        # A sentence pair needs a second document to draw from; of a handful of texts one must do.
        least = 2 if len(self._spool) >= SEVERAL else 1
        self._held = split(self._spool.hashes, held_out, seed=0, least=least)

    def training(self) -> Iterator[str]:
        """The documents to train on."""
        return self._spool.texts(~self._held)

    def training_texts(self) -> Iterator[str]:
        """The texts to train on: of a pair each apart."""
        pairs = len(self.columns) > 1
        return itertools.chain.from_iterable(
            document.split(BETWEEN) if pairs else (document,) for document in self.training()
        )

    def validation(self) -> Iterator[str]:
        """The documents held out."""
        if self.validation_files:
            return self._unique(self.validation_files, RecordLog())
        return self._spool.texts(self._held)

    def digest(self, *choices: object) -> str:
        """Of the documents to train on, in their order, and of the choices that go with them."""
        return digest([self._spool.hashes[~self._held].tolist(), self.columns, choices])

    def remark(self) -> str:
        """What was left out of the sources."""
        parts = [f"{self.duplicates:,} duplicates left out"] if self.duplicates else []
        if self.log.remarkable:
            parts.append(self.log.summary())
        return "".join(f"; {part}" for part in parts)

    def _pieces(self, whole: Spool) -> Spool:
        """The documents; of a small corpus their pieces, so that a share of them is a sample."""
        size = piece_size(len(whole), whole.characters)
        if size is None or self.validation_files or len(self.columns) > 1:
            return whole
        cut_up = Spool((piece for text in whole.texts() for piece in cut(text, size)), _cut_up(whole.path))
        cut_up.path.replace(whole.path)
        cut_up.path = whole.path
        return cut_up

    def _unique(self, paths: tuple[str, ...], log: RecordLog) -> Iterator[str]:
        seen, duplicates = ExactDuplicates(), 0
        for record in read_records(paths, columns=self.columns, reading=self._reading, log=log):
            text = joined([str(record.fields[column]) for column in self.columns])
            if seen.seen(text):
                duplicates += 1
            else:
                yield text
        log.finish()
        self.duplicates += duplicates
