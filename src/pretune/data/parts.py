"""A prepared text on disk: parts of JSON lines, packed by Zstandard, and what a restart needs beside them.

A part gets its name when it is whole, and counts when the note beside it is written. What finding duplicates
must remember is kept a part at a time, so that the cost of stopping does not grow with what was done.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt
import zstandard
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from pretune.checkpoint.store import write_json
from pretune.errors import CheckpointError

LEVEL = 6
NOTES = "progress"
"""The folder of what a restart needs; it goes when all is done."""


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


def write_note(folder: Path, number: int, note: Note, memory: Memory) -> None:
    """Keep what a restart needs after part ``number``; the note itself comes last."""
    notes = folder / NOTES
    notes.mkdir(parents=True, exist_ok=True)
    save_file(memory, notes / f"part-{number:05d}.safetensors")
    write_json(notes / f"part-{number:05d}.json", asdict(note))


def read_notes(folder: Path) -> list[tuple[Note, Memory]]:
    """The notes of the finished parts, in order.

    Raises:
        CheckpointError: one is damaged.
    """
    found: list[tuple[Note, Memory]] = []
    while (path := folder / NOTES / f"part-{len(found):05d}.json").exists():
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            note = Note(int(values["records"]), Part(**values["part"]), values["tally"])
            memory = load_file(path.with_suffix(".safetensors"))
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise CheckpointError(f"{path}: damaged: {error}; remove {folder} to begin anew") from None
        text = folder / "text" / note.part.name
        if not text.exists() or text.stat().st_size != note.part.size:
            raise CheckpointError(f"{text}: damaged; remove {folder} to begin anew")
        found.append((note, memory))
    return found
