"""Parquet: rows of columns, a row group at a time."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import pyarrow
from pyarrow import parquet

from pretune.data.sources.columns import ColumnMatch, ColumnSpec
from pretune.data.sources.corrupt import CorruptFileError, error_reason
from pretune.data.sources.input_file import InputFile
from pretune.data.sources.readers.checks import check_record, match_columns
from pretune.data.sources.record_log import RecordLog
from pretune.types import Record

_BATCH_ROWS = 256
_PARQUET_ERRORS = (pyarrow.ArrowException, OSError, ValueError)
"""What pyarrow raises for damaged data; its own exceptions are partly builtin ones."""


def read(input_file: InputFile, columns: ColumnSpec, log: RecordLog) -> Iterator[Record]:
    """The rows, with all their columns; a Record's line is its row, from 1.

    Texts in columns of bytes, as some writers leave them, are decoded as UTF-8. Of a file with a damaged row
    group the others are read.

    Raises:
        DataError: a column is not there.
        Damage: the file is no Parquet, is cut off, or part of it is damaged.
    """
    with _open_on_disk(input_file) as file:
        try:
            table = parquet.ParquetFile(file, pre_buffer=False, page_checksum_verification=True)
            size = input_file.path.stat().st_size if input_file.path else 0
        except _PARQUET_ERRORS as error:
            raise CorruptFileError(error_reason(error, "no Parquet, or cut off: ")) from None
        match = match_columns(input_file.name, columns, table.schema_arrow.names, log)
        damage: CorruptFileError | None = None
        start = 0
        for group in range(table.num_row_groups):
            try:
                yield from _iter_rows(table, group, start, input_file.name, match, log)
            except CorruptFileError as found:
                damage = damage or found
            start += table.metadata.row_group(group).num_rows
            log.bytes_read += size // table.num_row_groups
        if damage is not None:
            raise damage


def _iter_rows(
    table: Any, group: int, start: int, name: str, match: ColumnMatch, log: RecordLog
) -> Iterator[Record]:
    row = start
    batches = table.iter_batches(batch_size=_BATCH_ROWS, row_groups=[group])
    while True:
        try:
            batch = next(batches, None)
        except _PARQUET_ERRORS as error:
            raise CorruptFileError(
                f"row group {group} is damaged from row {row + 1:,} on: {error_reason(error)}"
            ) from None
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
            yield from check_record(fields, name, row, match, log)


@contextmanager
def _open_on_disk(input_file: InputFile) -> Iterator[str | BinaryIO]:
    """The file, or what is packed written to a temporary one, since Parquet is read from its end."""
    if input_file.path is not None:
        yield str(input_file.path)
        return
    with tempfile.TemporaryFile() as file:
        try:
            for block in input_file.blocks():
                file.write(block)
            file.seek(0)
        except OSError as error:
            raise CorruptFileError(
                f"cannot be unpacked into a temporary file: {error.strerror}; set TMPDIR"
            ) from None
        yield file
