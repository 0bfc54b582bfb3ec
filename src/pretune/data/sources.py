"""Records from a user's files, one at a time, with every bad one counted and named."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from pretune.errors import DataError, suggestion
from pretune.types import Record

PIECE_BYTES = 1 << 20
MAX_LINE_BYTES = 64 << 20
_BOM = b"\xef\xbb\xbf"


class RecordLog:
    """What was read, and what was skipped and why."""

    EXAMPLES = 5

    def __init__(self) -> None:
        self.good = 0
        self.paths: list[str] = []
        """What was asked for."""
        self.bad = 0
        self.files = 0
        self.examples: list[str] = []
        """The first bad records, as ``file:line: reason``."""
        self.skipped: list[str] = []
        """Files left out because they are hidden or of another kind."""

    def reject(self, path: Path | str, line: int, reason: str) -> None:
        """Count a bad record."""
        self.bad += 1
        if len(self.examples) < self.EXAMPLES:
            self.examples.append(f"{path}:{line}: {reason}" if line else f"{path}: {reason}")

    def summary(self) -> str:
        """One line for the reader of the run."""
        parts = [f"{self.good:,} records from {self.files:,} files"]
        if self.bad:
            parts.append(f"{self.bad:,} bad ones skipped ({self.examples[0]})")
        if self.skipped:
            parts.append(f"{len(self.skipped):,} other files left out")
        return "; ".join(parts)

    def finish(self) -> None:
        """Judge the whole.

        Raises:
            DataError: no good record, or more bad ones than the larger of 10 and 1 %.
        """
        if self.good and self.bad <= max(10, 0.01 * (self.good + self.bad)):
            return
        shown = "".join(f"\n  {example}" for example in self.examples)
        if not self.bad:
            raise DataError(f"{', '.join(self.paths) or 'no file'}: no records: there is no text in it")
        raise DataError(f"{self.bad:,} of {self.good + self.bad:,} records cannot be used:{shown}")


def read_records(
    paths: Iterable[str | Path], *, columns: Sequence[str] = ("text",), log: RecordLog
) -> Iterator[Record]:
    """Every record of the files, and of the folders, which are read sorted and with what is below them.

    ``.txt`` is one document a file, cut at paragraph or line ends into pieces of about 1 MiB; ``.jsonl`` one
    object a line; ``.csv`` a header row and one record a row, which may hold line ends in quotes. All are
    UTF-8, with a byte order mark or without. ``columns`` are the fields that a record must have as text that
    is not empty; other fields come along.

    Raises:
        DataError: a path is missing or empty, a file is no UTF-8 text, or a column is nowhere in it. A single
            bad record goes to ``log``; call ``log.finish()`` at the end.
    """
    asked = [Path(path) for path in paths]
    log.paths += map(str, asked)
    for path in _files(asked, log):
        log.files += 1
        try:
            yield from _READERS[path.suffix.lower()](path, tuple(columns), log)
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror}") from None


def _files(paths: Sequence[Path], log: RecordLog) -> list[Path]:
    found: dict[Path, None] = {}  # a file that is named twice is read once
    for path in paths:
        if not path.exists():
            raise DataError(f"{path}: no such file or folder")
        if path.is_file():
            if path.suffix.lower() not in _READERS:
                raise DataError(f"{path}: {path.suffix or 'no suffix'}: a file must be one of {_known()}")
            if not path.stat().st_size:
                raise DataError(f"{path}: the file is empty")
            found[path] = None
            continue
        inside = [file for file in sorted(path.rglob("*")) if file.is_file()]
        fit = [file for file in inside if _fits(file, path)]
        log.skipped += [str(file) for file in inside if not _fits(file, path)]
        if not fit:
            raise DataError(f"{path}: the folder holds no {_known()} file with text in it")
        found.update(dict.fromkeys(fit))
    return list(found)


def _fits(file: Path, folder: Path) -> bool:
    hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
    return not hidden and file.suffix.lower() in _READERS and file.stat().st_size > 0


def _known() -> str:
    return ", ".join(sorted(_READERS))


def _text(path: Path, columns: tuple[str, ...], log: RecordLog) -> Iterator[Record]:
    if columns != ("text",):
        raise DataError(f"{path}: plain text has only the field 'text', not {', '.join(columns)}")
    with path.open("rb") as file:
        offset, rest = 0, b""
        while True:
            block = file.read(PIECE_BYTES)
            data = rest + block
            cut = _cut(data) if block else len(data)
            piece, rest = data[:cut], data[cut:]
            if piece:
                text = _decode(piece.removeprefix(_BOM) if not offset else piece, path, offset)
                offset += len(piece)
                if text.strip():
                    log.good += 1
                    yield Record({"text": text}, str(path), 0)
            if not block:
                return


def _cut(data: bytes) -> int:
    """Where to end a piece: at the last paragraph, else line, else character end."""
    if len(data) < PIECE_BYTES:
        return 0  # read on: more may follow
    half = len(data) // 2
    for end in (b"\n\n", b"\n", b" ", "。".encode()):
        at = data.rfind(end, half)
        if at >= 0:
            return at + len(end)
    at = len(data)
    while at > len(data) - 4 and data[at - 1] & 0xC0 == 0x80:
        at -= 1
    return at - 1


def _decode(data: bytes, path: Path, offset: int) -> str:
    if b"\0" in data:
        at = offset + data.index(b"\0")
        raise DataError(f"{path}: byte {at} is zero: not a UTF-8 text file; {_WAY_OUT}")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: byte {offset + error.start} is no UTF-8; {_WAY_OUT}") from None


_WAY_OUT = "convert it, for example with `iconv -f GB18030 -t UTF-8`, or leave it out"


def _lines(path: Path, log: RecordLog) -> Iterator[tuple[int, bytes]]:
    """Lines with their numbers; one that is too long is rejected without ever being held whole."""
    with path.open("rb") as file:
        number = 0
        while line := file.readline(MAX_LINE_BYTES + 1):
            number += 1
            if len(line) > MAX_LINE_BYTES:
                _skip_line(file, line)
                log.reject(path, number, f"longer than {MAX_LINE_BYTES >> 20} MiB")
                continue
            yield number, line.removeprefix(_BOM) if number == 1 else line


def _skip_line(file: BinaryIO, line: bytes) -> None:
    while line and not line.endswith(b"\n"):
        line = file.readline(1 << 20)


def _json_lines(path: Path, columns: tuple[str, ...], log: RecordLog) -> Iterator[Record]:
    checked = False
    for number, line in _lines(path, log):
        if not line.strip():
            continue
        try:
            fields = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            if not checked and b"\0" in line:
                raise DataError(f"{path}:{number}: not a UTF-8 text file; {_WAY_OUT}") from None
            log.reject(path, number, _json_fault(line, error))
            continue
        if not isinstance(fields, dict):
            log.reject(path, number, f"expected an object, found {type(fields).__name__}")
            continue
        if not checked:
            _check_columns(path, columns, list(fields))
            checked = True
        yield from _checked(fields, path, number, columns, log)


def _json_fault(line: bytes, error: json.JSONDecodeError) -> str:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError as fault:
        return f"byte {fault.start} of the line is no UTF-8; {_WAY_OUT}"
    return f"no JSON: {error}"


def _csv(path: Path, columns: tuple[str, ...], log: RecordLog) -> Iterator[Record]:
    """Rows; a Record's line is the line of the file on which its row ends."""

    def text() -> Iterator[str]:
        for number, line in _lines(path, log):
            try:
                decoded = line.decode("utf-8")
            except UnicodeDecodeError as error:
                at = f"{path}:{number}: byte {error.start} of the line is no UTF-8"
                raise DataError(f"{at}; {_WAY_OUT}") from None
            if "\0" in decoded:
                raise DataError(f"{path}:{number}: not a text file; {_WAY_OUT}")
            yield decoded

    csv.field_size_limit(MAX_LINE_BYTES)
    rows = csv.reader(text())
    header = [name.strip() for name in next(rows, [])]
    _check_columns(path, columns, header)
    while True:
        try:
            row = next(rows, None)
        except csv.Error as error:
            log.reject(path, rows.line_num, f"no CSV: {error}")
            continue
        if row is None:
            return
        if len(row) > len(header):
            log.reject(
                path, rows.line_num, f"{len(row)} values for {len(header)} columns; is a quote missing?"
            )
        elif row:
            values = dict(zip(header, row, strict=False))
            yield from _checked(values, path, rows.line_num, columns, log)


