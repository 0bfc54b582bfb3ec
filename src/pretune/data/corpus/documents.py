"""The documents of a text's sources, on either side of the split between training and held-out text."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pretune.config import digest
from pretune.data.cleaning.exact_duplicates import ExactDuplicates
from pretune.data.corpus.token_shards import (
    TEXT_SEPARATOR,
    held_out_mask,
    join_texts,
    piece_size,
    split_document,
)
from pretune.data.sources.read_options import ReadOptions
from pretune.data.sources.records import RecordLog, read_records
from pretune.data.sources.text_cache import TextCache
from pretune.errors import DataError

MIN_FOR_TWO_HELD_OUT = 20
"""Documents from which on two are held out at least."""


def pieces_path(cache_path: Path) -> Path:
    """Where the pieces of a small corpus are spooled."""
    return cache_path.with_name(f"pieces.{cache_path.name}")


class DocumentSplit:
    """The documents of the sources, each once, on either side of the split; read once, kept in a spool."""

    def __init__(
        self,
        sources: tuple[str, ...],
        validation: tuple[str, ...],
        validation_fraction: float,
        cache_path: Path,
        columns: tuple[str, ...],
        reading: ReadOptions | None,
    ) -> None:
        self.validation_files, self.columns, self._reading = validation, columns, reading
        self.num_duplicates = 0
        self.log = RecordLog()
        self._cache = self._split_small_corpus(TextCache(self._iter_unique(sources, self.log), cache_path))
        self._held_out = np.zeros(len(self._cache), bool)
        if validation:
            return
        if len(self._cache) < 2:
            raise DataError(
                f"{', '.join(sources)}: {len(self._cache)} document{self.left_out_summary()}: too little "
                "to train "
                "on one part and hold out another; give more text, or other text as validation"
            )
        # A sentence pair needs a second document to draw from; of a handful of texts one must do.
        least = 2 if len(self._cache) >= MIN_FOR_TWO_HELD_OUT else 1
        self._held_out = held_out_mask(self._cache.hashes, validation_fraction, seed=0, min_count=least)

    def train_documents(self) -> Iterator[str]:
        """The documents to train on."""
        return self._cache.iter_texts(~self._held_out)

    def train_texts(self) -> Iterator[str]:
        """The texts to train on: of a pair each apart."""
        pairs = len(self.columns) > 1
        return itertools.chain.from_iterable(
            document.split(TEXT_SEPARATOR) if pairs else (document,) for document in self.train_documents()
        )

    def validation_documents(self) -> Iterator[str]:
        """The documents held out."""
        if self.validation_files:
            return self._iter_unique(self.validation_files, RecordLog())
        return self._cache.iter_texts(self._held_out)

    def digest(self, *choices: object) -> str:
        """Of the documents to train on, in their order, and of the choices that go with them."""
        return digest([self._cache.hashes[~self._held_out].tolist(), self.columns, choices])

    def left_out_summary(self) -> str:
        """What was left out of the sources."""
        remarks = [f"{self.num_duplicates:,} duplicates left out"] if self.num_duplicates else []
        if self.log.has_notes:
            remarks.append(self.log.summary())
        return "".join(f"; {remark}" for remark in remarks)

    def _split_small_corpus(self, documents: TextCache) -> TextCache:
        """The documents; of a small corpus their pieces, so that a share of them is a sample."""
        size = piece_size(len(documents), documents.num_characters)
        if size is None or self.validation_files or len(self.columns) > 1:
            return documents
        pieces = TextCache(
            (piece for text in documents.iter_texts() for piece in split_document(text, size)),
            pieces_path(documents.path),
        )
        pieces.path.replace(documents.path)
        pieces.path = documents.path
        return pieces

    def _iter_unique(self, paths: tuple[str, ...], log: RecordLog) -> Iterator[str]:
        seen, duplicates = ExactDuplicates(), 0
        for record in read_records(paths, columns=self.columns, read_options=self._reading, log=log):
            text = join_texts([str(record.fields[column]) for column in self.columns])
            if seen.is_duplicate(text):
                duplicates += 1
            else:
                yield text
        log.raise_if_too_many_bad()
        self.num_duplicates += duplicates
