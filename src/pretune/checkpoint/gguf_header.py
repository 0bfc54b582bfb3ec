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
MAX_DIMENSIONS = 4
SCALAR_FORMATS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""Type of a value in the file -> its format; 8 is a string, 9 an array."""
STRING, ARRAY = 8, 9
SIZE_KEYS = ("block_count", "embedding_length", "feed_forward_length", "attention.head_count",
         "attention.head_count_kv", "vocab_size", "expert_count", "attention.key_length",
         "attention.value_length", "rope.dimension_count")  # fmt: skip
"""Keys, behind the name of the architecture, from which a network takes its shape."""
MAX_CONTEXT_LENGTH = 1 << 24


@dataclass(frozen=True, slots=True)
class GGUFHeader:
    """What a file says of itself."""

    values: Mapping[str, Any]
    """Numbers and strings; of an array its length."""
    shapes: Mapping[str, tuple[int, ...]]


def read_header(path: Path) -> GGUFHeader:
    """The header, all of whose counts and offsets lie within the file.

    Raises:
        CheckpointError: they do not, or a size in it is none that its tensors have.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        reader = _Reader(path, file, size)
        try:
            header = _read_header(reader, size)
        except (struct.error, UnicodeDecodeError) as error:
            raise reader.error(f"{error}") from None
    _check_sizes(path, header)
    return header


class _Reader:
    """Numbers and strings from a file; nothing is read that the file is too short for."""

    def __init__(self, path: Path, file: BinaryIO, size: int) -> None:
        self._path, self._file, self._size = path, file, size

    def error(self, reason: str) -> CheckpointError:
        """The error that names the file."""
        return CheckpointError(f"{self._path}: cannot be read as GGUF: {reason}; fetch it again")

    @property
    def bytes_left(self) -> int:
        """Bytes behind the place that is read next."""
        return self._size - self._file.tell()

    def read_number(self, struct_format: str) -> Any:
        """A number of a format of `struct`."""
        return struct.unpack("<" + struct_format, self._file.read(struct.calcsize("<" + struct_format)))[0]

    def read_count(self, min_bytes: int = 1) -> int:
        """How many things of at least ``min_bytes`` bytes each follow."""
        count: int = self.read_number("Q")
        if count * min_bytes > self.bytes_left:
            raise self.error(f"it counts {count:,} where {self.bytes_left:,} bytes are left")
        return count

    def read_string(self) -> str:
        """A string with its length before it."""
        return self._file.read(self.read_count()).decode()

    def read_value(self) -> Any:
        """A value with its type before it; of an array the length."""
        type_id = self.read_number("I")
        if type_id == STRING:
            return self.read_string()
        if type_id != ARRAY:
            return self.read_number(self._scalar_format(type_id))
        item_type_id = self.read_number("I")
        if item_type_id == STRING:
            length = self.read_count(8)
            for _ in range(length):
                self._file.seek(self.read_count(), 1)
            return length
        width = struct.calcsize("<" + self._scalar_format(item_type_id))
        length = self.read_count(width)
        self._file.seek(length * width, 1)
        return length

    def _scalar_format(self, type_id: int) -> str:
        if type_id not in SCALAR_FORMATS:
            raise self.error(f"a value of type {type_id}")
        return SCALAR_FORMATS[type_id]


def _read_header(reader: _Reader, size: int) -> GGUFHeader:
    magic, version = reader.read_number("I"), reader.read_number("I")
    if magic.to_bytes(4, "little") != b"GGUF":
        raise reader.error("it does not begin as a GGUF file does")
    if version not in VERSIONS:
        raise reader.error(f"version {version}; those that are read: {', '.join(map(str, VERSIONS))}")
    tensors, pairs = reader.read_count(24), reader.read_count(12)
    values = {reader.read_string(): reader.read_value() for _ in range(pairs)}
    shapes, max_offset = {}, 0
    for _ in range(tensors):
        name, dimensions = reader.read_string(), reader.read_number("I")
        if not 1 <= dimensions <= MAX_DIMENSIONS:
            raise reader.error(f"{quote(name)} has {dimensions} dimensions")
        shapes[name] = tuple(reader.read_number("Q") for _ in range(dimensions))
        reader.read_number("I")  # how it is quantised
        max_offset = max(max_offset, reader.read_number("Q"))
        # The closest quantisation has a little over one bit a weight.
        if not 1 <= math.prod(shapes[name]) <= 8 * size:
            raise reader.error(f"{quote(name)} has the shape {shapes[name]}, the file {size:,} bytes")
    if max_offset >= reader.bytes_left:
        raise reader.error(
            f"a tensor at byte {max_offset:,}, where {reader.bytes_left:,} are left: it is cut off"
        )
    return GGUFHeader(values, shapes)


def _check_sizes(path: Path, header: GGUFHeader) -> None:
    largest = max((length for shape in header.shapes.values() for length in shape), default=0)
    bounds: dict[str, Callable[[], int]] = {
        "block_count": lambda: len(header.shapes),
        "context_length": lambda: MAX_CONTEXT_LENGTH,
    }
    architecture = header.values.get("general.architecture")
    for key in (*SIZE_KEYS, "context_length"):
        name = f"{architecture}.{key}"
        value, max_value = header.values.get(name), bounds.get(key, lambda: largest)()
        if value is not None and not (isinstance(value, int) and 0 <= value <= max_value):
            raise CheckpointError(
                f"{path}: cannot be read as GGUF: {name} = {quote(value)}: {max_value:,} is the most that "
                "its "
                "tensors can have; fetch it again"
            )
