"""One thing to read, a file or a member of an archive, as bytes and as lines of UTF-8."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pretune.data.damage import Damage
from pretune.data.encodings import as_utf8
from pretune.data.record_log import RecordLog

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

MAX_LINE_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Item:
    """A file, or a member of an archive, without its compression."""

    name: str
    """As errors and records say it: the path, for a member followed by its own."""
    suffix: str
    """What it is, as ``.jsonl``, in lower case."""
    blocks: Callable[[], Iterator[bytes]]
    """Its bytes; they raise :class:`Damage`."""
    path: Path | None = None
    """The file itself where it lies on disk without compression."""


class Text:
    """The text of an item in UTF-8; damage looks like its end, until it is asked for."""

    def __init__(self, item: Item, log: RecordLog) -> None:
        self._name, self._log = item.name, log
        self._raw = _Raw(as_utf8(item.blocks(), partial(log.recognised, item.name)))
        self._file = io.BufferedReader(self._raw, 1 << 20)

    def read(self, size: int) -> bytes:
        """The next bytes; fewer only at the end."""
        return self._file.read(size)

    def check(self) -> None:
        """To be called at the end.

        Raises:
            Damage: it was no end.
        """
        if self._raw.damage is not None:
            raise self._raw.damage

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """Lines with their numbers; one that is too long is rejected without ever being held whole.

        Raises:
            Damage: the item is damaged; a line that the damage cuts is not given.
        """
        number = 0
        while line := self._file.readline(MAX_LINE_BYTES + 1):
            number += 1
            if len(line) > MAX_LINE_BYTES:
                self._skip(line)
                self._log.reject(self._name, number, f"longer than {MAX_LINE_BYTES >> 20} MiB")
            elif self._raw.damage is None or line.endswith(b"\n"):
                yield number, line
        self.check()

    def _skip(self, line: bytes) -> None:
        while line and not line.endswith(b"\n"):
            line = self._file.readline(1 << 20)


class _Raw(io.RawIOBase):
    """Blocks as a file that can be buffered."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = blocks
        self._rest = memoryview(b"")
        self.damage: Damage | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Fill some of ``buffer``; 0 at the end or where damage begins."""
        while not self._rest:
            try:
                block = next(self._blocks, None)
            except Damage as damage:
                self.damage = damage
                return 0
            if block is None:
                return 0
            self._rest = memoryview(block)
        view = memoryview(buffer).cast("B")
        size = min(len(view), len(self._rest))
        view[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size
