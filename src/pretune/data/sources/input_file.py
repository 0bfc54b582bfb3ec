"""One thing to read, a file or a member of an archive, as bytes and as lines of UTF-8."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pretune.data.sources.corrupt import CorruptFileError
from pretune.data.sources.encodings import EncodingHints, as_utf8, no_hints
from pretune.data.sources.record_log import RecordLog

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

MAX_LINE_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class InputFile:
    """A file, or a member of an archive, without its compression."""

    name: str
    """As errors and records say it: the path, for a member followed by its own."""
    suffix: str
    """What it is, as ``.jsonl``, in lower case."""
    blocks: Callable[[], Iterator[bytes]]
    """Its bytes; they raise :class:`CorruptFileError`."""
    path: Path | None = None
    """The file itself where it lies on disk without compression."""
    encoding: str | None = None
    """As the user says it; None: it is recognised."""
    encoding_hints: EncodingHints = no_hints
    """The encodings of the files beside it."""

    def iter_utf8(self, log: RecordLog) -> Iterator[bytes]:
        """Its text in UTF-8; the encoding goes to the log.

        Raises:
            Damage: it is no text, in an encoding that is not read unasked, or damaged.
        """
        return as_utf8(
            self.blocks(), partial(log.count_encoding, self.name), self.encoding, self.encoding_hints
        )


class TextFile:
    """The text of an item in UTF-8; damage looks like its end, until it is asked for.

    A text whose lines end in CR alone, as old Macs and some programs of today write them, gets LF instead.
    """

    def __init__(self, input_file: InputFile, log: RecordLog) -> None:
        self._name, self._log = input_file.name, log
        self._raw = _BlockStream(_normalize_line_ends(input_file.iter_utf8(log)))
        self._file = io.BufferedReader(self._raw, 1 << 20)

    def read(self, size: int) -> bytes:
        """The next bytes; fewer only at the end."""
        return self._file.read(size)

    def raise_if_corrupt(self) -> None:
        """To be called at the end.

        Raises:
            Damage: it was no end.
        """
        if self._raw.error is not None:
            raise self._raw.error

    def iter_lines(self) -> Iterator[tuple[int, bytes]]:
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
            elif self._raw.error is None or line.endswith(b"\n"):
                yield number, line
        self.raise_if_corrupt()

    def _skip(self, line: bytes) -> None:
        while line and not line.endswith(b"\n"):
            line = self._file.readline(1 << 20)


def _normalize_line_ends(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """The blocks; with LF for CR where the first that has either holds CR alone."""
    for block in blocks:
        if b"\r" not in block.removesuffix(b"\r") and b"\n" not in block:
            yield block  # a CR at its end may belong to an LF in the next
            continue
        if b"\n" in block:
            yield block
            yield from blocks
            return
        yield block.replace(b"\r", b"\n")
        for later in blocks:
            yield later.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


class _BlockStream(io.RawIOBase):
    """Blocks as a file that can be buffered."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = blocks
        self._rest = memoryview(b"")
        self.error: CorruptFileError | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Fill some of ``buffer``; 0 at the end or where damage begins."""
        while not self._rest:
            try:
                block = next(self._blocks, None)
            except CorruptFileError as damage:
                self.error = damage
                return 0
            if block is None:
                return 0
            self._rest = memoryview(block)
        view = memoryview(buffer).cast("B")
        size = min(len(view), len(self._rest))
        view[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size
