"""One process trains a run at a time; whether one does can be asked."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from pretune.errors import ConfigError
from pretune.runtime import lock

LOCK_FILE = "lock"


def lock_run(folder: Path) -> AbstractContextManager[None]:
    """The run in ``folder`` is this process's own within, from before its first byte to its last.

    Raises:
        ConfigError: another process works on it, or nothing can be written there.
    """
    return lock.acquire(folder / LOCK_FILE, folder, ConfigError)


def is_running(folder: Path) -> bool:
    """Whether a process works on the run in ``folder`` now."""
    return lock.is_locked(folder / LOCK_FILE)
