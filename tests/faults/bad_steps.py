"""Gradients that are no numbers and losses out of all measure, once or several times in a row."""

from __future__ import annotations

import json
import math
import random
import shutil
from pathlib import Path
from typing import Any

import small
import torch
from harness import Row, Setting, check

from pretune.training import adjustments

STEPS = 16
SETTINGS: dict[str, Any] = {
    "steps": STEPS,
    "save_every": 4,
    "evaluations": 2,
    "ema": 0.9,
    "max_checkpoints": 3,
}


def bad_steps(setting: Setting, tries: int) -> list[Row]:
    """A third each of NaN gradients, infinite and hundredfold losses; every second three or four in a row."""
    row = Row(
        "NaN gradient, infinite or 100-fold loss",
        "nothing changed; logged; 3 in a row go back; resume and repeat alike",
    )
    draw, folder = random.Random(5), setting.folder / "bad"
    for number in range(tries):
        first, count = draw.randint(5, STEPS - 5), (1, 3, 2, 4)[number % 4]
        bad, kind = set(range(first, first + count)), ("gradient", "inf", "hundredfold")[number % 3]
        with row.trying(f"{kind} at {sorted(bad)}"):
            _gets_past(folder, bad, kind, stop=draw.randint(1, STEPS - 1))
        shutil.rmtree(folder, ignore_errors=True)
    return [row]


def broken(folder: Path, bad: set[int], kind: str) -> Any:
    made = small.trainer(folder, "masked_lm", family="bert", **SETTINGS)
    add = made.gradients.accumulate

    def adding(batches: Any, step: int, stop: Any) -> Any:
        loss = add(batches, step, stop)
        if step not in bad:
            return loss
        if kind == "gradient":
            next(p for p in made.network.parameters() if p.grad is not None).grad[0] = math.nan
        return {"gradient": loss, "inf": math.inf, "hundredfold": 120 * loss}[kind]

    made.gradients.accumulate = adding
    return made


class _Dies(BaseException):
    pass


def _gets_past(folder: Path, bad: set[int], kind: str, stop: int) -> None:
    whole = broken(folder / "whole", bad, kind)
    step = whole._train_step

    def unchanged(*arguments: Any) -> bool:
        number, state = whole.state.step, _everything(whole)
        went = bool(step(*arguments))
        if number in bad and whole.state.step == number + 1:
            check(_same(state, _everything(whole)), f"step {number} changed something")
        return went

    whole._train_step = unchanged
    whole.train()
    rows = _log(folder / "whole")
    left = {row["step"] - 1 for row in rows if row["type"] == "skipped"}
    first = min(bad)
    back = len(bad) >= 3
    expected = bad | (set(range(first - first % 4, first)) if back else set())
    check(left == expected, f"left out {sorted(left)}, expected {sorted(expected)}")
    check(any("rolled_back_at" in c for c in whole.run.read_plan()["changes"]) == back, whole.run.read_plan())

    killed = broken(folder / "killed", bad, kind)
    inner = killed._train_step

    def dying(*arguments: Any) -> bool:
        if killed.state.step == stop:
            raise _Dies
        return bool(inner(*arguments))

    killed._train_step = dying
    try:
        killed.train()
    except _Dies:
        killed = broken(folder / "killed", bad, kind)
        killed.train()
    check(_same(_everything(whole), _everything(killed)), f"stopped at {stop}: other weights at the end")
    check(_log(folder / "killed") == rows, f"stopped at {stop}: another log at the end")

    repeat = small.trainer(folder / "repeat", "masked_lm", family="bert", **SETTINGS)
    adjustments.replay_plan(repeat.run, folder / "whole" / "plan.json")
    repeat.train()
    check(_same(_everything(whole), _everything(repeat)), "the repeat has other weights")
    check(_log(folder / "repeat") == rows, "the repeat has another log")


def _everything(made: Any) -> dict[str, torch.Tensor]:
    averages = {f"average/{name}": value.clone() for name, value in made.ema._average.items()}
    state: dict[str, torch.Tensor] = small.state(made)
    return state | averages


def _same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def _log(folder: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]
