"""From what was asked for to the files to read: folders, patterns, links, and what is left out and why."""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pretune.data.sources.record_log import RecordLog
from pretune.data.sources.text_shards import PREPARED, TEXT, check_parts
from pretune.data.sources.unsupported_files import unread_files
from pretune.errors import DataError

_EMPTY_IS_WHOLE = (".txt", ".md", ".jsonl", ".ndjson", ".csv", ".tsv")
"""Kinds of which an empty file is not damaged: it just holds nothing."""


@dataclass(frozen=True, slots=True)
class Unfit:
    """Why a file of some name is left out."""

    reason: str
    kind: str | None
    """Its suffix, where files of this kind are never read."""


Misfit = Callable[[str], Unfit | None]
"""What is wrong with a file of some name; None: it is to be read."""


# ``os.path`` says no where ``Path`` raises: below a folder that may not be entered.


def find(asked: str, misfit: Misfit, kinds: str, log: RecordLog) -> list[Path]:
    """The files that a path or pattern means, those of a folder sorted.

    Raises:
        DataError: it leads nowhere, the file that it names is of another kind, or the folder holds
            nothing to read.
    """
    path = Path(asked)
    if os.path.lexists(path) or not glob.has_magic(asked):
        if not os.path.exists(path):
            raise DataError(f"{path}: {_absence(path)}")
        if os.path.isdir(path):
            return _folder(path, misfit, kinds, log)
        if (unfit := misfit(path.name)) is not None:
            raise DataError(f"{path}: {unfit.reason}")
        if (unusual := _no_file(path.stat())) is not None:
            raise DataError(f"{path}: {unusual}")
        return [path]
    names = sorted(glob.glob(asked, recursive=True))
    files = [file for name in names if not os.path.isdir(name) for file in _file(Path(name), misfit, log)]
    if not files and not log.bad:
        raise DataError(f"{asked}: no {kinds} file with text in it matches{_unread(log)}")
    return files


def _folder(folder: Path, misfit: Misfit, kinds: str, log: RecordLog) -> list[Path]:
    before = log.bad
    prepared = os.path.isfile(folder / PREPARED) and os.path.isdir(folder / TEXT)
    if prepared:
        check_parts(folder)
    files = list(_below(folder / TEXT if prepared else folder, misfit, log, frozenset()))
    if not files and log.bad == before:
        raise DataError(f"{folder}: the folder holds no {kinds} file with text in it{_unread(log)}")
    return files


def _unread(log: RecordLog) -> str:
    return f"; {unread_files(log.unread)}" if log.unread else ""


def _below(folder: Path, misfit: Misfit, log: RecordLog, above: frozenset[str]) -> Iterator[Path]:
    above |= {os.path.realpath(folder)}
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        log.reject_file(folder, f"cannot be listed: {error.strerror}")
        return
    for name in names:
        path = folder / name
        if is_hidden(name):
            log.leave_out(path, "hidden")
        elif not os.path.isdir(path):
            yield from _file(path, misfit, log)
        elif os.path.realpath(path) in above:
            log.leave_out(path, "a link back to a folder above it")
        else:
            yield from _below(path, misfit, log, above)


def is_hidden(name: str) -> bool:
    """Is it a file or folder that a system keeps for itself?"""
    return name.startswith(".") or name == "__MACOSX"


def _file(path: Path, misfit: Misfit, log: RecordLog) -> Iterator[Path]:
    if (unfit := misfit(path.name)) is not None:
        log.leave_out(path, unfit.reason, unfit.kind)
        return
    try:
        about = path.stat()
    except OSError:
        log.reject_file(path, _absence(path))
        return
    if (unusual := _no_file(about)) is not None:
        log.leave_out(path, unusual)
    elif not about.st_size and path.suffix.lower() in _EMPTY_IS_WHOLE:
        log.leave_out(path, "empty")
    else:
        yield path


def _no_file(about: os.stat_result) -> str | None:
    """Why something that has a name is no file to read; None: it is one."""
    if stat.S_ISREG(about.st_mode):
        return None
    if stat.S_ISFIFO(about.st_mode):
        return "is a pipe, which can be read once only, and text is read several times: give - and pipe it in"
    return "is no file but a device or socket; give a file"


def _absence(path: Path) -> str:
    try:
        path.stat()
    except FileNotFoundError:
        return f"a broken link to {path.readlink()}" if path.is_symlink() else "no such file or folder"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return "no such file or folder"
