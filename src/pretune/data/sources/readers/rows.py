"""Rows out of lines: which quotes hold a value together, and which are characters like others."""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from pretune.data.sources.record_log import RecordLog

MAX_ROW_LINES = 50_000
"""A row of more lines has a quote that is never closed: it is given up, and the rest is read."""
NAMES = {"\t": "a tab", ",": "a comma", ";": "a semicolon", "|": "a bar"}
_PROFILE_ROWS = 1000
_DISTINCT = 200
_LONGEST = 80
_SUSPECT = 4
"""Lines of a value from which on it is said that each of them could be a row."""
_LONG_ROW = 10
"""Lines from which on a few that are damaged do not hide that they are rows of their own."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """How rows are cut into values."""

    delimiter: str = ","
    quote: str | None = '"'
    spaced: bool = False
    """Does white space after a delimiter belong to it?"""

    def __str__(self) -> str:
        quote = {None: "no quotes", "'": "single quotes", '"': "double quotes"}[self.quote]
        return f"values separated by {NAMES[self.delimiter]}, {quote}"

    def reader(self, lines: Iterator[str]) -> Iterator[list[str]]:
        """The rows of some lines."""
        if self.quote is None:
            return self.bare(lines)
        return csv.reader(
            lines, delimiter=self.delimiter, quotechar=self.quote, strict=True, skipinitialspace=self.spaced
        )

    def bare(self, lines: Iterator[str]) -> Iterator[list[str]]:
        """The rows of some lines, quotes being characters like others."""
        return csv.reader(
            lines, delimiter=self.delimiter, quoting=csv.QUOTE_NONE, skipinitialspace=self.spaced
        )


class Profile:
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
            verdict for place, cell in enumerate(row) if (verdict := self._cell(place, cell)) is not None
        ]
        return all(judged) if judged else None

    def _cell(self, place: int, cell: str) -> bool | None:
        if not cell.strip():
            return None
        values = self._values[place]
        if values is not None and self._rows >= 8 and len(values) <= self._rows // 3:
            return cell.strip() in values
        return _is_number(cell) if self._rows >= 4 and self._numeric[place] else None


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


Reader = Callable[[Iterator[str]], Iterator[list[str]]]


def _first(reader: Reader, line: str) -> list[str]:
    """The row that a line is; empty where it is none."""
    try:
        return next(reader(iter([line])), [])
    except csv.Error:
        return []


class Rows:
    """Rows with the line on which each ends; a quote that is no quotation mark of a value costs none.

    A row over several lines is either a value with line ends in it, or a value that begins with a bare
    quote and would swallow the rows up to the next one. It is the latter where each of its lines is a row
    by itself: with as many values as the header, and, but for tabs, which texts hardly hold, values such
    as stand in these columns elsewhere.
    """

    def __init__(self, lines: Iterator[tuple[int, str]], dialect: Dialect, name: str, log: RecordLog) -> None:
        self._lines, self._dialect, self._name, self._log = lines, dialect, name, log
        self._again: deque[tuple[int, str]] = deque()
        self._taken: list[tuple[int, str]] = []
        self._open = False
        self._said = False
        self._profile: Profile | None = None
        self._learnt = 0
        self._reader = dialect.reader(self._feed())

    def learn(self, width: int, sample: Sequence[tuple[int, str]]) -> None:
        """Expect rows of ``width`` values, such as those in the lines of a sample that are read again."""
        profile = Profile(width)
        aside = Rows(iter(sample), self._dialect, self._name, RecordLog())
        aside._profile = profile
        for _ in aside:
            pass
        self._profile = profile
        self._learnt = sample[-1][0] if sample else 0

    def __iter__(self) -> Iterator[tuple[int, list[str]]]:
        return self

    def __next__(self) -> tuple[int, list[str]]:
        while True:
            self._taken.clear()
            self._open = False
            try:
                row = next(self._reader)
            except csv.Error as error:
                fault = f"no CSV: {error}"
            except StopIteration:
                if not self._open:
                    raise
                fault = "a quote is opened and never closed"
            else:
                fault = "" if not self._open else "a quote is opened and never closed"
            if not fault and len(self._taken) == 1:
                if self._profile is not None and self._taken[0][0] > self._learnt:
                    self._profile.add(row)
                return self._taken[0][0], row
            if not fault and not self._swallows(row):
                return self._taken[-1][0], row
            number, line = self._taken[0]
            alone = self._alone(line)
            self._go_back()
            if alone is not None:
                self._remark(
                    f"line {number:,}: a quote that opens no value is read as it stands, as are others"
                )
                return number, alone
            self._log.reject(self._name, number, fault or "a quote swallows the rows after it")

    def _swallows(self, row: Sequence[str]) -> bool:
        """Are the lines of a row rows of their own?"""
        if self._profile is None or self._profile.width < 2:
            return False
        (_, first), *between, (_, last) = self._taken
        judged = [self._judged(first)]
        if not self._counts(judged[0]) and (self._said or len(self._taken) < _SUSPECT):
            return False
        if len(row) <= self._profile.width:  # a row that is too long ends in another anyway
            judged.append(self._judged(last))
        if any(one is None or one[1] is False for one in judged):
            return False
        found = [self._judged(line) for _, line in between]
        least = (0.9 if len(self._taken) >= _LONG_ROW else 1.0) * len(between)
        if all(map(self._counts, judged)) and sum(map(self._counts, found)) >= least:
            return True
        if len(self._taken) >= _SUSPECT and sum(one is not None for one in found) >= least:
            self._remark(
                f"line {self._taken[0][0]:,}: a value in quotes goes on for {len(self._taken):,} lines that "
                "could all be rows; if they are, the quote is one too many"
            )
        return False

    def _alone(self, line: str) -> list[str] | None:
        """The row that a line is by itself, where what it holds looks like one; None: it is none."""
        judged = self._judged(line)
        return judged[0] if judged is not None and self._counts(judged) else None

    def _judged(self, line: str) -> tuple[list[str], bool | None] | None:
        """The row that a line is by itself, its quotes closed or bare, and whether it fits its columns."""
        profile = self._profile
        if profile is None or profile.width < 2:
            return None
        if line.count(self._dialect.delimiter) < profile.width - 1:
            return None
        for way in (self._dialect.reader, self._dialect.bare):
            row = _first(way, line)
            if len(row) == profile.width:
                return row, profile.fits(row)
        return None

    def _counts(self, judged: tuple[list[str], bool | None] | None) -> bool:
        """Is it a row of its own? Texts hardly hold tabs; of other delimiters the columns must tell."""
        return judged is not None and (
            judged[1] is True or (judged[1] is None and self._dialect.delimiter == "\t")
        )

    def _remark(self, remark: str) -> None:
        if not self._said:
            self._log.note(self._name, remark)
        self._said = True

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

    def _go_back(self) -> None:
        """Read again from the line after the first of the row."""
        self._again.extendleft(reversed(self._taken[1:]))
        self._taken.clear()
        self._reader = self._dialect.reader(self._feed())
