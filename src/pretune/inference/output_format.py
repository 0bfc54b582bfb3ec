"""Answers as bytes: JSON lines, or a table."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pretune.errors import DataError

Answers = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Format:
    """How answers are written."""

    head: Callable[[Sequence[str]], bytes]
    """What precedes them, of the columns."""
    body: Callable[[Answers, Sequence[str]], bytes]


def _lines(answers: Answers, columns: Sequence[str]) -> bytes:
    return "".join(json.dumps(answer, ensure_ascii=False) + "\n" for answer in answers).encode()


def _table(answers: Answers, columns: Sequence[str]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for answer in answers:
        unknown = answer.keys() - set(columns)
        if unknown:
            raise DataError(f"the table has no column {min(unknown)!r}; give --out a name in .jsonl")
        writer.writerow([_cell(answer.get(name)) for name in columns])
    return text.getvalue().encode()


def _cell(value: Any) -> Any:
    """Several labels with ``|`` between them, as they are read; anything else with parts as JSON.

    Labels that would not be read back so, since one of them holds a mark, are a list as JSON, too.
    """
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        joined = "|".join(value)
        if not any(mark in item for item in value for mark in _MARKS) and not joined.startswith("["):
            return joined
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else value


_MARKS = ("|", ";")
"""Between the labels of a cell, where a table is read."""


def _header(columns: Sequence[str]) -> bytes:
    return _table([dict(zip(columns, columns, strict=True))], columns)


FORMATS = {".jsonl": Format(lambda columns: b"", _lines), ".csv": Format(_header, _table)}
"""By the suffix of the file."""
