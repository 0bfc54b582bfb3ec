"""A file of numbers of which slices are read, and verified where they are read for the first time."""

from __future__ import annotations

import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from pretune.errors import ChecksumError

CHUNK = 1 << 20
"""Bytes of a checksum: CRC-32 takes a quarter of a millisecond of each, once."""


def chunk_checksums(path: Path) -> list[int]:
    """The CRC-32 of each chunk of a file."""
    found = []
    with path.open("rb") as file:
        while block := file.read(CHUNK):
            found.append(zlib.crc32(block))
    return found


class ArrayFile:
    """The numbers of a file, read where they are asked for.

    A memory map would do, but the pages that were read count as the process's memory until the system wants
    them back: after a pass over the text, all of it. Forked processes may share one: no read moves a place in
    the file that another depends on.
    """

    def __init__(self, path: Path, dtype: np.dtype[Any], checksums: Sequence[int] = ()) -> None:
        """``checksums``: :func:`checksums` of the file as it was written; without them nothing is
        verified.
        """
        self.path, self.dtype = path, dtype
        self._checksums, self._verified_chunks = checksums, bytearray(len(checksums))
        self._file = path.open("rb", buffering=0)
        self._size = path.stat().st_size // dtype.itemsize
        self._lock = Lock()

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            self._file.close()

    def __len__(self) -> int:
        return self._size

    def read(self, low: int, high: int) -> npt.NDArray[Any]:
        """(high - low,) the numbers [low, high), fewer where the file ends.

        Raises:
            ChecksumError: the file is not what was written there.
        """
        size = self.dtype.itemsize
        start, count = size * low, size * max(high - low, 0)
        chunks = range(start // CHUNK, -(-(start + count) // CHUNK))
        if count and not all(self._verified_chunks[chunks.start : chunks.stop]):
            self._verify(chunks)
        data = self._read_bytes(start, count)
        return np.frombuffer(data, self.dtype, len(data) // size)

    def _verify(self, chunks: range) -> None:
        for chunk in chunks[: len(self._checksums) - chunks.start]:
            if zlib.crc32(self._read_bytes(chunk * CHUNK, CHUNK)) != self._checksums[chunk]:
                raise ChecksumError(
                    self.path, f"tokens are not what was written (CRC-32 differs at byte {chunk * CHUNK:,})"
                )
            self._verified_chunks[chunk] = 1

    def _read_bytes(self, start: int, count: int) -> bytes:
        if hasattr(os, "pread"):
            return os.pread(self._file.fileno(), count, start)
        with self._lock:
            self._file.seek(start)
            return self._file.read(count) or b""
