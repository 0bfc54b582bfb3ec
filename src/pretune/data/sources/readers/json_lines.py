"""JSON lines: an object a line."""

from __future__ import annotations

import json
from collections.abc import Iterator

import orjson

from pretune.data.sources.charsets import utf8_hint
from pretune.data.sources.columns import ColumnSpec
from pretune.data.sources.corrupt import CorruptFileError
from pretune.data.sources.input_file import InputFile, TextFile
from pretune.data.sources.readers.json_values import ObjectRecords, detect_json_format, read_values
from pretune.data.sources.record_log import RecordLog
from pretune.types import Record


def read(input_file: InputFile, columns: ColumnSpec, log: RecordLog) -> Iterator[Record]:
    """The objects, with all their fields; those of a list, or printed over several lines, too.

    Raises:
        DataError: the first object lacks a column.
        Damage: the file is damaged.
    """
    shape = detect_json_format(input_file)
    if shape == "lines":
        yield from read_lines(input_file, columns, log)
        return
    called = "a list of objects" if shape == "list" else "objects over several lines each"
    log.add_note(input_file.name, f"read as {called}")
    yield from read_values(input_file, columns, log, concatenated=shape == "objects")


def read_lines(input_file: InputFile, columns: ColumnSpec, log: RecordLog) -> Iterator[Record]:
    """The object of each line.

    Raises:
        DataError: the first object lacks a column.
        Damage: the file is damaged.
    """
    objects = ObjectRecords(input_file.name, columns, log)
    for number, line in TextFile(input_file, log).iter_lines():
        if not line.strip():
            continue
        try:
            fields = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            log.reject(input_file.name, number, json_error_reason(line, error))
            continue
        if not isinstance(fields, dict):
            log.reject(input_file.name, number, f"expected an object, found {type(fields).__name__}")
            continue
        yield from objects.iter_records(number, fields)
    objects.finish()


def first_line_is_object(input_file: InputFile) -> bool:
    """Is the first line an object by itself?"""
    try:
        first = next(
            (line for _, line in TextFile(input_file, RecordLog()).iter_lines() if line.strip()), b""
        )
        return isinstance(orjson.loads(first), dict)
    except (orjson.JSONDecodeError, CorruptFileError):
        return False


def json_error_reason(line: bytes, error: json.JSONDecodeError) -> str:
    """Why a line is no JSON."""
    try:
        line.decode("utf-8")
    except UnicodeDecodeError as found:
        return f"byte {found.start} of the line is no UTF-8; {utf8_hint(line)}"
    if b"\0" in line:
        return f"byte {line.index(0)} of the line is zero"
    return f"no JSON: {error}"
