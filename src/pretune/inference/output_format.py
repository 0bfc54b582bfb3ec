"""Answers as bytes: JSON lines, or a table."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pretune.errors import DataError

Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class OutputFormat:
    """How answers are written."""

    format_header: Callable[[Sequence[str]], bytes]
    """What precedes them, of the columns."""
    format_rows: Callable[[Rows, Sequence[str]], bytes]


def _to_json_lines(rows: Rows, columns: Sequence[str]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def _to_csv(rows: Rows, columns: Sequence[str]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for row in rows:
        unknown = row.keys() - set(columns)
        if unknown:
            raise DataError(f"the table has no column {min(unknown)!r}; give --out a name in .jsonl")
        writer.writerow([_cell(row.get(name)) for name in columns])
    return text.getvalue().encode()


def _cell(value: Any) -> Any:
    """Several labels with ``|`` between them, as they are read; anything else with parts as JSON.

    Labels that would not be read back so, since one of them holds a mark, are a list as JSON, too.
    """
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        joined = "|".join(value)
        if not any(mark in item for item in value for mark in _LABEL_SEPARATORS) and not joined.startswith(
            "["
        ):
            return joined
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else value


_LABEL_SEPARATORS = ("|", ";")
"""Between the labels of a cell, where a table is read."""


def _csv_header(columns: Sequence[str]) -> bytes:
    return _to_csv([dict(zip(columns, columns, strict=True))], columns)


FORMATS = {
    ".jsonl": OutputFormat(lambda columns: b"", _to_json_lines),
    ".csv": OutputFormat(_csv_header, _to_csv),
}
"""By the suffix of the file."""
