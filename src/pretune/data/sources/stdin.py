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

from pretune.data.sources.compression import file_blocks, gunzip, unzstd
from pretune.data.sources.corrupt import CorruptFileError
from pretune.data.sources.encodings import as_utf8
from pretune.data.sources.record_log import RecordLog
from pretune.errors import DataError

NAME = "standard input"
_COMPRESSIONS: dict[bytes, tuple[str, Callable[[Iterator[bytes]], Iterator[bytes]]]] = {
    b"\x1f\x8b": (".gz", gunzip),
    b"\x28\xb5\x2f\xfd": (".zst", unzstd),
}
_SIGNATURES = {b"PK\x03\x04": ".zip", b"PAR1": ".parquet"}
_SAMPLE_LINES = 5
"""Lines that must all be objects for the text to be taken as JSON lines."""


@dataclass(frozen=True, slots=True)
class StdinFile:
    """What came in; the folder is removed with the process."""

    path: Path
    digest: str
    folder: tempfile.TemporaryDirectory[str]


@functools.lru_cache(maxsize=1)  # the stream cannot be read again, so the spool lasts as long as it
def read_stdin(stream: BinaryIO) -> StdinFile:
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
        path = raw.rename(raw.with_name(raw.name + _detect_suffix(raw)))
    except OSError as error:
        raise DataError(f"{NAME}: cannot be kept in {folder.name}: {error.strerror}; set TMPDIR") from None
    return StdinFile(path, content.hexdigest(), folder)


def _detect_suffix(path: Path) -> str:
    blocks, packing = file_blocks(path, RecordLog()), ""
    start = next(blocks, b"")
    for mark, kind in _SIGNATURES.items():
        if start.startswith(mark):
            return kind
    for mark, (suffix, unpack) in _COMPRESSIONS.items():
        if start.startswith(mark):
            packing = suffix
            try:
                start = next(unpack(iter((start,))), b"")
            except CorruptFileError:
                start = b""
    return (".jsonl" if _is_json_lines(start) else ".txt") + packing


def _is_json_lines(start: bytes) -> bool:
    try:
        text = b"".join(as_utf8(iter((start,)), lambda encoding: None))
        lines = [line for line in text.split(b"\n") if line.strip()]
        return bool(lines) and all(
            isinstance(orjson.loads(line), dict)
            for line in lines[: max(1, min(_SAMPLE_LINES, len(lines) - 1))]
        )
    except (orjson.JSONDecodeError, CorruptFileError):
        return False
