"""A file of numbers of which slices are read."""

from __future__ import annotations

import os
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt


class Slices:
    """The numbers of a file, read where they are asked for.

    A memory map would do, but the pages that were read count as the process's memory until the system wants
    them back: after a pass over the text, all of it. Forked processes may share one: no read moves a place in
    the file that another depends on.
    """

    def __init__(self, path: Path, dtype: np.dtype[Any]) -> None:
        self.dtype = dtype
        self._file = path.open("rb", buffering=0)
        self._size = path.stat().st_size // dtype.itemsize
        self._lock = Lock()

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            self._file.close()

    def __len__(self) -> int:
        return self._size

    def read(self, low: int, high: int) -> npt.NDArray[Any]:
        """(high - low,) the numbers [low, high), fewer where the file ends."""
        size = self.dtype.itemsize
        data = self._bytes(size * low, size * max(high - low, 0))
        return np.frombuffer(data, self.dtype, len(data) // size)

    def _bytes(self, start: int, count: int) -> bytes:
        if hasattr(os, "pread"):
            return os.pread(self._file.fileno(), count, start)
        with self._lock:
            self._file.seek(start)
            return self._file.read(count) or b""
