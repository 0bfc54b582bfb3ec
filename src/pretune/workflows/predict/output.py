"""Answers to the records of a file, written as they come."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pretune.data.sources.read_options import ReadOptions
from pretune.data.sources.records import RecordLog, read_records
from pretune.errors import DataError, UsageError
from pretune.runtime import atomic_files, lock
from pretune.text.tokenizer import replace_surrogates
from pretune.types import Record

ProcessRecords = Callable[[Sequence[Record]], Iterable[dict[str, Any]]]


def process_file(
    data: str | Path,
    out: str | Path,
    process: ProcessRecords,
    *,
    reading: ReadOptions,
    chunk_size: int,
    overwrite: bool = False,
) -> tuple[int, RecordLog]:
    """Answer the records of ``data``, ``chunk_size`` at a time, into the JSON lines of ``out``: (answers,
    log).

    The output grows in a ``.partial`` file, which gets its name at the end. A record that ``process`` refuses
    with a UsageError is a bad record.

    Raises:
        DataError: unusable data, or an output that cannot be written.
        UsageError: ``out`` is a folder, or is there already and ``overwrite`` is not given.
        ConfigError: another process writes ``out``.
    """
    path = Path(out)
    with lock.acquire(lock.lock_path(path), path, DataError):
        atomic_files.check_file(path, overwrite=overwrite)
        return _write_lines(str(data), path, process, reading, chunk_size)


def _write_lines(
    data: str, path: Path, process: ProcessRecords, reading: ReadOptions, chunk_size: int
) -> tuple[int, RecordLog]:
    log = RecordLog()
    records = read_records((data,), read_options=reading, log=log)
    partial, count = path.with_name(f".{path.name}.partial"), 0
    try:
        with partial.open("w", encoding="utf-8") as file:
            for row in _process_chunks(records, process, chunk_size, log):
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
                count += 1
        log.raise_if_too_many_bad()
        partial.replace(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error}") from None
    finally:
        partial.unlink(missing_ok=True)
    return count, log


def _process_chunks(
    records: Iterator[Record], process: ProcessRecords, chunk_size: int, log: RecordLog
) -> Iterator[dict[str, Any]]:
    while some := list(itertools.islice(records, chunk_size)):
        try:
            rows = list(process(some))
        except (DataError, UsageError):  # one of them: they are asked again, each alone
            rows = [one for record in some for one in _process_one(record, process, log)]
        yield from rows


def _process_one(record: Record, process: ProcessRecords, log: RecordLog) -> Iterator[dict[str, Any]]:
    try:
        yield from process([record])
    except (DataError, UsageError) as error:
        log.num_good -= 1
        log.reject(record.path, record.line, str(error))


def echo_fields(record: Record) -> dict[str, Any]:
    """What of a record is repeated in its answer."""
    given = {key: record.fields[key] for key in ("id", "text") if key in record.fields}
    return {
        key: replace_surrogates(value) if isinstance(value, str) else value for key, value in given.items()
    }
