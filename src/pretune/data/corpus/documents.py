"""The documents of a text's sources, on either side of the split between training and held-out text."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pretune.config import digest
from pretune.data.cleaning.exact_duplicates import ExactDuplicates
from pretune.data.corpus.token_shards import BETWEEN, cut, joined, piece_size, split
from pretune.data.sources.read_options import Reading
from pretune.data.sources.records import RecordLog, read_records
from pretune.data.sources.text_cache import Spool
from pretune.errors import DataError

SEVERAL = 20
"""Documents from which on two are held out at least."""


def cut_up(spool: Path) -> Path:
    """Where the pieces of a small corpus are spooled."""
    return spool.with_name(f"pieces.{spool.name}")


class Documents:
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
        pieces = Spool((piece for text in whole.texts() for piece in cut(text, size)), cut_up(whole.path))
        pieces.path.replace(whole.path)
        pieces.path = whole.path
        return pieces

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
