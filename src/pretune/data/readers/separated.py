"""Rows of values, separated by commas, tabs, semicolons or bars, under a header row."""

from __future__ import annotations

import csv
import itertools
import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from pretune.data.encodings import WAY_OUT
from pretune.data.items import MAX_LINE_BYTES, Item, Text
from pretune.data.readers.checks import check_columns, checked
from pretune.data.record_log import RecordLog
from pretune.types import Record

_SAMPLE_LINES = 200
MAX_ROW_LINES = 50_000
"""A row of more lines has a quote that is never closed: it is given up, and the rest is read."""
_NAMES = {"\t": "a tab", ",": "a comma", ";": "a semicolon", "|": "a bar"}
_QUOTES = {"\t": ('"', None, "'"), ",": ('"', "'"), ";": ('"', "'"), "|": ('"', "'")}
"""What values may stand in; only between tabs do people write them bare, whatever quotes they hold."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """How rows are cut into values."""

    delimiter: str = ","
    quote: str | None = '"'

    def __str__(self) -> str:
        quote = {None: "no quotes", "'": "single quotes", '"': "double quotes"}[self.quote]
        return f"values separated by {_NAMES[self.delimiter]}, {quote}"

    def reader(self, lines: Iterator[str]) -> Iterator[list[str]]:
        """The rows of some lines."""
        if self.quote is None:
            return csv.reader(lines, delimiter=self.delimiter, quoting=csv.QUOTE_NONE)
        return csv.reader(lines, delimiter=self.delimiter, quotechar=self.quote, strict=True)


def read(item: Item, columns: tuple[str, ...], log: RecordLog) -> Iterator[Record]:
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
    dialect = recognise([line for _, line in sample], columns, usual)
    if dialect != usual:
        log.note(item.name, f"read as {dialect}")
    rows = _Rows(itertools.chain(sample, lines), dialect, item.name, log)
    header = [name.strip() for name in next(rows, (0, []))[1]]
    check_columns(item.name, columns, header)
    for number, row in rows:
        if len(row) > len(header):
            reason = f"{len(row)} values for {len(header)} columns; is a quote missing?"
            log.reject(item.name, number, reason)
        elif row:
            yield from checked(dict(zip(header, row, strict=False)), item.name, number, columns, log)


def _decoded(item: Item, log: RecordLog) -> Iterator[tuple[int, str]]:
    for number, line in Text(item, log).lines():
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError as error:
            log.reject(item.name, number, f"byte {error.start} of the line is no UTF-8; {WAY_OUT}")
            continue
        if "\0" in text:
            log.reject(item.name, number, f"byte {line.index(0)} of the line is zero")
            continue
        yield number, text


class _Rows:
    """Rows with the line on which each ends; one whose quote is never closed costs its first line only."""

    def __init__(self, lines: Iterator[tuple[int, str]], dialect: Dialect, name: str, log: RecordLog) -> None:
        self._lines, self._dialect, self._name, self._log = lines, dialect, name, log
        self._again: deque[tuple[int, str]] = deque()
        self._taken: list[tuple[int, str]] = []
        self._open = False
        self._reader = dialect.reader(self._feed())

    def __iter__(self) -> Iterator[tuple[int, list[str]]]:
        return self

    def __next__(self) -> tuple[int, list[str]]:
        while True:
            self._taken.clear()
            self._open = False
            try:
                row = next(self._reader)
            except csv.Error as error:
                self._give_up(f"no CSV: {error}")
                continue
            except StopIteration:
                if not self._open:
                    raise
                row = []
            if not self._open:
                return self._taken[-1][0], row
            self._give_up("a quote is opened and never closed")

    def _feed(self) -> Iterator[str]:
        while True:
            if len(self._taken) >= MAX_ROW_LINES:
                self._open = True
                return
            line = self._again.popleft() if self._again else next(self._lines, None)
            if line is None:
                self._open = bool(self._taken)
                return
            self._taken.append(line)
            yield line[1]

    def _give_up(self, reason: str) -> None:
        """Reject the first line of the row and read again from the next."""
        self._log.reject(self._name, self._taken[0][0], reason)
        self._again.extendleft(reversed(self._taken[1:]))
        self._taken.clear()
        self._reader = self._dialect.reader(self._feed())


def recognise(lines: list[str], columns: tuple[str, ...], usual: Dialect) -> Dialect:
    """The usual dialect where it fits; else the one other that does; else the usual one.

    A dialect fits if its header has the columns, each row as many values as the header, and no values are
    left in quotes.
    """
    if not lines or _fits(lines, columns, usual):
        return usual
    others = [Dialect(d, q) for d in (usual.delimiter, *_NAMES) for q in _QUOTES[d]]
    fit = [dialect for dialect in dict.fromkeys(others) if _fits(lines, columns, dialect)]
    if len({dialect.delimiter for dialect in fit}) == 1:
        return fit[0]
    # Some row is damaged under every dialect: the header alone decides where only one delimiter gives it.
    headed = [dialect for dialect in dict.fromkeys((usual, *others)) if _headed(lines, columns, dialect)]
    return headed[0] if len({dialect.delimiter for dialect in headed}) == 1 else usual


def _headed(lines: list[str], columns: tuple[str, ...], dialect: Dialect) -> bool:
    return set(columns) <= {name.strip() for row in _parsed(lines[:1], dialect) for name in row}


def _parsed(lines: list[str], dialect: Dialect) -> list[list[str]]:
    try:
        return [row for row in dialect.reader(iter(lines)) if row]
    except csv.Error:
        return []


def _fits(lines: list[str], columns: tuple[str, ...], dialect: Dialect) -> bool:
    rows = _parsed(lines, dialect)
    if not rows or not _headed(lines, columns, dialect):
        return False
    if dialect.quote == "'" and not re.search(rf"(^|[{dialect.delimiter}])'", "".join(lines), re.MULTILINE):
        return False  # nothing is quoted so
    whole = rows[:-1] if len(lines) == _SAMPLE_LINES and len(rows) > 2 else rows  # the last may be cut
    if any(len(row) != len(rows[0]) for row in whole):
        return False
    return not any(_left_quoted([row[place] for row in whole[1:]]) for place in range(len(rows[0])))


def _left_quoted(values: list[str]) -> bool:
    """Do most of some values stand in quotes of one kind that were not taken off?"""
    return len(values) > 1 and any(
        sum(len(value) > 1 and value[0] == quote == value[-1] for value in values) > 0.8 * len(values)
        for quote in "'\""
    )
