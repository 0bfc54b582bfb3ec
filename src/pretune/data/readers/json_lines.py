"""JSON lines: an object a line."""

from __future__ import annotations

import json
from collections.abc import Iterator

import orjson

from pretune.data.encodings import WAY_OUT
from pretune.data.items import Item, Text
from pretune.data.readers.checks import check_columns, checked
from pretune.data.record_log import RecordLog
from pretune.types import Record


def read(item: Item, columns: tuple[str, ...], log: RecordLog) -> Iterator[Record]:
    """The objects, with all their fields.

    Raises:
        DataError: the first object lacks a column.
        Damage: the file is damaged.
    """
    seen = False
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
        if not seen:
            check_columns(item.name, columns, list(fields))
            seen = True
        yield from checked(fields, item.name, number, columns, log)


def fault(line: bytes, error: json.JSONDecodeError) -> str:
    """Why a line is no JSON."""
    try:
        line.decode("utf-8")
    except UnicodeDecodeError as found:
        return f"byte {found.start} of the line is no UTF-8; {WAY_OUT}"
    if b"\0" in line:
        return f"byte {line.index(0)} of the line is zero"
    return f"no JSON: {error}"
