"""The header of a GGUF file, compared with the size of the file before a library computes with its counts."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from pretune.errors import CheckpointError, quote

VERSIONS = (2, 3)
MOST_DIMENSIONS = 4
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""Type of a value in the file -> its format; 8 is a string, 9 an array."""
STRING, ARRAY = 8, 9
SIZES = ("block_count", "embedding_length", "feed_forward_length", "attention.head_count",
         "attention.head_count_kv", "vocab_size", "expert_count", "attention.key_length",
         "attention.value_length", "rope.dimension_count")  # fmt: skip
"""Keys, behind the name of the architecture, from which a network takes its shape."""
LONGEST_CONTEXT = 1 << 24


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says of itself."""

    values: Mapping[str, Any]
    """Numbers and strings; of an array its length."""
    shapes: Mapping[str, tuple[int, ...]]


def read_header(path: Path) -> Header:
    """The header, all of whose counts and offsets lie within the file.

    Raises:
        CheckpointError: they do not, or a size in it is none that its tensors have.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        reader = _Reader(path, file, size)
        try:
            header = _header(reader, size)
        except (struct.error, UnicodeDecodeError) as error:
            raise reader.wrong(f"{error}") from None
    _check_sizes(path, header)
    return header


class _Reader:
    """Numbers and strings from a file; nothing is read that the file is too short for."""

    def __init__(self, path: Path, file: BinaryIO, size: int) -> None:
        self._path, self._file, self._size = path, file, size

    def wrong(self, reason: str) -> CheckpointError:
        """The error that names the file."""
        return CheckpointError(f"{self._path}: cannot be read as GGUF: {reason}; fetch it again")

    @property
    def left(self) -> int:
        """Bytes behind the place that is read next."""
        return self._size - self._file.tell()

    def number(self, form: str) -> Any:
        """A number of a format of `struct`."""
        return struct.unpack("<" + form, self._file.read(struct.calcsize("<" + form)))[0]

    def count(self, least: int = 1) -> int:
        """How many things of at least ``least`` bytes each follow."""
        count: int = self.number("Q")
        if count * least > self.left:
            raise self.wrong(f"it counts {count:,} where {self.left:,} bytes are left")
        return count

    def string(self) -> str:
        """A string with its length before it."""
        return self._file.read(self.count()).decode()

    def value(self) -> Any:
        """A value with its type before it; of an array the length."""
        kind = self.number("I")
        if kind == STRING:
            return self.string()
        if kind != ARRAY:
            return self.number(self._form(kind))
        inner = self.number("I")
        if inner == STRING:
            length = self.count(8)
            for _ in range(length):
                self._file.seek(self.count(), 1)
            return length
        width = struct.calcsize("<" + self._form(inner))
        length = self.count(width)
        self._file.seek(length * width, 1)
        return length

    def _form(self, kind: int) -> str:
        if kind not in SCALARS:
            raise self.wrong(f"a value of type {kind}")
        return SCALARS[kind]


def _header(reader: _Reader, size: int) -> Header:
    magic, version = reader.number("I"), reader.number("I")
    if magic.to_bytes(4, "little") != b"GGUF":
        raise reader.wrong("it does not begin as a GGUF file does")
    if version not in VERSIONS:
        raise reader.wrong(f"version {version}; those that are read: {', '.join(map(str, VERSIONS))}")
    tensors, pairs = reader.count(24), reader.count(12)
    values = {reader.string(): reader.value() for _ in range(pairs)}
    shapes, furthest = {}, 0
    for _ in range(tensors):
        name, dimensions = reader.string(), reader.number("I")
        if not 1 <= dimensions <= MOST_DIMENSIONS:
            raise reader.wrong(f"{quote(name)} has {dimensions} dimensions")
        shapes[name] = tuple(reader.number("Q") for _ in range(dimensions))
        reader.number("I")  # how it is quantised
        furthest = max(furthest, reader.number("Q"))
        # The closest quantisation has a little over one bit a weight.
        if not 1 <= math.prod(shapes[name]) <= 8 * size:
            raise reader.wrong(f"{quote(name)} has the shape {shapes[name]}, the file {size:,} bytes")
    if furthest >= reader.left:
        raise reader.wrong(f"a tensor at byte {furthest:,}, where {reader.left:,} are left: it is cut off")
    return Header(values, shapes)


def _check_sizes(path: Path, header: Header) -> None:
    largest = max((length for shape in header.shapes.values() for length in shape), default=0)
    bounds: dict[str, Callable[[], int]] = {
        "block_count": lambda: len(header.shapes),
        "context_length": lambda: LONGEST_CONTEXT,
    }
    architecture = header.values.get("general.architecture")
    for key in (*SIZES, "context_length"):
        name = f"{architecture}.{key}"
        value, most = header.values.get(name), bounds.get(key, lambda: largest)()
        if value is not None and not (isinstance(value, int) and 0 <= value <= most):
            raise CheckpointError(
                f"{path}: cannot be read as GGUF: {name} = {quote(value)}: {most:,} is the most that its "
                "tensors can have; fetch it again"
            )
