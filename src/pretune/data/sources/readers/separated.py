"""Rows of values, separated by commas, tabs, semicolons or bars, under a header row."""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Iterator
from dataclasses import replace

from pretune.data.sources.charsets import way_out
from pretune.data.sources.columns import Columns
from pretune.data.sources.input_file import MAX_LINE_BYTES, Item, Text
from pretune.data.sources.readers.checks import checked, match_columns
from pretune.data.sources.readers.rows import NAMES, Dialect, Rows
from pretune.data.sources.record_log import RecordLog
from pretune.types import Record

_SAMPLE_LINES = 200
_QUOTES = {"\t": ('"', None, "'"), ",": ('"', "'"), ";": ('"', "'"), "|": ('"', "'")}
"""What values may stand in; only between tabs do people write them bare, whatever quotes they hold."""


_TOLD = re.compile(r'"?sep=([\t,;|])"?\s*')
"""A line before the header by which spreadsheets tell each other the delimiter."""


def read(item: Item, columns: Columns, log: RecordLog) -> Iterator[Record]:
    """The rows; a Record's line is the line of the file on which its row ends.

    Raises:
        DataError: the header row lacks a column under every delimiter.
        Damage: the file is damaged.
    """
    csv.field_size_limit(MAX_LINE_BYTES)
    lines = _decoded(item, log)
    sample: list[tuple[int, str]] = []
    first = itertools.islice(lines, _SAMPLE_LINES)
    sample.extend(first)
    usual = Dialect("\t" if item.suffix == ".tsv" else ",")
    if sample and (told := _TOLD.fullmatch(sample[0][1])):
        usual, sample = Dialect(told[1]), sample[1:]
    dialect = recognise([line for _, line in sample], columns, usual)
    if dialect != usual:
        log.note(item.name, f"read as {dialect}")
    texts = [line for _, line in sample]
    rows = Rows(
        itertools.chain(sample, lines), replace(dialect, spaced=_spaced(texts, dialect)), item.name, log
    )
    header = [name.strip() for name in next(rows, (0, []))[1]]
    match = match_columns(item.name, columns, header, log)
    rows.learn(len(header), sample[1:])
    for number, row in rows:
        if len(row) > len(header):
            reason = f"{len(row)} values for {len(header)} columns; is a quote missing?"
            log.reject(item.name, number, reason)
        elif row:
            yield from checked(dict(zip(header, row, strict=False)), item.name, number, match, log)


def _decoded(item: Item, log: RecordLog) -> Iterator[tuple[int, str]]:
    for number, line in Text(item, log).lines():
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError as error:
            log.reject(item.name, number, f"byte {error.start} of the line is no UTF-8; {way_out(line)}")
            continue
        if "\0" in text:
            log.reject(item.name, number, f"byte {line.index(0)} of the line is zero")
            continue
        yield number, text


def recognise(lines: list[str], columns: Columns, usual: Dialect) -> Dialect:
    """The usual dialect where it fits; else the one other that does; else the usual one.

    A dialect fits if its header has the columns, each row as many values as the header, and no values are
    left in quotes.
    """
    if not lines or _fits(lines, columns, usual, usual):
        return usual
    others = [Dialect(d, q) for d in (usual.delimiter, *NAMES) for q in _QUOTES[d]]
    fit = [dialect for dialect in dict.fromkeys(others) if _fits(lines, columns, dialect, usual)]
    if len({dialect.delimiter for dialect in fit}) == 1:
        return fit[0]
    # Some row is damaged under every dialect: the header alone decides where only one delimiter gives it.
    headed = [dialect for dialect in dict.fromkeys((usual, *others)) if _headed(lines, columns, dialect)]
    if len({dialect.delimiter for dialect in headed}) == 1:
        return headed[0]
    # No header has them: what the columns are is still to be said rightly.
    even = [dialect for dialect in dict.fromkeys((usual, *others)) if _even(_parsed(lines, dialect), lines)]
    return even[0] if not headed and len({dialect.delimiter for dialect in even}) == 1 else usual


def _spaced(lines: list[str], dialect: Dialect) -> bool:
    """Does a space follow each delimiter of the header?"""
    header = next(iter(_parsed(lines[:1], replace(dialect, quote=None))), [])
    return len(header) > 1 and all(name.startswith(" ") for name in header[1:])


def _headed(lines: list[str], columns: Columns, dialect: Dialect) -> bool:
    return columns.fits([name.strip() for row in _parsed(lines[:1], dialect) for name in row])


def _parsed(lines: list[str], dialect: Dialect) -> list[list[str]]:
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


def _fits(lines: list[str], columns: Columns, dialect: Dialect, usual: Dialect) -> bool:
    rows = _parsed(lines, dialect)
    if not rows or not _headed(lines, columns, dialect):
        return False
    if dialect.delimiter != usual.delimiter and len(rows[0]) == 1:
        return False  # one column has no delimiter to recognise
    if dialect.quote == "'" and not re.search(rf"(^|[{dialect.delimiter}])'", "".join(lines), re.MULTILINE):
        return False  # nothing is quoted so
    whole = _whole(rows, lines)
    if any(len(row) != len(rows[0]) for row in whole):
        return False
    return not any(_left_quoted([row[place] for row in whole[1:]]) for place in range(len(rows[0])))


def _whole(rows: list[list[str]], lines: list[str]) -> list[list[str]]:
    """The rows without a last one that the sample may cut."""
    return rows[:-1] if len(lines) == _SAMPLE_LINES and len(rows) > 2 else rows


def _even(rows: list[list[str]], lines: list[str]) -> bool:
    """Have all rows as many values as the header, more than one?"""
    whole = _whole(rows, lines)
    return bool(whole) and len(whole[0]) > 1 and all(len(row) == len(whole[0]) for row in whole)


def _left_quoted(values: list[str]) -> bool:
    """Do most of some values stand in quotes of one kind that were not taken off?"""
    return len(values) > 1 and any(
        sum(len(value) > 1 and value[0] == quote == value[-1] for value in values) > 0.8 * len(values)
        for quote in "'\""
    )
