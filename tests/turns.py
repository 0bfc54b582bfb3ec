"""Tests marked ``alone`` run while other workers wait: they measure time, or start processes of their own."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Generator
from pathlib import Path

import pytest

if sys.platform != "win32":
    import fcntl

WORKER = "PYTEST_XDIST_WORKER"
"""pytest-xdist sets it in each of its workers."""
FOLDER = "PRETUNE_TESTS_TURNS"
"""Where the locks lie; workers inherit it."""
if WORKER in os.environ:  # here, for torch reads it when it is imported: a worker a core, a thread a worker
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_configure(config: pytest.Config) -> None:
    """Without workers, or without locks, tests run one after the other as they are."""
    if sys.platform == "win32":
        return
    if WORKER in os.environ:
        config.pluginmanager.register(Turns(Path(os.environ[FOLDER])))
    else:
        folder = tempfile.TemporaryDirectory(prefix="pretune-turns-")
        os.environ[FOLDER] = folder.name
        config.add_cleanup(folder.cleanup)


class Turns:
    """A room for many, or for one alone; who waits at its door holds the gate, so that nobody overtakes."""

    def __init__(self, folder: Path) -> None:
        self.gate, self.room = (folder / "gate").open("w"), (folder / "room").open("w")
        self.within = False

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Alone first: they stay together in one worker, which makes what they share once."""
        items.sort(key=lambda item: not is_alone(item))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(
        self, item: pytest.Item, nextitem: pytest.Item | None
    ) -> Generator[None, object, object]:
        """Enter, fixtures included; of tests alone that follow each other, the last one leaves."""
        if not self.within:
            fcntl.flock(self.gate, fcntl.LOCK_EX)
            fcntl.flock(self.room, fcntl.LOCK_EX if is_alone(item) else fcntl.LOCK_SH)
            fcntl.flock(self.gate, fcntl.LOCK_UN)
        try:
            return (yield)
        finally:
            self.within = is_alone(item) and is_alone(nextitem)
            if not self.within:
                fcntl.flock(self.room, fcntl.LOCK_UN)


def is_alone(item: pytest.Item | None) -> bool:
    return item is not None and item.get_closest_marker("alone") is not None
