"""An output that grows in a ``.partial`` file, gets its name at the end, and is gone on with after a kill.

The sidecar has a checksum of its own and one of the bytes that it counts: what does not fit is begun anew.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

from pretune.config import differences
from pretune.errors import CheckpointError, DataError, UsageError
from pretune.runtime import atomic_files, state_file


class _Sidecar(state_file.StateSchema):
    """How far the output is, and of what it is one."""

    old_keys: ClassVar[Mapping[str, str]] = {"content": "content_sha256"}
    identity: dict[str, Any]
    bytes: int
    content_sha256: str
    """SHA-256 of so many bytes of the output."""
    state: dict[str, Any]


class ResumableFile:
    """A file that is written a piece at a time; after each piece a sidecar says how far it is, and of what.

    A process that ends at any moment leaves at most a tail beyond the sidecar's count of bytes; the next one
    cuts it off and goes on.

    Args:
        path: the final name.
        identity: all that decides the content, in values that JSON can hold.
        warn: is told where what lies there half-written cannot be gone on with.
        overwrite: replace a file of that name.

    Raises:
        UsageError: ``path`` is a folder or a file that holds something, or what lies there half-written is
            of another identity or not of pretune.
        DataError: the file cannot be written.
    """

    def __init__(
        self,
        path: Path,
        identity: Mapping[str, Any],
        warn: Callable[[str], None] = lambda _: None,
        *,
        overwrite: bool = False,
    ) -> None:
        atomic_files.check_file(path, overwrite=overwrite)
        self._warn = warn
        self.path, self.identity = path, dict(identity)
        self.partial = path.with_name(path.name + ".partial")
        self.sidecar = path.with_name(path.name + ".partial.json")
        self.state: dict[str, Any] = {}
        """What the last piece left with the sidecar; empty at the beginning."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._open()
        except OSError as error:
            raise self._write_error(error) from None

    def write(self, data: bytes, progress: Mapping[str, Any]) -> None:
        """Append a piece; once this returns it is safe from a kill, and so is ``progress``, its ``state``."""
        try:
            self._file.write(data)
            self._file.flush()
            os.fsync(self._file.fileno())
            count = self._file.tell()
        except OSError as error:
            raise self._write_error(error) from None
        self._hash.update(data)
        self.state = dict(progress)
        self._write_sidecar(count)

    def _write_sidecar(self, count: int) -> None:
        sidecar = {"identity": self.identity, "bytes": count, "content_sha256": self._hash.hexdigest()}
        state_file.write(self.sidecar, {**sidecar, "state": self.state})

    def finish(self) -> None:
        """Give the file its name."""
        try:
            self._file.close()
            self.partial.replace(self.path)
        except OSError as error:
            raise self._write_error(error) from None
        self.sidecar.unlink(missing_ok=True)

    def discard(self) -> None:
        """Leave nothing: what was written cannot become a whole."""
        self.state = {}

    def close(self) -> None:
        """Stop; what was written waits for the next process, and where nothing was, nothing is left."""
        self._file.close()
        if not self.state:
            self.partial.unlink(missing_ok=True)
            self.sidecar.unlink(missing_ok=True)

    def _open(self) -> BinaryIO:
        self._hash = hashlib.sha256()
        sidecar = self._read_sidecar()
        if sidecar is None:
            self._write_sidecar(0)  # before the file: one without a sidecar was never ours
            return self.partial.open("wb")
        changed = differences(sidecar["identity"], self.identity)
        if changed:
            raise UsageError(
                f"{self.partial}: was begun with something else ({'; '.join(changed)}); give the same "
                "again to go on with it, or remove it to begin anew"
            )
        file = self.partial.open("r+b")
        file.truncate(sidecar["bytes"])
        file.seek(0, os.SEEK_END)
        self.state = dict(sidecar["state"])
        return file

    def _read_sidecar(self) -> dict[str, Any] | None:
        """The sidecar, where it and all that it counts are there as they were written."""
        try:
            sidecar = state_file.read(self.sidecar, "the output is begun anew", _Sidecar)
        except CheckpointError as error:
            self._warn(str(error))
            return None
        if sidecar is None:
            if self.partial.is_file() and self.partial.stat().st_size:
                raise UsageError(
                    f"{self.partial}: is there, and was not begun by pretune ({self.sidecar.name} is "
                    "missing); move it away, or give another --out"
                )
            return None
        if not sidecar["bytes"]:
            return None
        if not self.partial.is_file() or self._hash_prefix(sidecar["bytes"]) != sidecar["content_sha256"]:
            self._warn(f"{self.partial}: is gone or not what was written; the output is begun anew")
            self._hash = hashlib.sha256()
            return None
        return sidecar

    def _hash_prefix(self, count: int) -> str:
        """SHA-256 of the first bytes of the output; empty where there are not so many."""
        self._hash = digest = hashlib.sha256()
        with self.partial.open("rb") as file:
            while count and (block := file.read(min(count, 1 << 22))):
                digest.update(block)
                count -= len(block)
        return "" if count else digest.hexdigest()

    def _write_error(self, error: OSError) -> DataError:
        return DataError(f"{self.path}: cannot be written: {error}")
