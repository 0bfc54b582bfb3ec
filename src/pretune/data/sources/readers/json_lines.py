"""JSON lines: an object a line."""

from __future__ import annotations

import json
from collections.abc import Iterator

import orjson

from pretune.data.sources.charsets import way_out
from pretune.data.sources.columns import Columns
from pretune.data.sources.corrupt import Damage
from pretune.data.sources.input_file import Item, Text
from pretune.data.sources.readers.json_values import Objects, read_values, shape_of
from pretune.data.sources.record_log import RecordLog
from pretune.types import Record


def read(item: Item, columns: Columns, log: RecordLog) -> Iterator[Record]:
    """The objects, with all their fields; those of a list, or printed over several lines, too.

    Raises:
        DataError: the first object lacks a column.
        Damage: the file is damaged.
    """
    shape = shape_of(item)
    if shape == "lines":
        yield from read_lines(item, columns, log)
        return
    called = "a list of objects" if shape == "list" else "objects over several lines each"
    log.note(item.name, f"read as {called}")
    yield from read_values(item, columns, log, bare=shape == "objects")


def read_lines(item: Item, columns: Columns, log: RecordLog) -> Iterator[Record]:
    """The object of each line.

    Raises:
        DataError: the first object lacks a column.
        Damage: the file is damaged.
    """
    objects = Objects(item.name, columns, log)
    for number, line in Text(item, log).lines():
        if not line.strip():
            continue
        try:
            fields = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            log.reject(item.name, number, fault(line, error))
            continue
        if not isinstance(fields, dict):
            log.reject(item.name, number, f"expected an object, found {type(fields).__name__}")
            continue
        yield from objects.records(number, fields)
    objects.finish()


def begins_with_object(item: Item) -> bool:
    """Is the first line an object by itself?"""
    try:
        first = next((line for _, line in Text(item, RecordLog()).lines() if line.strip()), b"")
        return isinstance(orjson.loads(first), dict)
    except (orjson.JSONDecodeError, Damage):
        return False


def fault(line: bytes, error: json.JSONDecodeError) -> str:
    """Why a line is no JSON."""
    try:
        line.decode("utf-8")
    except UnicodeDecodeError as found:
        return f"byte {found.start} of the line is no UTF-8; {way_out(line)}"
    if b"\0" in line:
        return f"byte {line.index(0)} of the line is zero"
    return f"no JSON: {error}"
