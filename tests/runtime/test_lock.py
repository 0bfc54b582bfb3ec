"""One process at a time writes an output, and the other is told who."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import pretune
from pretune.errors import CheckpointError, ConfigError
from pretune.runtime import lock

HOLDS = (
    "import sys, time\n"
    "from pathlib import Path\n"
    "from pretune.runtime import lock\n"
    "path = Path(sys.argv[1])\n"
    "with lock.acquire(path, path):\n"
    "    print('held', flush=True)\n"
    "    time.sleep(60)\n"
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return lock.lock_path(tmp_path / "out")


@pytest.fixture
def other(path: Path) -> subprocess.Popen[str]:
    """A process that holds the lock."""
    environment = {**os.environ, "PYTHONPATH": str(Path(pretune.__file__).parents[1])}
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(path)], env=environment, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_the_second_is_told_who_and_since_when(other: subprocess.Popen[str], path: Path) -> None:
    try:
        before = path.read_bytes(), path.stat().st_mtime_ns
        since = json.loads(before[0])["since"]
        said = rf"process {other.pid} on {re.escape(os.uname().nodename)}, since {re.escape(since)}\).*--out"
        with pytest.raises(ConfigError, match=said), lock.acquire(path, path):
            pass
        assert (path.read_bytes(), path.stat().st_mtime_ns) == before
        assert lock.is_locked(path)
    finally:
        other.kill()
        other.wait()


def test_the_lock_of_a_killed_process_is_taken_over(other: subprocess.Popen[str], path: Path) -> None:
    other.send_signal(signal.SIGKILL)
    other.wait()
    assert path.exists()
    assert not lock.is_locked(path)
    with lock.acquire(path, path):
        assert json.loads(path.read_text())["pid"] == os.getpid()
    assert not path.exists()


def test_without_locks_of_the_system_the_file_decides(
    tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(lock.fcntl, "flock", refused)
    here = lock.LockHolder.current_process()
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    path.write_text(json.dumps({"pid": os.getpid(), "host": here.host, "since": here.since}))
    with pytest.raises(ConfigError, match=f"process {os.getpid()}"), lock.acquire(path, path):
        pass
    path.write_text(json.dumps({"pid": dead.pid, "host": here.host, "since": here.since}))
    with lock.acquire(path, path):
        pass
    path.write_text(json.dumps({"pid": dead.pid, "host": "elsewhere", "since": here.since}))
    with pytest.raises(ConfigError, match="on elsewhere"), lock.acquire(path, path):
        pass


def test_where_nothing_can_be_written_the_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    out = tmp_path / "file" / "out"
    with (
        pytest.raises(CheckpointError, match=r"file/out: cannot be made"),
        lock.acquire(lock.lock_path(out), out),
    ):
        pass
    assert (tmp_path / "file").read_text() == "mine"
