"""One process trains a run at a time; whether one does can be asked."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from pretune.errors import ConfigError
from pretune.runtime import lock

NAME = "lock"


def held(folder: Path) -> AbstractContextManager[None]:
    """The run in ``folder`` is this process's own within, from before its first byte to its last.

    Raises:
        ConfigError: another process works on it, or nothing can be written there.
    """
    return lock.held(folder / NAME, folder, ConfigError)


def is_running(folder: Path) -> bool:
    """Whether a process works on the run in ``folder`` now."""
    return lock.is_held(folder / NAME)
