"""The table of trials and the search that fills it."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

trials = importlib.import_module("benchmarks.trials")

STAGES = (("rate", (1, 4)), ("batch", (4, 16)))
START = {"rate": 2, "batch": 8}


def searched(loss: Any, most: int) -> tuple[list[dict[str, int]], dict[str, int]]:
    losses: dict[str, float] = {}
    order: list[dict[str, int]] = []
    while True:
        config, best = trials.next_trial(START, STAGES, losses, most)
        if config is None:
            return order, best
        order.append(config)
        losses[trials.key(config)] = loss(config)


def test_each_stage_goes_on_from_the_best() -> None:
    order, best = searched(lambda c: abs(c["rate"] - 4) + abs(c["batch"] - 16), 12)
    assert best == {"rate": 4, "batch": 16}
    assert order == [
        START, {"rate": 1, "batch": 8}, {"rate": 4, "batch": 8}, {"rate": 4, "batch": 4},
        {"rate": 4, "batch": 16},
    ]  # fmt: skip


def test_no_more_trials_than_allowed() -> None:
    order, best = searched(lambda c: -c["rate"], 3)
    assert len(order) == 3
    assert best["rate"] == 4


def test_a_failed_trial_is_not_chosen() -> None:
    _, best = searched(lambda c: float("inf") if c["rate"] == 4 else -c["rate"], 12)
    assert best["rate"] == 2


def test_a_key_does_not_depend_on_the_order_of_a_config() -> None:
    assert trials.key({"a": 1, "b": 2}) == trials.key({"b": 2, "a": 1}) != trials.key({"a": 1, "b": 3})


def test_a_line_cut_off_is_done_again_and_breaks_no_other(tmp_path: Path) -> None:
    table = trials.Table(tmp_path / "trials.jsonl")
    table.add({"a": 1}, {"nats": 2.0})
    with table.path.open("a", encoding="utf-8") as out:
        out.write('{"key": "cut o')
    table.add({"a": 2}, {"nats": 3.0})
    assert {row["result"]["nats"] for row in table.results().values()} == {2.0, 3.0}


@pytest.mark.parametrize("start", range(5))
@pytest.mark.parametrize("aim", range(6))
def test_the_shortest_run_that_gets_there_from_wherever_the_search_begins(start: int, aim: int) -> None:
    made: list[int] = []

    def meets(at: int) -> bool:
        made.append(at)
        return at >= aim

    assert trials.shortest(5, start, meets) == (True, aim if aim < 5 else None)
    assert len(made) == len(set(made)) <= abs(start - aim) + 2, "no run twice, and none that tells nothing"


def test_a_search_that_may_not_go_on_has_found_nothing_yet() -> None:
    assert trials.shortest(5, 2, {2: True, 1: None}.get)[0] is False
    assert trials.shortest(5, 2, {2: False, 3: None}.get) == (False, None)
