"""The files that a text was made from, and which of them have changed since."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from pretune.data.sources.records import list_files
from pretune.errors import DataError
from pretune.runtime.atomic_files import sha256

FileStates = Mapping[str, tuple[int, int, str]]
"""File to its size, the time of its last change (nanoseconds) and its SHA-256."""


def file_states(paths: Iterable[str], columns: tuple[str, ...]) -> dict[str, tuple[int, int, str]]:
    """The files that ``read_records`` reads of these paths, as they are now; standard input is none.

    Raises:
        DataError: a path leads nowhere.
    """
    found = {}
    for name, size, changed in list_files(_without_stdin(paths), columns):
        try:
            found[name] = size, changed, sha256(Path(name))
        except OSError:
            continue  # reading it will say so
    return found


def find_changes(paths: Iterable[str], columns: tuple[str, ...], before: FileStates) -> list[str]:
    """What has happened to these files since, a sentence a file: read again is only one that was touched."""
    said: list[str] = []
    now: dict[str, tuple[int, int]] = {}
    for path in _without_stdin(paths):
        try:
            now |= {name: (size, changed) for name, size, changed in list_files([path], columns)}
        except DataError:
            continue  # whatever it held is gone
    for name, (size, changed, content) in before.items():
        if name not in now:
            said.append(f"{name}: is no longer there")
        elif now[name] != (size, changed) and _has_changed(Path(name), now[name][0], size, content):
            said.append(f"{name}: has changed")
    return said + [f"{name}: is new" for name in now if name not in before]


def _has_changed(path: Path, size: int, old_size: int, old_sha256: str) -> bool:
    try:
        return size != old_size or sha256(path) != old_sha256
    except OSError:
        return True


def _without_stdin(paths: Iterable[str]) -> list[str]:
    return [path for path in paths if path != "-"]
