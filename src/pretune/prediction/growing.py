"""An output that grows in a ``.partial`` file, gets its name at the end, and is gone on with after a kill."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from pretune.checkpoint import store
from pretune.config import differences
from pretune.errors import DataError, UsageError


class Growing:
    """A file that is written a piece at a time; after each piece a sidecar says how far it is, and of what.

    A process that ends at any moment leaves at most a tail beyond the sidecar's count of bytes; the next one
    cuts it off and goes on.

    Args:
        path: the final name.
        identity: all that decides the content, in values that JSON can hold.

    Raises:
        UsageError: ``path`` is a folder, or what lies there half-written is of another identity.
        DataError: the file cannot be written.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        if path.is_dir():
            raise UsageError(f"{path}: is a folder; give the file that the answers go to")
        self.path, self.identity = path, dict(identity)
        self.partial = path.with_name(path.name + ".partial")
        self.sidecar = path.with_name(path.name + ".partial.json")
        self.state: dict[str, Any] = {}
        """What the last piece left with the sidecar; empty at the beginning."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._open()
        except OSError as error:
            raise self._refused(error) from None

    def write(self, piece: bytes, state: Mapping[str, Any]) -> None:
        """Append a piece; once this returns it is safe from a kill, and so is ``state``."""
        try:
            self._file.write(piece)
            self._file.flush()
            os.fsync(self._file.fileno())
            size = self._file.tell()
        except OSError as error:
            raise self._refused(error) from None
        self.state = dict(state)
        store.write_json(self.sidecar, {"identity": self.identity, "bytes": size, "state": self.state})

    def finish(self) -> None:
        """Give the file its name."""
        try:
            self._file.close()
            self.partial.replace(self.path)
        except OSError as error:
            raise self._refused(error) from None
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
        there = self._there()
        if there is None:
            return self.partial.open("wb")
        changed = differences(there["identity"], self.identity)
        if changed:
            raise UsageError(
                f"{self.partial}: was begun with something else ({'; '.join(changed)}); give the same "
                "again to go on with it, or remove it to begin anew"
            )
        file = self.partial.open("r+b")
        file.truncate(there["bytes"])
        file.seek(0, os.SEEK_END)
        self.state = dict(there["state"])
        return file

    def _there(self) -> dict[str, Any] | None:
        """The sidecar, where it and all that it counts are there."""
        try:
            there = json.loads(self.sidecar.read_text(encoding="utf-8"))
            whole = self.partial.stat().st_size >= int(there["bytes"])
            return dict(there) if whole and {"identity", "state"} <= there.keys() else None
        except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def _refused(self, error: OSError) -> DataError:
        return DataError(f"{self.path}: cannot be written: {error}")
