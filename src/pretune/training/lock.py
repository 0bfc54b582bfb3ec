"""One process trains a run at a time; whether one does can be asked."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pretune.errors import ConfigError

if sys.platform != "win32":
    import fcntl

NAME = "lock"


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """The run is this process's own within; the system lets go of it when the process ends, however it ends.

    Raises:
        ConfigError: another process trains it.
    """
    with (folder / NAME).open("w") as file:
        if not _locked(file.fileno(), wanted=True):
            raise ConfigError(
                f"{folder}: another process trains this run; wait for it, or give another folder with --out"
            )
        yield


def is_running(folder: Path) -> bool:
    """Whether a process trains the run in ``folder`` now."""
    try:
        with (folder / NAME).open("r") as file:
            return not _locked(file.fileno(), wanted=False)
    except FileNotFoundError:
        return False


def _locked(number: int, *, wanted: bool) -> bool:
    """Whether the lock could be had; a file system that knows no locks never refuses, nor does Windows."""
    if sys.platform == "win32":
        return True
    try:
        fcntl.flock(number, (fcntl.LOCK_EX if wanted else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True
