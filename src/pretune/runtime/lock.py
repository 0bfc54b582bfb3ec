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

_TRIES = 100
"""Times that the file may be gone between its opening and its locking, since whoever had it let go."""


@dataclass(frozen=True, slots=True)
class Holder:
    """The process that writes."""

    pid: int
    host: str
    since: str
    """When it began, by its own clock."""

    @classmethod
    def this(cls) -> Holder:
        """The process that asks, from now on."""
        return cls(os.getpid(), socket.gethostname(), datetime.now().astimezone().isoformat(" ", "seconds"))

    @property
    def lives(self) -> bool:
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


def beside(output: Path) -> Path:
    """The lock's file of an output that gets its name only when it is whole."""
    output = output if output.name not in ("", "..") else output.resolve()
    return output.with_name(f".{output.name}.lock")


@contextmanager
def held(path: Path, output: Path, unwritable: type[PretuneError] = CheckpointError) -> Iterator[None]:
    """Within, this process alone writes ``output``; ``path`` is the lock's file, whose folder is made.

    Raises:
        ConfigError: another process writes it; says which.
        PretuneError: nothing can be written there; of the kind ``unwritable``.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        number = _acquired(path)
    except OSError as error:
        raise unwritable(
            f"{output}: cannot be made: {error.strerror}; give another place with --out"
        ) from None
    if number is None:
        raise ConfigError(f"{output}: {told(path)}; wait for it to end, or give another place with --out")
    try:
        os.ftruncate(number, 0)
        os.write(number, json.dumps(asdict(Holder.this())).encode())
        yield
    finally:
        # Gone before it is let go of: whoever opened it meanwhile sees that it is no longer the lock.
        with suppress(OSError):
            if os.path.samestat(os.fstat(number), path.stat()):
                path.unlink()
        os.close(number)


def is_held(path: Path) -> bool:
    """Whether a process holds the lock now."""
    try:
        number = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        return not _locked(number, path, shared=True)
    finally:
        os.close(number)


def told(path: Path) -> str:
    """Who holds the lock, in words."""
    holder = _read(path)
    if holder is None:
        return "another process writes it"
    return f"another process writes it (process {holder.pid} on {holder.host}, since {holder.since})"


def _acquired(path: Path) -> int | None:
    """The open file of the lock, which is now ours; None: another process has it."""
    for _ in range(_TRIES):
        number = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        if not _locked(number, path, shared=False):
            os.close(number)
            return None
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(number), path.stat()):
                return number
        os.close(number)  # its holder let go of it, and took the file away
    return None


def _locked(number: int, path: Path, *, shared: bool) -> bool:
    """Whether the lock could be had."""
    if sys.platform == "win32":
        return True
    try:
        fcntl.flock(number, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        holder = _read(path)
        return holder is None or not holder.lives
    return True


def _read(path: Path) -> Holder | None:
    """What the file says; None where it says nothing (yet)."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return Holder(int(found["pid"]), str(found["host"])[:100], str(found["since"])[:40])
    except (OSError, ValueError, KeyError, TypeError):
        return None
