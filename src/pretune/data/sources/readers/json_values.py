"""JSON values one after another, in a list or bare, in bounded memory."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import orjson

from pretune.data.sources.charsets import way_out
from pretune.data.sources.columns import Columns, Match
from pretune.data.sources.corrupt import Damage
from pretune.data.sources.input_file import MAX_LINE_BYTES, Item, Text
from pretune.data.sources.readers.checks import checked, match_columns
from pretune.data.sources.record_log import RecordLog
from pretune.errors import DataError
from pretune.types import Record

_BLOCK_BYTES = 1 << 18
_BETWEEN = re.compile(r"\s*,?\s*")
_LIST = re.compile(rb"\[\s*[{\]]")
_DECODER = json.JSONDecoder()
_UNDECIDED = 100
"""Objects at the beginning of which one must have all columns."""

Shape = Literal["lines", "list", "objects"]
"""An object a line; a list of objects; or objects over several lines each, as they are printed for people."""


def shape_of(item: Item) -> Shape:
    """How the records of a JSON file lie in it, by how it begins."""
    aside = RecordLog()  # what the first look finds will be found again
    start = Text(item, aside).read(1 << 12).lstrip()
    if _LIST.match(start):
        return "list"
    if not start.startswith(b"{"):
        return "lines"
    try:
        lines = (line.strip() for _, line in Text(item, aside).lines() if line.strip())
        first, more = next(lines, b""), next(lines, None)
    except Damage:
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
        return "lines" if next(_Values(item, aside, bare=True).all(), None) is None else "objects"
    except Damage:
        return "lines"  # its first line is damaged


def read_values(item: Item, columns: Columns, log: RecordLog, *, bare: bool) -> Iterator[Record]:
    """The objects of a list, or, ``bare``, one after another; a Record's line is the number of its object.

    Raises:
        DataError: the file is no list of objects, or the first object lacks a column.
        Damage: the file is damaged, or no JSON from some object on.
    """
    objects = Objects(item.name, columns, log)
    for number, (fields, whole) in enumerate(_Values(item, log, bare=bare).all(), 1):
        if not isinstance(fields, dict):
            log.reject(item.name, number, f"expected an object, found {type(fields).__name__}")
        elif whole is not None:
            log.reject(item.name, number, f"the object holds bytes that are no UTF-8; {way_out(whole)}")
        else:
            yield from objects.records(number, fields)
    objects.finish()


class Objects:
    """The records of objects, each with its own keys: the first that has all decides on the columns."""

    def __init__(self, name: str, columns: Columns, log: RecordLog) -> None:
        self._name, self._columns, self._log = name, columns, log
        self._match: Match | None = None
        self._before: list[tuple[int, Mapping[str, Any]]] = []
        self._fault: DataError | None = None

    def records(self, number: int, fields: Mapping[str, Any]) -> Iterator[Record]:
        """The record of an object, and those of the objects before it that lack a column.

        Raises:
            DataError: a field that is needed has no column in any of the first objects.
        """
        if self._match is None:
            try:
                self._match = match_columns(self._name, self._columns, list(fields), self._log)
            except DataError as error:
                self._fault = self._fault or DataError(f"{error}{_list_below(fields)}")
                self._before.append((number, fields))
                if len(self._before) == _UNDECIDED:
                    self.finish()
                return
            for earlier, lacking in self._before:
                yield from checked(lacking, self._name, earlier, self._match, self._log)
        yield from checked(fields, self._name, number, self._match, self._log)

    def finish(self) -> None:
        """To be called at the end.

        Raises:
            DataError: there were objects, and none with all columns.
        """
        if self._match is None and self._fault is not None:
            raise self._fault


def _list_below(fields: Mapping[str, Any]) -> str:
    """Where a list of objects lies below a key, how to take it out."""
    for key, value in fields.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            return (
                f". {key[:60]!r} holds a list of objects: write that list alone to a file, for example with "
                f"`jq '.[\"{key[:60]}\"]'`"
            )
    return ""


class _Values:
    """A window over the text: it grows until it holds a value and drops what was given."""

    def __init__(self, item: Item, log: RecordLog, *, bare: bool) -> None:
        self._name, self._bare = item.name, bare
        self._source = Text(item, log)
        self._decode = codecs.getincrementaldecoder("utf-8")("surrogateescape").decode
        self._text, self._at, self._ended = "", 0, False

    def all(self) -> Iterator[tuple[Any, bytes | None]]:
        """The values, each with its bytes where not all of them are UTF-8."""
        start = self._next()
        if not self._bare:
            if start != "[":
                found = {"{": "an object", "": "nothing"}.get(start, repr(start))
                raise DataError(
                    f"{self._name}: expected a list of objects, found {found}; "
                    "write an object a line, and name the file .jsonl"
                )
            self._at += 1
        count = 0
        while (start := self._next()) not in ("" if self._bare else "]", ""):
            begin = self._at
            value = self._element(count + 1)
            count += 1
            text = self._text[begin : self._at]
            try:
                text.encode("utf-8")
                yield value, None
            except UnicodeEncodeError:
                yield value, text.encode("utf-8", "surrogateescape")
        self._source.check()
        if not start and not self._bare:
            raise Damage(f"cut off: the list is not closed after object {count:,}")

    def _next(self) -> str:
        """Go to the next character that is neither white space nor a comma; empty at the end."""
        while True:
            self._at = _BETWEEN.match(self._text, self._at).end()  # type: ignore[union-attr]
            if self._at < len(self._text) or not self._more(_BLOCK_BYTES):
                return self._text[self._at : self._at + 1]

    def _element(self, number: int) -> Any:
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._at)
            except (json.JSONDecodeError, RecursionError) as error:
                held = len(self._text) - self._at
                if held > MAX_LINE_BYTES or not self._more(max(_BLOCK_BYTES, held)):
                    self._source.check()
                    raise Damage(f"no JSON from object {number:,} on: {error}") from None
                continue
            if end == len(self._text) and self._more(_BLOCK_BYTES):
                continue  # a number may go on
            self._at = end
            return value

    def _more(self, size: int) -> bool:
        """Read on, and drop what lies behind."""
        data = self._source.read(size)
        self._text, self._at = self._text[self._at :] + self._decode(data, not data), 0
        return bool(data)