def _check_columns(path: Path, columns: tuple[str, ...], there: Sequence[str]) -> None:
    missing = [name for name in columns if name not in there]
    if missing:
        listed = ", ".join(there) or "none"
        hint = suggestion(missing[0], there) if there else ""
        hint = f"; {hint}" if hint.startswith("did") else ""
        raise DataError(f"{path}: no column {missing[0]!r}; there are: {listed}{hint}")


def _checked(
    fields: Mapping[str, Any], path: Path, line: int, columns: tuple[str, ...], log: RecordLog
) -> Iterator[Record]:
    for name in columns:
        value = fields.get(name)
        if isinstance(value, int | float) and name != "text":  # a label may be a number: 0, 1, true
            value = json.dumps(value)
            fields = {**fields, name: value}
        if not isinstance(value, str) or not value.strip():
            fault = "missing" if value is None else "empty" if value in ("", [], {}) else None
            if isinstance(value, str):
                fault = "empty"
            log.reject(path, line, f"{name!r} is {fault or f'{type(value).__name__}, not text'}")
            return
    log.good += 1
    yield Record(fields, str(path), line)


_READERS: dict[str, Callable[[Path, tuple[str, ...], RecordLog], Iterator[Record]]] = {
    ".txt": _text,
    ".jsonl": _json_lines,
    ".csv": _csv,
}
