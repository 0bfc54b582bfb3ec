"""Rows out of lines: which quotes hold a value together, and which are characters like others."""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from pretune.data.sources.record_log import RecordLog

MAX_ROW_LINES = 50_000
"""A row of more lines has a quote that is never closed: it is given up, and the rest is read."""
DELIMITER_NAMES = {"\t": "a tab", ",": "a comma", ";": "a semicolon", "|": "a bar"}
_PROFILE_ROWS = 1000
_DISTINCT = 200
_LONGEST = 80
_SUSPECT_LINES = 4
"""Lines of a value from which on it is said that each of them could be a row."""
_LONG_ROW_LINES = 10
"""Lines from which on a few that are damaged do not hide that they are rows of their own."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """How rows are cut into values."""

    delimiter: str = ","
    quote: str | None = '"'
    skip_initial_space: bool = False
    """Does white space after a delimiter belong to it?"""

    def __str__(self) -> str:
        quote = {None: "no quotes", "'": "single quotes", '"': "double quotes"}[self.quote]
        return f"values separated by {DELIMITER_NAMES[self.delimiter]}, {quote}"

    def reader(self, lines: Iterator[str]) -> Iterator[list[str]]:
        """The rows of some lines."""
        if self.quote is None:
            return self.reader_without_quotes(lines)
        return csv.reader(
            lines,
            delimiter=self.delimiter,
            quotechar=self.quote,
            strict=True,
            skipinitialspace=self.skip_initial_space,
        )

    def reader_without_quotes(self, lines: Iterator[str]) -> Iterator[list[str]]:
        """The rows of some lines, quotes being characters like others."""
        return csv.reader(
            lines, delimiter=self.delimiter, quoting=csv.QUOTE_NONE, skipinitialspace=self.skip_initial_space
        )


class ColumnProfile:
    """What the columns of a table hold: numbers, a few values over and over, or anything."""

    def __init__(self, width: int) -> None:
        self.width = width
        self._rows = 0
        self._numeric = [True] * width
        self._values: list[set[str] | None] = [set() for _ in range(width)]

    def add(self, row: Sequence[str]) -> None:
        """Take a row that lies on one line into account."""
        if self._rows >= _PROFILE_ROWS or len(row) != self.width:
            return
        self._rows += 1
        for place, cell in enumerate(row):
            self._numeric[place] = self._numeric[place] and _is_number(cell)
            values = self._values[place]
            if values is not None:
                values.add(cell.strip())
                if len(values) > _DISTINCT or len(cell) > _LONGEST:
                    self._values[place] = None

    def fits(self, row: Sequence[str]) -> bool | None:
        """Does a row hold what its columns hold? None: they hold anything."""
        judged = [
            verdict for place, cell in enumerate(row) if (verdict := self._cell_fits(place, cell)) is not None
        ]
        return all(judged) if judged else None

    def _cell_fits(self, column: int, cell: str) -> bool | None:
        if not cell.strip():
            return None
        values = self._values[column]
        if values is not None and self._rows >= 8 and len(values) <= self._rows // 3:
            return cell.strip() in values
        return _is_number(cell) if self._rows >= 4 and self._numeric[column] else None


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


RowReader = Callable[[Iterator[str]], Iterator[list[str]]]


def _parse_line(reader: RowReader, line: str) -> list[str]:
    """The row that a line is; empty where it is none."""
    try:
        return next(reader(iter([line])), [])
    except csv.Error:
        return []


class RowParser:
    """Rows with the line on which each ends; a quote that is no quotation mark of a value costs none.

    A row over several lines is either a value with line ends in it, or a value that begins with a bare
    quote and would swallow the rows up to the next one. It is the latter where each of its lines is a row
    by itself: with as many values as the header, and, but for tabs, which texts hardly hold, values such
    as stand in these columns elsewhere.
    """

    def __init__(self, lines: Iterator[tuple[int, str]], dialect: Dialect, name: str, log: RecordLog) -> None:
        self._lines, self._dialect, self._name, self._log = lines, dialect, name, log
        self._pushed_back: deque[tuple[int, str]] = deque()
        self._row_lines: list[tuple[int, str]] = []
        self._quote_unclosed = False
        self._has_noted = False
        self._profile: ColumnProfile | None = None
        self._profiled_until = 0
        self._reader = dialect.reader(self._iter_lines())

    def fit_profile(self, width: int, sample: Sequence[tuple[int, str]]) -> None:
        """Expect rows of ``width`` values, such as those in the lines of a sample that are read again."""
        profile = ColumnProfile(width)
        aside = RowParser(iter(sample), self._dialect, self._name, RecordLog())
        aside._profile = profile
        for _ in aside:
            pass
        self._profile = profile
        self._profiled_until = sample[-1][0] if sample else 0

    def __iter__(self) -> Iterator[tuple[int, list[str]]]:
        return self

    def __next__(self) -> tuple[int, list[str]]:
        while True:
            self._row_lines.clear()
            self._quote_unclosed = False
            try:
                row = next(self._reader)
            except csv.Error as error:
                fault = f"no CSV: {error}"
            except StopIteration:
                if not self._quote_unclosed:
                    raise
                fault = "a quote is opened and never closed"
            else:
                fault = "" if not self._quote_unclosed else "a quote is opened and never closed"
            if not fault and len(self._row_lines) == 1:
                if self._profile is not None and self._row_lines[0][0] > self._profiled_until:
                    self._profile.add(row)
                return self._row_lines[0][0], row
            if not fault and not self._spans_several_rows(row):
                return self._row_lines[-1][0], row
            number, line = self._row_lines[0]
            alone = self._parse_single_line(line)
            self._push_back()
            if alone is not None:
                self._note_once(
                    f"line {number:,}: a quote that opens no value is read as it stands, as are others"
                )
                return number, alone
            self._log.reject(self._name, number, fault or "a quote swallows the rows after it")

    def _spans_several_rows(self, row: Sequence[str]) -> bool:
        """Are the lines of a row rows of their own?"""
        if self._profile is None or self._profile.width < 2:
            return False
        (_, first), *between, (_, last) = self._row_lines
        judged = [self._parse_and_check(first)]
        if not self._is_own_row(judged[0]) and (self._has_noted or len(self._row_lines) < _SUSPECT_LINES):
            return False
        if len(row) <= self._profile.width:  # a row that is too long ends in another anyway
            judged.append(self._parse_and_check(last))
        if any(one is None or one[1] is False for one in judged):
            return False
        found = [self._parse_and_check(line) for _, line in between]
        least = (0.9 if len(self._row_lines) >= _LONG_ROW_LINES else 1.0) * len(between)
        if all(map(self._is_own_row, judged)) and sum(map(self._is_own_row, found)) >= least:
            return True
        if len(self._row_lines) >= _SUSPECT_LINES and sum(one is not None for one in found) >= least:
            self._note_once(
                f"line {self._row_lines[0][0]:,}: a value in quotes goes on for {len(self._row_lines):,} "
                "lines that "
                "could all be rows; if they are, the quote is one too many"
            )
        return False

    def _parse_single_line(self, line: str) -> list[str] | None:
        """The row that a line is by itself, where what it holds looks like one; None: it is none."""
        judged = self._parse_and_check(line)
        return judged[0] if judged is not None and self._is_own_row(judged) else None

    def _parse_and_check(self, line: str) -> tuple[list[str], bool | None] | None:
        """The row that a line is by itself, its quotes closed or bare, and whether it fits its columns."""
        profile = self._profile
        if profile is None or profile.width < 2:
            return None
        if line.count(self._dialect.delimiter) < profile.width - 1:
            return None
        for way in (self._dialect.reader, self._dialect.reader_without_quotes):
            row = _parse_line(way, line)
            if len(row) == profile.width:
                return row, profile.fits(row)
        return None

    def _is_own_row(self, parsed: tuple[list[str], bool | None] | None) -> bool:
        """Is it a row of its own? Texts hardly hold tabs; of other delimiters the columns must tell."""
        return parsed is not None and (
            parsed[1] is True or (parsed[1] is None and self._dialect.delimiter == "\t")
        )

    def _note_once(self, remark: str) -> None:
        if not self._has_noted:
            self._log.add_note(self._name, remark)
        self._has_noted = True

    def _iter_lines(self) -> Iterator[str]:
        while True:
            if len(self._row_lines) >= MAX_ROW_LINES:
                self._quote_unclosed = True
                return
            line = self._pushed_back.popleft() if self._pushed_back else next(self._lines, None)
            if line is None:
                self._quote_unclosed = bool(self._row_lines)
                return
            self._row_lines.append(line)
            yield line[1]

    def _push_back(self) -> None:
        """Read again from the line after the first of the row."""
        self._pushed_back.extendleft(reversed(self._row_lines[1:]))
        self._row_lines.clear()
        self._reader = self._dialect.reader(self._iter_lines())
