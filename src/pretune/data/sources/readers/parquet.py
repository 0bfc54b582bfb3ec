"""Parquet: rows of columns, a row group at a time."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import pyarrow
from pyarrow import parquet

from pretune.data.sources.columns import Columns, Match
from pretune.data.sources.corrupt import Damage, told
from pretune.data.sources.input_file import Item
from pretune.data.sources.readers.checks import checked, match_columns
from pretune.data.sources.record_log import RecordLog
from pretune.types import Record

_BATCH_ROWS = 256
_FAULTS = (pyarrow.ArrowException, OSError, ValueError)
"""What pyarrow raises for damaged data; its own exceptions are partly builtin ones."""


def read(item: Item, columns: Columns, log: RecordLog) -> Iterator[Record]:
    """The rows, with all their columns; a Record's line is its row, from 1.

    Texts in columns of bytes, as some writers leave them, are decoded as UTF-8. Of a file with a damaged row
    group the others are read.

    Raises:
        DataError: a column is not there.
        Damage: the file is no Parquet, is cut off, or part of it is damaged.
    """
    with _on_disk(item) as file:
        try:
            table = parquet.ParquetFile(file, pre_buffer=False, page_checksum_verification=True)
            size = item.path.stat().st_size if item.path else 0
        except _FAULTS as error:
            raise Damage(told(error, "no Parquet, or cut off: ")) from None
        match = match_columns(item.name, columns, table.schema_arrow.names, log)
        damage: Damage | None = None
        start = 0
        for group in range(table.num_row_groups):
            try:
                yield from _rows(table, group, start, item.name, match, log)
            except Damage as found:
                damage = damage or found
            start += table.metadata.row_group(group).num_rows
            log.bytes_read += size // table.num_row_groups
        if damage is not None:
            raise damage


def _rows(table: Any, group: int, start: int, name: str, match: Match, log: RecordLog) -> Iterator[Record]:
    row = start
    batches = table.iter_batches(batch_size=_BATCH_ROWS, row_groups=[group])
    while True:
        try:
            batch = next(batches, None)
        except _FAULTS as error:
            raise Damage(f"row group {group} is damaged from row {row + 1:,} on: {told(error)}") from None
        if batch is None:
            return
        for place in range(batch.num_rows):
            row += 1
            try:
                fields = {key: batch.column(at)[place].as_py() for at, key in enumerate(batch.schema.names)}
                for key in match.columns.values():
                    if isinstance(fields[key], bytes):
                        fields[key] = fields[key].decode("utf-8")
            except ValueError as error:
                log.reject(name, row, f"a value cannot be read: {error}")
                continue
            yield from checked(fields, name, row, match, log)


@contextmanager
def _on_disk(item: Item) -> Iterator[str | BinaryIO]:
    """The file, or what is packed written to a temporary one, since Parquet is read from its end."""
    if item.path is not None:
        yield str(item.path)
        return
    with tempfile.TemporaryFile() as file:
        try:
            for block in item.blocks():
                file.write(block)
            file.seek(0)
        except OSError as error:
            raise Damage(f"cannot be unpacked into a temporary file: {error.strerror}; set TMPDIR") from None
        yield file
