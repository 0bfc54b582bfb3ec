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
PREPARED, TEXT = "prepare.json", "text"
"""A folder with this file is a prepared text, and whole; and the folder of its parts."""
_WAY_OUT = f"prepare the text again, or, where the change is yours, remove {PREPARED}"
NOTES = "progress"
"""The folder of what a restart needs; it goes when all is done."""
AGAIN = "this part and those after it are written again"


@dataclass(frozen=True, slots=True)
class Part:
    """A finished part."""

    name: str
    documents: int
    bytes: int
    """Of text, before packing."""
    size: int
    """Of the file."""
    sha256: str


class PartWriter:
    """Writes one part."""

    def __init__(self, folder: Path, number: int) -> None:
        self.path = folder / "text" / f"part-{number:05d}.jsonl.zst"
        self.documents = self.bytes = 0
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._partial = self.path.with_name(f"{self.path.name}.partial")
        self._file = self._partial.open("wb")
        self._digest = hashlib.sha256()
        self._packer = zstandard.ZstdCompressor(level=LEVEL, write_checksum=True).compressobj()

    def write(self, line: bytes, size: int) -> None:
        """Add a line that holds a text of ``size`` bytes."""
        self._put(self._packer.compress(line + b"\n"))
        self.documents += 1
        self.bytes += size

    def finish(self) -> Part:
        """Give the part its name."""
        self._put(self._packer.flush())
        self._file.flush()
        os.fsync(self._file.fileno())
        size = self._file.tell()
        self._file.close()
        self._partial.replace(self.path)
        return Part(self.path.name, self.documents, self.bytes, size, self._digest.hexdigest())

    def close(self) -> None:
        """Give up what is not finished."""
        self._file.close()
        self._partial.unlink(missing_ok=True)

    def _put(self, data: bytes) -> None:
        self._file.write(data)
        self._digest.update(data)


@dataclass(frozen=True, slots=True)
class Note:
    """How far a preparation had come when a part was finished."""

    records: int
    """Records that were read by then."""
    part: Part
    tally: Mapping[str, Any]


Memory = dict[str, npt.NDArray[Any]]


class _PartForm(state_file.Form):
    name: str
    documents: int
    bytes: int
    size: int
    sha256: str


class _NoteForm(state_file.Form):
    records: int
    part: _PartForm
    tally: dict[str, Any]


class Finished(state_file.Form):
    """The form of the file that says that a prepared text is whole."""

    settings: dict[str, Any]
    sources: list[Any]
    summary: dict[str, Any]
    parts: list[_PartForm]


def verify_part(path: Path, part: Mapping[str, Any], way_out: str) -> None:
    """See that the file of a finished part is what was written.

    Raises:
        CheckpointError: it is missing, cut or changed; names it.
    """
    try:
        atomic_files.verify_file(path, part["size"], part["sha256"])
    except CheckpointError as error:
        raise CheckpointError(f"{error}; {way_out}") from None


def check_text(path: Path) -> None:
    """See that a file that is read as text is what ``data prepare`` wrote, where it is a part of that.

    A flipped bit would end its reading there, and the corpus would be shorter than it says.

    Raises:
        CheckpointError: it is missing, cut or changed; or the folder's own file is damaged.
    """
    folder = path.parent.parent
    if path.parent.name != TEXT or not (folder / PREPARED).is_file():
        return
    for part in _listed(folder):
        if part["name"] == path.name:
            verify_part(path, part, _WAY_OUT)


def check_parts(folder: Path) -> None:
    """See that no part of a prepared text is missing.

    Raises:
        CheckpointError: one is; names it.
    """
    for part in _listed(folder):
        if not (folder / TEXT / part["name"]).is_file():
            raise CheckpointError(f"{folder / TEXT / part['name']}: missing; {_WAY_OUT}")


def _listed(folder: Path) -> list[dict[str, Any]]:
    path = folder / PREPARED
    if not {"parts", state_file.CHECKSUM} & (state_file.read_any(path, _WAY_OUT) or {}).keys():
        return []  # another program's file of that name
    found: list[dict[str, Any]] = (state_file.read(path, _WAY_OUT, Finished) or {})["parts"]
    return found


def write_memory(path: Path, memory: Memory) -> None:
    """Write arrays with a checksum, whole or not at all."""
    partial = path.with_name(f"{path.name}.partial")
    save_file(memory, partial, metadata={state_file.CHECKSUM: _summed(memory)})
    partial.replace(path)


def read_memory(path: Path) -> Memory:
    """What :func:`write_memory` wrote.

    Raises:
        CheckpointError: it is missing or damaged.
    """
    try:
        with safe_open(path, "np") as file:
            memory = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it has no __iter__
            kept = (file.metadata() or {}).get(state_file.CHECKSUM)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise CheckpointError(f"{path}: damaged: {error}; remove it and run the command again") from None
    if kept != _summed(memory):
        raise CheckpointError(
            f"{path}: damaged: not what was written (SHA-256 differs); remove it and run the command again"
        )
    return memory


def _summed(memory: Memory) -> str:
    content = hashlib.sha256()
    for name in sorted(memory):
        content.update(f"{name} {memory[name].dtype.str} {memory[name].shape}".encode())
        content.update(memory[name].tobytes())
    return content.hexdigest()


def write_note(folder: Path, number: int, note: Note, memory: Memory) -> None:
    """Keep what a restart needs after part ``number``; the note itself comes last."""
    notes = folder / NOTES
    notes.mkdir(parents=True, exist_ok=True)
    write_memory(notes / f"part-{number:05d}.safetensors", memory)
    state_file.write(notes / f"part-{number:05d}.json", asdict(note))


def read_notes(folder: Path, say: Callable[[str], None]) -> list[tuple[Note, Memory]]:
    """The notes of the finished parts, in order, up to the first that is damaged; ``say`` is told of it.

    The damaged part and those after it are written again: a part depends on those before it alone.
    """
    found: list[tuple[Note, Memory]] = []
    while (path := folder / NOTES / f"part-{len(found):05d}.json").exists():
        try:
            values = state_file.read(path, AGAIN, _NoteForm) or {}
            memory = read_memory(path.with_suffix(".safetensors"))
            verify_part(folder / "text" / values["part"]["name"], values["part"], AGAIN)
        except CheckpointError as error:
            say(str(error))
            break
        found.append((Note(values["records"], Part(**values["part"]), values["tally"]), memory))
    return found
