"""From what was asked for to the files to read: folders, patterns, links, and what is left out and why."""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pretune.data.sources.record_log import RecordLog
from pretune.data.sources.text_shards import MANIFEST, TEXT_FOLDER, check_marker_name, check_shards
from pretune.data.sources.unsupported_files import describe_unsupported
from pretune.errors import DataError

_MAY_BE_EMPTY = (".txt", ".md", ".jsonl", ".ndjson", ".csv", ".tsv")
"""Kinds of which an empty file is not damaged: it just holds nothing."""


@dataclass(frozen=True, slots=True)
class SkipReason:
    """Why a file of some name is left out."""

    reason: str
    suffix: str | None
    """Its suffix, where files of this kind are never read."""


FileFilter = Callable[[str], SkipReason | None]
"""What is wrong with a file of some name; None: it is to be read."""


# ``os.path`` says no where ``Path`` raises: below a folder that may not be entered.


def find_files(pattern: str, file_filter: FileFilter, suffixes: str, log: RecordLog) -> list[Path]:
    """The files that a path or pattern means, those of a folder sorted.

    Raises:
        DataError: it leads nowhere, the file that it names is of another kind, or the folder holds
            nothing to read.
    """
    path = Path(pattern)
    if os.path.lexists(path) or not glob.has_magic(pattern):
        if not os.path.exists(path):
            raise DataError(f"{path}: {_missing_reason(path)}")
        if os.path.isdir(path):
            return _find_in_folder(path, file_filter, suffixes, log)
        if (unfit := file_filter(path.name)) is not None:
            raise DataError(f"{path}: {unfit.reason}")
        if (unusual := _special_file_reason(path.stat())) is not None:
            raise DataError(f"{path}: {unusual}")
        return [path]
    names = sorted(glob.glob(pattern, recursive=True))
    files = [
        file
        for name in names
        if not os.path.isdir(name)
        for file in _check_file(Path(name), file_filter, log)
    ]
    if not files and not log.num_bad:
        raise DataError(f"{pattern}: no {suffixes} file with text in it matches{_unsupported_note(log)}")
    return files


def _find_in_folder(folder: Path, file_filter: FileFilter, suffixes: str, log: RecordLog) -> list[Path]:
    before = log.num_bad
    check_marker_name(folder)
    prepared = os.path.isfile(folder / MANIFEST) and os.path.isdir(folder / TEXT_FOLDER)
    if prepared:
        check_shards(folder)
    files = list(_walk(folder / TEXT_FOLDER if prepared else folder, file_filter, log, frozenset()))
    if not files and log.num_bad == before:
        raise DataError(
            f"{folder}: the folder holds no {suffixes} file with text in it{_unsupported_note(log)}"
        )
    return files


def _unsupported_note(log: RecordLog) -> str:
    return f"; {describe_unsupported(log.unsupported)}" if log.unsupported else ""


def _walk(folder: Path, file_filter: FileFilter, log: RecordLog, ancestors: frozenset[str]) -> Iterator[Path]:
    ancestors |= {os.path.realpath(folder)}
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        log.reject_file(folder, f"cannot be listed: {error.strerror}")
        return
    for name in names:
        path = folder / name
        if is_hidden(name):
            log.skip_file(path, "hidden")
        elif not os.path.isdir(path):
            yield from _check_file(path, file_filter, log)
        elif os.path.realpath(path) in ancestors:
            log.skip_file(path, "a link back to a folder above it")
        else:
            yield from _walk(path, file_filter, log, ancestors)


def is_hidden(name: str) -> bool:
    """Is it a file or folder that a system keeps for itself?"""
    return name.startswith(".") or name == "__MACOSX"


def _check_file(path: Path, file_filter: FileFilter, log: RecordLog) -> Iterator[Path]:
    if (unfit := file_filter(path.name)) is not None:
        log.skip_file(path, unfit.reason, unfit.suffix)
        return
    try:
        about = path.stat()
    except OSError:
        log.reject_file(path, _missing_reason(path))
        return
    if (unusual := _special_file_reason(about)) is not None:
        log.skip_file(path, unusual)
    elif not about.st_size and path.suffix.lower() in _MAY_BE_EMPTY:
        log.skip_file(path, "empty")
    else:
        yield path


def _special_file_reason(status: os.stat_result) -> str | None:
    """Why something that has a name is no file to read; None: it is one."""
    if stat.S_ISREG(status.st_mode):
        return None
    if stat.S_ISFIFO(status.st_mode):
        return "is a pipe, which can be read once only, and text is read several times: give - and pipe it in"
    return "is no file but a device or socket; give a file"


def _missing_reason(path: Path) -> str:
    try:
        path.stat()
    except FileNotFoundError:
        return f"a broken link to {path.readlink()}" if path.is_symlink() else "no such file or folder"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return "no such file or folder"
