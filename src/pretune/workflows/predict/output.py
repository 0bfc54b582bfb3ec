"""Answers to the records of a file, written as they come."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pretune.data.sources.read_options import Reading
from pretune.data.sources.records import RecordLog, read_records
from pretune.errors import DataError, UsageError
from pretune.runtime import atomic_files, lock
from pretune.text.tokenizer import well_formed
from pretune.types import Record

Answer = Callable[[Sequence[Record]], Iterable[dict[str, Any]]]


def answer_file(
    data: str | Path,
    out: str | Path,
    answer: Answer,
    *,
    reading: Reading,
    chunk: int,
    overwrite: bool = False,
) -> tuple[int, RecordLog]:
    """Answer the records of ``data``, ``chunk`` at a time, into the JSON lines of ``out``: (answers, log).

    The output grows in a ``.partial`` file, which gets its name at the end. A record that ``answer`` refuses
    with a UsageError is a bad record.

    Raises:
        DataError: unusable data, or an output that cannot be written.
        UsageError: ``out`` is a folder, or is there already and ``overwrite`` is not given.
        ConfigError: another process writes ``out``.
    """
    path = Path(out)
    with lock.held(lock.beside(path), path, DataError):
        atomic_files.check_file(path, overwrite=overwrite)
        return _written(str(data), path, answer, reading, chunk)


def _written(data: str, path: Path, answer: Answer, reading: Reading, chunk: int) -> tuple[int, RecordLog]:
    log = RecordLog()
    records = read_records((data,), reading=reading, log=log)
    growing, count = path.with_name(f".{path.name}.partial"), 0
    try:
        with growing.open("w", encoding="utf-8") as file:
            for said in _answers(records, answer, chunk, log):
                file.write(json.dumps(said, ensure_ascii=False) + "\n")
                count += 1
        log.finish()
        growing.replace(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error}") from None
    finally:
        growing.unlink(missing_ok=True)
    return count, log


def _answers(
    records: Iterator[Record], answer: Answer, chunk: int, log: RecordLog
) -> Iterator[dict[str, Any]]:
    while some := list(itertools.islice(records, chunk)):
        try:
            said = list(answer(some))
        except (DataError, UsageError):  # one of them: they are asked again, each alone
            said = [one for record in some for one in _alone(record, answer, log)]
        yield from said


def _alone(record: Record, answer: Answer, log: RecordLog) -> Iterator[dict[str, Any]]:
    try:
        yield from answer([record])
    except (DataError, UsageError) as error:
        log.good -= 1
        log.reject(record.path, record.line, str(error))


def given(record: Record) -> dict[str, Any]:
    """What of a record is repeated in its answer."""
    given = {key: record.fields[key] for key in ("id", "text") if key in record.fields}
    return {key: well_formed(value) if isinstance(value, str) else value for key, value in given.items()}
