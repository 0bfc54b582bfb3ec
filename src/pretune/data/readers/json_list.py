"""A JSON file that is a list of objects, read object by object in bounded memory."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any

import orjson

from pretune.data.damage import Damage
from pretune.data.encodings import WAY_OUT
from pretune.data.items import MAX_LINE_BYTES, Item, Text
from pretune.data.readers import json_lines
from pretune.data.readers.checks import check_columns, checked
from pretune.data.record_log import RecordLog
from pretune.errors import DataError
from pretune.types import Record

_BLOCK_BYTES = 1 << 18
_BETWEEN = re.compile(r"\s*,?\s*")
_DECODER = json.JSONDecoder()


def read(item: Item, columns: tuple[str, ...], log: RecordLog) -> Iterator[Record]:
    """The objects of the list, or of the lines where the file is really JSON lines.

    A Record's line is the place of its object in the list, from 1.

    Raises:
        DataError: the file is no list of objects, or the first object lacks a column.
        Damage: the file is damaged, or no JSON from some object on.
    """
    if _is_lines(item):
        yield from json_lines.read(item, columns, log)
        return
    seen = False
    for number, (fields, whole) in enumerate(_Elements(item, log).all(), 1):
        if not isinstance(fields, dict):
            log.reject(item.name, number, f"expected an object, found {type(fields).__name__}")
        elif not whole:
            log.reject(item.name, number, f"the object holds bytes that are no UTF-8; {WAY_OUT}")
        else:
            if not seen:
                check_columns(item.name, columns, list(fields))
                seen = True
            yield from checked(fields, item.name, number, columns, log)


def _is_lines(item: Item) -> bool:
    """Does the file begin with a line that is an object by itself?"""
    aside = RecordLog()  # what the first look finds will be found again
    if not Text(item, aside).read(1 << 12).lstrip().startswith(b"{"):
        return False
    try:
        for _, line in Text(item, aside).lines():
            if line.strip():
                return isinstance(orjson.loads(line), dict)
    except (orjson.JSONDecodeError, Damage):
        return False
    return False


class _Elements:
    """A window over the text of a list: it grows until it holds an element and drops what was given."""

    def __init__(self, item: Item, log: RecordLog) -> None:
        self._name = item.name
        self._source = Text(item, log)
        self._decode = codecs.getincrementaldecoder("utf-8")("surrogateescape").decode
        self._text, self._at, self._ended = "", 0, False

    def all(self) -> Iterator[tuple[Any, bool]]:
        """The elements, and whether all of their bytes were UTF-8."""
        start = self._next()
        if start != "[":
            found = {"{": "an object", "": "nothing"}.get(start, repr(start))
            raise DataError(
                f"{self._name}: expected a list of objects, found {found}; "
                "write an object a line, and name the file .jsonl"
            )
        self._at += 1
        count = 0
        while (start := self._next()) not in ("]", ""):
            begin = self._at
            value = self._element(count + 1)
            count += 1
            try:
                self._text[begin : self._at].encode("utf-8")
                yield value, True
            except UnicodeEncodeError:
                yield value, False
        self._source.check()
        if not start:
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
