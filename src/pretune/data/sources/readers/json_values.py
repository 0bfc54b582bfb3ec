"""JSON values one after another, in a list or bare, in bounded memory."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import orjson

from pretune.data.sources.charsets import utf8_hint
from pretune.data.sources.columns import ColumnMatch, ColumnSpec
from pretune.data.sources.corrupt import CorruptFileError
from pretune.data.sources.input_file import MAX_LINE_BYTES, InputFile, TextFile
from pretune.data.sources.readers.checks import check_record, match_columns
from pretune.data.sources.record_log import RecordLog
from pretune.errors import DataError
from pretune.types import Record

_BLOCK_BYTES = 1 << 18
_SEPARATOR = re.compile(r"\s*,?\s*")
_LIST_START = re.compile(rb"\[\s*[{\]]")
_DECODER = json.JSONDecoder()
_MAX_UNMATCHED_OBJECTS = 100
"""Objects at the beginning of which one must have all columns."""

JsonFormat = Literal["lines", "list", "objects"]
"""An object a line; a list of objects; or objects over several lines each, as they are printed for people."""


def detect_json_format(input_file: InputFile) -> JsonFormat:
    """How the records of a JSON file lie in it, by how it begins."""
    aside = RecordLog()  # what the first look finds will be found again
    start = TextFile(input_file, aside).read(1 << 12).lstrip()
    if _LIST_START.match(start):
        return "list"
    if not start.startswith(b"{"):
        return "lines"
    try:
        lines = (line.strip() for _, line in TextFile(input_file, aside).iter_lines() if line.strip())
        first, more = next(lines, b""), next(lines, None)
    except CorruptFileError:
        return "lines"
    try:
        orjson.loads(first)
        return "lines"
    except orjson.JSONDecodeError:
        pass
    try:
        # An object that ends on its line, with more behind it, stands in damaged lines, or all are on one.
        _DECODER.raw_decode(first.decode("utf-8", "surrogateescape"))
        return "lines" if more is not None else "objects"
    except (json.JSONDecodeError, RecursionError):
        pass
    try:
        return (
            "lines"
            if next(_ValueParser(input_file, aside, concatenated=True).iter_values(), None) is None
            else "objects"
        )
    except CorruptFileError:
        return "lines"  # its first line is damaged


def read_values(
    input_file: InputFile, columns: ColumnSpec, log: RecordLog, *, concatenated: bool
) -> Iterator[Record]:
    """The objects of a list, or, ``reader_without_quotes``, one after another; a Record's line is the
    number of its object.

    Raises:
        DataError: the file is no list of objects, or the first object lacks a column.
        Damage: the file is damaged, or no JSON from some object on.
    """
    objects = ObjectRecords(input_file.name, columns, log)
    for number, (fields, whole) in enumerate(
        _ValueParser(input_file, log, concatenated=concatenated).iter_values(), 1
    ):
        if not isinstance(fields, dict):
            log.reject(input_file.name, number, f"expected an object, found {type(fields).__name__}")
        elif whole is not None:
            log.reject(
                input_file.name, number, f"the object holds bytes that are no UTF-8; {utf8_hint(whole)}"
            )
        else:
            yield from objects.iter_records(number, fields)
    objects.finish()


class ObjectRecords:
    """The records of objects, each with its own keys: the first that has all decides on the columns."""

    def __init__(self, name: str, columns: ColumnSpec, log: RecordLog) -> None:
        self._name, self._columns, self._log = name, columns, log
        self._match: ColumnMatch | None = None
        self._unmatched: list[tuple[int, Mapping[str, Any]]] = []
        self._error: DataError | None = None

    def iter_records(self, number: int, fields: Mapping[str, Any]) -> Iterator[Record]:
        """The record of an object, and those of the objects before it that lack a column.

        Raises:
            DataError: a field that is needed has no column in any of the first objects.
        """
        if self._match is None:
            try:
                self._match = match_columns(self._name, self._columns, list(fields), self._log)
            except DataError as error:
                self._error = self._error or DataError(f"{error}{_nested_list_hint(fields)}")
                self._unmatched.append((number, fields))
                if len(self._unmatched) == _MAX_UNMATCHED_OBJECTS:
                    self.finish()
                return
            for earlier, lacking in self._unmatched:
                yield from check_record(lacking, self._name, earlier, self._match, self._log)
        yield from check_record(fields, self._name, number, self._match, self._log)

    def finish(self) -> None:
        """To be called at the end.

        Raises:
            DataError: there were objects, and none with all columns.
        """
        if self._match is None and self._error is not None:
            raise self._error


def _nested_list_hint(fields: Mapping[str, Any]) -> str:
    """Where a list of objects lies below a key, how to take it out."""
    for key, value in fields.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            return (
                f". {key[:60]!r} holds a list of objects: write that list alone to a file, for example with "
                f"`jq '.[\"{key[:60]}\"]'`"
            )
    return ""


class _ValueParser:
    """A window over the text: it grows until it holds a value and drops what was given."""

    def __init__(self, input_file: InputFile, log: RecordLog, *, concatenated: bool) -> None:
        self._name, self._concatenated = input_file.name, concatenated
        self._source = TextFile(input_file, log)
        self._decode = codecs.getincrementaldecoder("utf-8")("surrogateescape").decode
        self._text, self._position, self._ended = "", 0, False

    def iter_values(self) -> Iterator[tuple[Any, bytes | None]]:
        """The values, each with its bytes where not all of them are UTF-8."""
        start = self._skip_separators()
        if not self._concatenated:
            if start != "[":
                found = {"{": "an object", "": "nothing"}.get(start, repr(start))
                raise DataError(
                    f"{self._name}: expected a list of objects, found {found}; "
                    "write an object a line, and name the file .jsonl"
                )
            self._position += 1
        count = 0
        while (start := self._skip_separators()) not in ("" if self._concatenated else "]", ""):
            begin = self._position
            value = self._parse_value(count + 1)
            count += 1
            text = self._text[begin : self._position]
            try:
                text.encode("utf-8")
                yield value, None
            except UnicodeEncodeError:
                yield value, text.encode("utf-8", "surrogateescape")
        self._source.raise_if_corrupt()
        if not start and not self._concatenated:
            raise CorruptFileError(f"cut off: the list is not closed after object {count:,}")

    def _skip_separators(self) -> str:
        """Go to the next character that is neither white space nor a comma; empty at the end."""
        while True:
            self._position = _SEPARATOR.match(self._text, self._position).end()  # type: ignore[union-attr]
            if self._position < len(self._text) or not self._read_more(_BLOCK_BYTES):
                return self._text[self._position : self._position + 1]

    def _parse_value(self, number: int) -> Any:
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._position)
            except (json.JSONDecodeError, RecursionError) as error:
                held = len(self._text) - self._position
                if held > MAX_LINE_BYTES or not self._read_more(max(_BLOCK_BYTES, held)):
                    self._source.raise_if_corrupt()
                    raise CorruptFileError(f"no JSON from object {number:,} on: {error}") from None
                continue
            if end == len(self._text) and self._read_more(_BLOCK_BYTES):
                continue  # a number may go on
            self._position = end
            return value

    def _read_more(self, size: int) -> bool:
        """Read on, and drop what lies behind."""
        data = self._source.read(size)
        self._text, self._position = self._text[self._position :] + self._decode(data, not data), 0
        return bool(data)
