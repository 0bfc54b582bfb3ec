"""One process at a time writes an output; who it is stands in the lock's file.

The lock is the system's (``flock``), so that of a process that has died, however it ended, is free. The file
beside or within the output says who holds it, and goes when the output is done. Where a file system knows no
such locks, what the file says decides.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from pretune.errors import CheckpointError, ConfigError, PretuneError

if sys.platform != "win32":
    import fcntl

_MAX_TRIES = 100
"""Times that the file may be gone between its opening and its locking, since whoever had it let go."""


@dataclass(frozen=True, slots=True)
class LockHolder:
    """The process that writes."""

    pid: int
    host: str
    since: str
    """When it began, by its own clock."""

    @classmethod
    def current_process(cls) -> LockHolder:
        """The process that asks, from now on."""
        return cls(os.getpid(), socket.gethostname(), datetime.now().astimezone().isoformat(" ", "seconds"))

    @property
    def is_alive(self) -> bool:
        """False where it is known to have ended."""
        if self.host != socket.gethostname():
            return True
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except OSError:
            return True
        return True


def lock_path(output: Path) -> Path:
    """The lock's file of an output that gets its name only when it is whole."""
    output = output if output.name not in ("", "..") else output.resolve()
    return output.with_name(f".{output.name}.lock")


@contextmanager
def acquire(path: Path, output: Path, error_class: type[PretuneError] = CheckpointError) -> Iterator[None]:
    """Within, this process alone writes ``output``; ``path`` is the lock's file, whose folder is made.

    Raises:
        ConfigError: another process writes it; says which.
        PretuneError: nothing can be written there; of the kind ``error_class``.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = _open_and_lock(path)
    except OSError as error:
        raise error_class(
            f"{output}: cannot be made: {error.strerror}; give another place with --out"
        ) from None
    if descriptor is None:
        raise ConfigError(
            f"{output}: {describe_holder(path)}; wait for it to end, or give another place with --out"
        )
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, json.dumps(asdict(LockHolder.current_process())).encode())
        yield
    finally:
        # Gone before it is let go of: whoever opened it meanwhile sees that it is no longer the lock.
        with suppress(OSError):
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                path.unlink()
        os.close(descriptor)


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock now."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        return not _try_lock(descriptor, path, shared=True)
    finally:
        os.close(descriptor)


def describe_holder(path: Path) -> str:
    """Who holds the lock, in words."""
    holder = _read_holder(path)
    if holder is None:
        return "another process writes it"
    return f"another process writes it (process {holder.pid} on {holder.host}, since {holder.since})"


def _open_and_lock(path: Path) -> int | None:
    """The open file of the lock, which is now ours; None: another process has it."""
    for _ in range(_MAX_TRIES):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        if not _try_lock(descriptor, path, shared=False):
            os.close(descriptor)
            return None
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        os.close(descriptor)  # its holder let go of it, and took the file away
    return None


def _try_lock(descriptor: int, path: Path, *, shared: bool) -> bool:
    """Whether the lock could be had."""
    if sys.platform == "win32":
        return True
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        holder = _read_holder(path)
        return holder is None or not holder.is_alive
    return True


def _read_holder(path: Path) -> LockHolder | None:
    """What the file says; None where it says nothing (yet)."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return LockHolder(int(values["pid"]), str(values["host"])[:100], str(values["since"])[:40])
    except (OSError, ValueError, KeyError, TypeError):
        return None
