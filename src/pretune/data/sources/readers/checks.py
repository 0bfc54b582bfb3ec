"""What every record must have, whatever file it comes from."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pretune.data.sources.columns import ColumnMatch, ColumnSpec
from pretune.data.sources.record_log import RecordLog
from pretune.errors import DataError
from pretune.types import Record


def match_columns(name: str, columns: ColumnSpec, available: Sequence[str], log: RecordLog) -> ColumnMatch:
    """The column of each field in a file; what is read from a column of another name goes to the log.

    Raises:
        DataError: a field that is needed has no column.
    """
    match = columns.match(name, available)
    log.record_columns(name, match.columns, match.describe_renames(columns.user_columns))
    return match


def check_text_only(name: str, columns: ColumnSpec) -> None:
    """Refuse to look for a label in a file that is a document as a whole.

    Raises:
        DataError: other fields than ``text`` are needed.
    """
    if not columns.is_document:
        raise DataError(f"{name}: plain text has only the field 'text', not {columns.required_names()}")


def check_record(
    values: Mapping[str, Any], name: str, line: int, match: ColumnMatch, log: RecordLog
) -> Iterator[Record]:
    """The record if its fields of text are text; otherwise it goes to the log."""
    fields = match.to_fields(values)
    for field in match.fields:
        if not (field.required and field.is_text):
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
            log.reject(name, line, f"{match.describe_field(field.name)} is {fault}")
            return
    log.num_good += 1
    yield Record(fields, name, line)
