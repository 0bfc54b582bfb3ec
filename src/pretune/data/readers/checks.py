"""What every record must have, whatever file it comes from."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pretune.data.record_log import RecordLog
from pretune.errors import DataError, suggestion
from pretune.types import Record


def check_columns(name: str, columns: tuple[str, ...], there: Sequence[str]) -> None:
    """Refuse a file that lacks a column altogether.

    Raises:
        DataError: a column is not there.
    """
    missing = [column for column in columns if column not in there]
    if missing:
        listed = ", ".join(there) or "none"
        hint = suggestion(missing[0], there) if there else ""
        hint = f"; {hint}" if hint.startswith("did") else ""
        raise DataError(f"{name}: no column {missing[0]!r}; there are: {listed}{hint}")


def check_text_only(name: str, columns: tuple[str, ...]) -> None:
    """Refuse to look for a label in a file that is a document as a whole.

    Raises:
        DataError: other columns than ``text`` are wanted.
    """
    if columns != ("text",):
        raise DataError(f"{name}: plain text has only the field 'text', not {', '.join(columns)}")


def checked(
    fields: Mapping[str, Any], name: str, line: int, columns: tuple[str, ...], log: RecordLog
) -> Iterator[Record]:
    """The record if its columns are text; otherwise it goes to the log."""
    for column in columns:
        value = fields.get(column)
        if isinstance(value, int | float) and column != "text":  # a label may be a number: 0, 1, true
            value = json.dumps(value)
            fields = {**fields, column: value}
        if not isinstance(value, str) or not value.strip():
            fault = "missing" if value is None else "empty" if value in ("", [], {}) else None
            if isinstance(value, str):
                fault = "empty"
            log.reject(name, line, f"{column!r} is {fault or f'{type(value).__name__}, not text'}")
            return
    log.good += 1
    yield Record(fields, name, line)
