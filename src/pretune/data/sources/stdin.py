"""Standard input as a file, since it comes once and text is read several times."""

from __future__ import annotations

import functools
import hashlib
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import orjson

from pretune.data.sources.compression import file_blocks, gunzipped, unzstd
from pretune.data.sources.corrupt import Damage
from pretune.data.sources.encodings import as_utf8
from pretune.data.sources.record_log import RecordLog
from pretune.errors import DataError

NAME = "standard input"
_PACKED: dict[bytes, tuple[str, Callable[[Iterator[bytes]], Iterator[bytes]]]] = {
    b"\x1f\x8b": (".gz", gunzipped),
    b"\x28\xb5\x2f\xfd": (".zst", unzstd),
}
_KINDS = {b"PK\x03\x04": ".zip", b"PAR1": ".parquet"}
_LOOKED_AT = 5
"""Lines that must all be objects for the text to be taken as JSON lines."""


@dataclass(frozen=True, slots=True)
class Spool:
    """What came in; the folder is removed with the process."""

    path: Path
    digest: str
    folder: tempfile.TemporaryDirectory[str]


@functools.lru_cache(maxsize=1)  # the stream cannot be read again, so the spool lasts as long as it
def spooled(stream: BinaryIO) -> Spool:
    """All of a stream in a file whose suffix says what it is: packed, Parquet, JSON lines, else plain text.

    Raises:
        DataError: the stream is a terminal, or cannot be kept.
    """
    if stream.isatty():
        raise DataError(f"{NAME}: is a terminal: pipe text into it: `cat a.txt | pretune ... -`")
    folder = tempfile.TemporaryDirectory(prefix="pretune-")
    raw, content = Path(folder.name) / "input", hashlib.sha256()
    try:
        with raw.open("wb") as file:
            while block := stream.read(1 << 20):
                content.update(block)
                file.write(block)
        path = raw.rename(raw.with_name(raw.name + _kind(raw)))
    except OSError as error:
        raise DataError(f"{NAME}: cannot be kept in {folder.name}: {error.strerror}; set TMPDIR") from None
    return Spool(path, content.hexdigest(), folder)


def _kind(path: Path) -> str:
    blocks, packing = file_blocks(path, RecordLog()), ""
    start = next(blocks, b"")
    for mark, kind in _KINDS.items():
        if start.startswith(mark):
            return kind
    for mark, (suffix, unpack) in _PACKED.items():
        if start.startswith(mark):
            packing = suffix
            try:
                start = next(unpack(iter((start,))), b"")
            except Damage:
                start = b""
    return (".jsonl" if _are_objects(start) else ".txt") + packing


def _are_objects(start: bytes) -> bool:
    try:
        text = b"".join(as_utf8(iter((start,)), lambda encoding: None))
        lines = [line for line in text.split(b"\n") if line.strip()]
        return bool(lines) and all(
            isinstance(orjson.loads(line), dict) for line in lines[: max(1, min(_LOOKED_AT, len(lines) - 1))]
        )
    except (orjson.JSONDecodeError, Damage):
        return False
