"""What every record must have, whatever file it comes from."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pretune.data.sources.columns import Columns, Match
from pretune.data.sources.record_log import RecordLog
from pretune.errors import DataError
from pretune.types import Record


def match_columns(name: str, columns: Columns, there: Sequence[str], log: RecordLog) -> Match:
    """The column of each field in a file; what is read from a column of another name goes to the log.

    Raises:
        DataError: a field that is needed has no column.
    """
    match = columns.match(name, there)
    log.matched(name, match.columns, match.remark(columns.given))
    return match


def check_text_only(name: str, columns: Columns) -> None:
    """Refuse to look for a label in a file that is a document as a whole.

    Raises:
        DataError: other fields than ``text`` are needed.
    """
    if not columns.document:
        raise DataError(f"{name}: plain text has only the field 'text', not {columns.needed()}")


def checked(
    values: Mapping[str, Any], name: str, line: int, match: Match, log: RecordLog
) -> Iterator[Record]:
    """The record if its fields of text are text; otherwise it goes to the log."""
    fields = match.record(values)
    for field in match.fields:
        if not (field.needed and field.text):
            continue
        value = fields.get(field.name)
        if isinstance(value, int | float) and field.name != "text":  # a label may be a number: 0, 1, true
            value = json.dumps(value)
            fields = {**fields, field.name: value}
        if not isinstance(value, str) or not value.strip():
            fault = "missing" if value is None else "empty" if value in ("", [], {}) else None
            if isinstance(value, str):
                fault = "empty"
            fault = fault or f"{type(value).__name__}, not text"
            log.reject(name, line, f"{match.said(field.name)} is {fault}")
            return
    log.good += 1
    yield Record(fields, name, line)
