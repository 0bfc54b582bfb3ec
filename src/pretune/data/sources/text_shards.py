"""A prepared text on disk: parts of JSON lines, packed by Zstandard, and what a restart needs beside them.

A part gets its name when it is whole, and counts when the note beside it is written. What finding duplicates
must remember is kept a part at a time, so that the cost of stopping does not grow with what was done.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt
import zstandard
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from pretune.errors import CheckpointError
from pretune.runtime import atomic_files, state_file

LEVEL = 6
MANIFEST, TEXT_FOLDER = "cleaned.json", "text"
"""A folder with this file is a prepared text, and whole; and the folder of its parts."""
OLD_MANIFEST = "prepare.json"
"""What that file was called before."""
_REPAIR_HINT = f"prepare the text again, or, where the change is yours, remove {MANIFEST}"
PROGRESS_FOLDER = "progress"
"""The folder of what a restart needs; it goes when all is done."""
REWRITE_HINT = "this part and those after it are written again"


@dataclass(frozen=True, slots=True)
class Shard:
    """A finished part."""

    name: str
    documents: int
    bytes: int
    """Of text, before packing."""
    size: int
    """Of the file."""
    sha256: str


class ShardWriter:
    """Writes one part."""

    def __init__(self, folder: Path, number: int) -> None:
        self.path = folder / "text" / f"shard-{number:05d}.jsonl.zst"
        self.documents = self.bytes = 0
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._partial = self.path.with_name(f"{self.path.name}.partial")
        self._file = self._partial.open("wb")
        self._digest = hashlib.sha256()
        self._compressor = zstandard.ZstdCompressor(level=LEVEL, write_checksum=True).compressobj()

    def write(self, line: bytes, size: int) -> None:
        """Add a line that holds a text of ``size`` bytes."""
        self._write_bytes(self._compressor.compress(line + b"\n"))
        self.documents += 1
        self.bytes += size

    def finish(self) -> Shard:
        """Give the part its name."""
        self._write_bytes(self._compressor.flush())
        self._file.flush()
        os.fsync(self._file.fileno())
        size = self._file.tell()
        self._file.close()
        self._partial.replace(self.path)
        return Shard(self.path.name, self.documents, self.bytes, size, self._digest.hexdigest())

    def close(self) -> None:
        """Give up what is not finished."""
        self._file.close()
        self._partial.unlink(missing_ok=True)

    def _write_bytes(self, data: bytes) -> None:
        self._file.write(data)
        self._digest.update(data)


@dataclass(frozen=True, slots=True)
class ShardProgress:
    """How far a preparation had come when a part was finished."""

    records: int
    """Records that were read by then."""
    shard: Shard
    stats: Mapping[str, Any]


Arrays = dict[str, npt.NDArray[Any]]


class _ShardForm(state_file.StateSchema):
    name: str
    documents: int
    bytes: int
    size: int
    sha256: str


class _ShardProgressForm(state_file.StateSchema):
    records: int
    shard: _ShardForm
    stats: dict[str, Any]


class CleanedTextForm(state_file.StateSchema):
    """The form of the file that says that a prepared text is whole."""

    settings: dict[str, Any]
    sources: list[Any]
    summary: dict[str, Any]
    shards: list[_ShardForm]


def verify_shard(path: Path, shard: Mapping[str, Any], hint: str) -> None:
    """See that the file of a finished part is what was written.

    Raises:
        CheckpointError: it is missing, cut or changed; names it.
    """
    try:
        atomic_files.verify_file(path, shard["size"], shard["sha256"])
    except CheckpointError as error:
        raise CheckpointError(f"{error}; {hint}") from None


def check_shard_file(path: Path) -> None:
    """See that a file that is read as text is what ``data prepare`` wrote, where it is a part of that.

    A flipped bit would end its reading there, and the corpus would be shorter than it says.

    Raises:
        CheckpointError: it is missing, cut or changed; or the folder's own file is damaged.
    """
    folder = path.parent.parent
    if path.parent.name != TEXT_FOLDER or not (folder / MANIFEST).is_file():
        return
    for part in _list_shards(folder):
        if part["name"] == path.name:
            verify_shard(path, part, _REPAIR_HINT)


def check_shards(folder: Path) -> None:
    """See that no part of a prepared text is missing.

    Raises:
        CheckpointError: one is; names it.
    """
    for part in _list_shards(folder):
        if not (folder / TEXT_FOLDER / part["name"]).is_file():
            raise CheckpointError(f"{folder / TEXT_FOLDER / part['name']}: missing; {_REPAIR_HINT}")


def check_marker_name(folder: Path) -> None:
    """See that a folder is not cleaned text whose marker has the name of before.

    Raises:
        CheckpointError: it is; says what to do.
    """
    path = folder / OLD_MANIFEST
    # A folder that may not be looked into is named by whoever lists it.
    if not os.path.isfile(path) or not (folder / TEXT_FOLDER).is_dir():
        return
    if {"parts", state_file.CHECKSUM_KEY} <= (state_file.read_unverified(path, _REPAIR_HINT) or {}).keys():
        raise state_file.renamed_error(
            path, f"file {OLD_MANIFEST} is called {MANIFEST} now, and its key 'parts' 'shards'",
            f"prepare the text again in another folder, or remove {path} to read {TEXT_FOLDER}/ as any text",
        )  # fmt: skip


def _list_shards(folder: Path) -> list[dict[str, Any]]:
    path = folder / MANIFEST
    if (
        not {"shards", state_file.CHECKSUM_KEY}
        & (state_file.read_unverified(path, _REPAIR_HINT) or {}).keys()
    ):
        return []  # another program's file of that name
    found: list[dict[str, Any]] = (state_file.read(path, _REPAIR_HINT, CleanedTextForm) or {})["shards"]
    return found


def write_arrays(path: Path, arrays: Arrays) -> None:
    """Write arrays with a checksum, whole or not at all."""
    partial = path.with_name(f"{path.name}.partial")
    save_file(arrays, partial, metadata={state_file.CHECKSUM_KEY: _checksum(arrays)})
    partial.replace(path)


def read_arrays(path: Path) -> Arrays:
    """What :func:`write_arrays` wrote.

    Raises:
        CheckpointError: it is missing or damaged.
    """
    try:
        with safe_open(path, "np") as file:
            memory = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it has no __iter__
            kept = (file.metadata() or {}).get(state_file.CHECKSUM_KEY)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise CheckpointError(f"{path}: damaged: {error}; remove it and run the command again") from None
    if kept != _checksum(memory):
        raise CheckpointError(
            f"{path}: damaged: not what was written (SHA-256 differs); remove it and run the command again"
        )
    return memory


def _checksum(arrays: Arrays) -> str:
    content = hashlib.sha256()
    for name in sorted(arrays):
        content.update(f"{name} {arrays[name].dtype.str} {arrays[name].shape}".encode())
        content.update(arrays[name].tobytes())
    return content.hexdigest()


def write_progress(folder: Path, number: int, progress: ShardProgress, arrays: Arrays) -> None:
    """Keep what a restart needs after part ``number``; the note itself comes last."""
    notes = folder / PROGRESS_FOLDER
    notes.mkdir(parents=True, exist_ok=True)
    write_arrays(notes / f"shard-{number:05d}.safetensors", arrays)
    state_file.write(notes / f"shard-{number:05d}.json", asdict(progress))


def read_progress(folder: Path, say: Callable[[str], None]) -> list[tuple[ShardProgress, Arrays]]:
    """The notes of the finished parts, in order, up to the first that is damaged; ``say`` is told of it.

    The damaged part and those after it are written again: a part depends on those before it alone.
    """
    found: list[tuple[ShardProgress, Arrays]] = []
    while (path := folder / PROGRESS_FOLDER / f"shard-{len(found):05d}.json").exists():
        try:
            values = state_file.read(path, REWRITE_HINT, _ShardProgressForm) or {}
            memory = read_arrays(path.with_suffix(".safetensors"))
            verify_shard(folder / "text" / values["shard"]["name"], values["shard"], REWRITE_HINT)
        except CheckpointError as error:
            say(str(error))
            break
        found.append((ShardProgress(values["records"], Shard(**values["shard"]), values["stats"]), memory))
    return found
