"""An objective that changes over a run: what it is told, also where the length was corrected and resumed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import small
from test_resume import Stopping, assert_same, log_of

from pretune.errors import Interrupted
from pretune.runtime import device
from pretune.training.callbacks import adjustments
from pretune.training.dataloader import DataLoader, MicroBatch
from pretune.training.duration import parse_duration

CORRECTED = [{"step": 4, "steps": [12, 9]}, {"step": 7, "steps": [9, 11]}]
"""How a budget in minutes was corrected: 12 steps became 9, and those 11."""
SHARES = [0, 1 / 12, 1 / 6, 1 / 4, 1 / 3, 7 / 15, 3 / 5, 7 / 11, 8 / 11, 9 / 11, 10 / 11]
"""By hand: from step 4 on two thirds of the run are spread over 5 steps, and from 7 on
the run is where one of 11 steps would be."""


def made(folder: Path) -> Any:
    """A masked run whose rate falls, of a budget in minutes with its corrections."""
    run = small.trainer(
        folder, "masked_lm", family="bert", options={"mask_rate": 0.6, "final_mask_rate": 0.1}
    )
    run.budget.duration = parse_duration("10 min")
    if not run.run.read_plan():
        plan = {
            "steps": 12, "machine": device.describe(), "data": run.dataloader.fingerprint,
            "changes": CORRECTED,
        }  # fmt: skip
        path = folder.with_suffix(".json")
        path.write_text(json.dumps(plan))
        adjustments.replay_plan(run.run, path)
    return run


class Seen:
    """What the batches of each step are told and how many tokens they hide."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.progress: dict[int, float] = {}
        self.hidden: dict[int, int] = {}
        call = DataLoader.__call__

        def noted(batches: DataLoader, step: int, progress: float = 0.0) -> list[MicroBatch]:
            found = call(batches, step, progress)
            assert self.progress.setdefault(step, progress) == progress, "a step is always told the same"
            self.hidden[step] = sum(micro_batch.batch.counts["masked_lm"] for micro_batch in found)
            return found

        monkeypatch.setattr(DataLoader, "__call__", noted)


def test_a_rate_that_falls_resumes_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = Seen(monkeypatch)
    whole = made(tmp_path / "whole")
    assert whole.train().steps == 11
    assert list(seen.progress.values()) == pytest.approx(SHARES)
    assert seen.hidden[0] > 3 * seen.hidden[10]  # 60 % of some hundred tokens, and 15 %
    for passes in (5, 17):
        folder = tmp_path / f"stopped-{passes}"
        with monkeypatch.context() as patch:
            Stopping(patch, passes)
            with pytest.raises(Interrupted):
                made(folder).train()
        resumed = made(folder)
        resumed.train()
        assert_same(small.state(whole), small.state(resumed))
        assert log_of(folder) == log_of(tmp_path / "whole")
