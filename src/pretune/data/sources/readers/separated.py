"""Rows of values, separated by commas, tabs, semicolons or bars, under a header row."""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Iterator
from dataclasses import replace

from pretune.data.sources.charsets import utf8_hint
from pretune.data.sources.columns import ColumnSpec
from pretune.data.sources.input_file import MAX_LINE_BYTES, InputFile, TextFile
from pretune.data.sources.readers.checks import check_record, match_columns
from pretune.data.sources.readers.rows import DELIMITER_NAMES, Dialect, RowParser
from pretune.data.sources.record_log import RecordLog
from pretune.types import Record

_SAMPLE_LINES = 200
_QUOTES = {"\t": ('"', None, "'"), ",": ('"', "'"), ";": ('"', "'"), "|": ('"', "'")}
"""What values may stand in; only between tabs do people write them bare, whatever quotes they hold."""


_SEP_LINE = re.compile(r'"?sep=([\t,;|])"?\s*')
"""A line before the header by which spreadsheets tell each other the delimiter."""


def read(input_file: InputFile, columns: ColumnSpec, log: RecordLog) -> Iterator[Record]:
    """The rows; a Record's line is the line of the file on which its row ends.

    Raises:
        DataError: the header row lacks a column under every delimiter.
        Damage: the file is damaged.
    """
    csv.field_size_limit(MAX_LINE_BYTES)
    lines = _iter_decoded_lines(input_file, log)
    sample: list[tuple[int, str]] = []
    first = itertools.islice(lines, _SAMPLE_LINES)
    sample.extend(first)
    default = Dialect("\t" if input_file.suffix == ".tsv" else ",")
    if sample and (sep_line := _SEP_LINE.fullmatch(sample[0][1])):
        default, sample = Dialect(sep_line[1]), sample[1:]
    dialect = detect_dialect([line for _, line in sample], columns, default)
    if dialect != default:
        log.add_note(input_file.name, f"read as {dialect}")
    texts = [line for _, line in sample]
    rows = RowParser(
        itertools.chain(sample, lines),
        replace(dialect, skip_initial_space=_has_initial_spaces(texts, dialect)),
        input_file.name,
        log,
    )
    header = [name.strip() for name in next(rows, (0, []))[1]]
    match = match_columns(input_file.name, columns, header, log)
    rows.fit_profile(len(header), sample[1:])
    for number, row in rows:
        if len(row) > len(header):
            reason = f"{len(row)} values for {len(header)} columns; is a quote missing?"
            log.reject(input_file.name, number, reason)
        elif row:
            yield from check_record(dict(zip(header, row, strict=False)), input_file.name, number, match, log)


def _iter_decoded_lines(input_file: InputFile, log: RecordLog) -> Iterator[tuple[int, str]]:
    for number, line in TextFile(input_file, log).iter_lines():
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError as error:
            log.reject(
                input_file.name, number, f"byte {error.start} of the line is no UTF-8; {utf8_hint(line)}"
            )
            continue
        if "\0" in text:
            log.reject(input_file.name, number, f"byte {line.index(0)} of the line is zero")
            continue
        yield number, text


def detect_dialect(lines: list[str], columns: ColumnSpec, default: Dialect) -> Dialect:
    """The usual dialect where it fits; else the one other that does; else the usual one.

    A dialect fits if its header has the columns, each row as many values as the header, and no values are
    left in quotes.
    """
    if not lines or _dialect_fits(lines, columns, default, default):
        return default
    others = [Dialect(d, q) for d in (default.delimiter, *DELIMITER_NAMES) for q in _QUOTES[d]]
    fit = [dialect for dialect in dict.fromkeys(others) if _dialect_fits(lines, columns, dialect, default)]
    if len({dialect.delimiter for dialect in fit}) == 1:
        return fit[0]
    # Some row is damaged under every dialect: the header alone decides where only one delimiter gives it.
    headed = [
        dialect for dialect in dict.fromkeys((default, *others)) if _header_matches(lines, columns, dialect)
    ]
    if len({dialect.delimiter for dialect in headed}) == 1:
        return headed[0]
    # No header has them: what the columns are is still to be said rightly.
    even = [
        dialect
        for dialect in dict.fromkeys((default, *others))
        if _has_equal_widths(_parse_rows(lines, dialect), lines)
    ]
    return even[0] if not headed and len({dialect.delimiter for dialect in even}) == 1 else default


def _has_initial_spaces(lines: list[str], dialect: Dialect) -> bool:
    """Does a space follow each delimiter of the header?"""
    header = next(iter(_parse_rows(lines[:1], replace(dialect, quote=None))), [])
    return len(header) > 1 and all(name.startswith(" ") for name in header[1:])


def _header_matches(lines: list[str], columns: ColumnSpec, dialect: Dialect) -> bool:
    return columns.matches([name.strip() for row in _parse_rows(lines[:1], dialect) for name in row])


def _parse_rows(lines: list[str], dialect: Dialect) -> list[list[str]]:
    """The rows; none if they are no CSV, but for a last one that goes on beyond a sample."""
    rows: list[list[str]] = []
    left = len(lines)

    def counted() -> Iterator[str]:
        nonlocal left
        for line in lines:
            left -= 1
            yield line

    try:
        rows.extend(row for row in dialect.reader(counted()) if row)
    except csv.Error:
        return [] if left or len(lines) < _SAMPLE_LINES else rows
    return rows


def _dialect_fits(lines: list[str], columns: ColumnSpec, dialect: Dialect, default: Dialect) -> bool:
    rows = _parse_rows(lines, dialect)
    if not rows or not _header_matches(lines, columns, dialect):
        return False
    if dialect.delimiter != default.delimiter and len(rows[0]) == 1:
        return False  # one column has no delimiter to recognise
    if dialect.quote == "'" and not re.search(rf"(^|[{dialect.delimiter}])'", "".join(lines), re.MULTILINE):
        return False  # nothing is quoted so
    whole = _complete_rows(rows, lines)
    if any(len(row) != len(rows[0]) for row in whole):
        return False
    return not any(_has_unparsed_quotes([row[place] for row in whole[1:]]) for place in range(len(rows[0])))


def _complete_rows(rows: list[list[str]], lines: list[str]) -> list[list[str]]:
    """The rows without a last one that the sample may cut."""
    return rows[:-1] if len(lines) == _SAMPLE_LINES and len(rows) > 2 else rows


def _has_equal_widths(rows: list[list[str]], lines: list[str]) -> bool:
    """Have all rows as many values as the header, more than one?"""
    whole = _complete_rows(rows, lines)
    return bool(whole) and len(whole[0]) > 1 and all(len(row) == len(whole[0]) for row in whole)


def _has_unparsed_quotes(values: list[str]) -> bool:
    """Do most of some values stand in quotes of one kind that were not taken off?"""
    return len(values) > 1 and any(
        sum(len(value) > 1 and value[0] == quote == value[-1] for value in values) > 0.8 * len(values)
        for quote in "'\""
    )
