"""A test alone is so: no worker runs another meanwhile, and what waits for it is not overtaken."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests import turns

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="without locks there are no turns")


class Item:
    """A test, as far as turns look at it."""

    def __init__(self, *markers: str) -> None:
        self.markers = markers

    def get_closest_marker(self, name: str) -> object:
        return name if name in self.markers else None


ONE, ALONE = Item(), Item("slow", "alone")


class Worker:
    """What happens in a worker, as far as turns have a part in it."""

    def __init__(self, folder: Path, pool: ThreadPoolExecutor) -> None:
        self.turns, self.pool = turns.Turns(folder), pool
        self.running: Any = None

    def begins(self, item: Any, following: Any = None) -> Future[Any]:
        self.running = self.turns.pytest_runtest_protocol(item, following)
        return self.pool.submit(next, self.running)

    def ends(self) -> None:
        with pytest.raises(StopIteration):
            self.running.send(None)


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[list[Worker]]:
    with ThreadPoolExecutor(3) as pool:
        yield [Worker(tmp_path, pool) for _ in range(3)]


def waits(begun: Future[Any]) -> bool:
    time.sleep(0.1)
    return not begun.done()


def test_many_run_together_and_one_alone(workers: list[Worker]) -> None:
    first, second, third = workers
    first.begins(ONE).result(5)
    second.begins(ONE).result(5)
    alone = third.begins(ALONE)
    assert waits(alone)
    first.ends()
    overtaking = first.begins(ONE)
    assert waits(overtaking)  # what waited longer comes before it
    second.ends()
    alone.result(5)
    assert waits(overtaking)
    third.ends()
    overtaking.result(5)
    first.ends()


def test_what_follows_alone_needs_no_other_turn(workers: list[Worker]) -> None:
    first, second, _ = workers
    first.begins(ALONE, ALONE).result(5)
    other = second.begins(ONE)
    first.ends()
    assert waits(other)
    first.begins(ALONE, ONE).result(5)
    first.ends()
    other.result(5)
    first.begins(ONE).result(5)
    first.ends()
    second.ends()


def test_they_come_first(workers: list[Worker]) -> None:
    items: list[Any] = [ONE, ALONE, other := Item(), last := Item("alone")]
    workers[0].turns.pytest_collection_modifyitems(items)
    assert items == [ALONE, last, ONE, other]
