"""Changes in mid-run: what may change, from which step, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pretune.errors import ConfigError
from pretune.runtime import run_lock
from pretune.runtime.run_folder import Run
from pretune.training import adjustments
from pretune.training.settings import TrainingSettings

SETTINGS = TrainingSettings(batch_tokens=10)


def begun(folder: Path) -> Run:
    run = Run.open(folder, SETTINGS)
    run.write_plan({"steps": 100, "machine": "here", "data": "these", "changes": []})
    return run


def test_each_holds_from_its_step_on(tmp_path: Path) -> None:
    run = begun(tmp_path / "run")
    adjustments.record_change(run, {"training.optimizer.learning_rate": 0.5}, 10)
    adjustments.record_change(run, {"training.clip": 0.25, "training.optimizer.learning_rate": 0.75}, 20)
    found = [adjustments.settings_at(SETTINGS, run.read_plan(), step) for step in (9, 10, 19, 20)]
    assert [s.optimizer.learning_rate for s in found] == [1e-3, 0.5, 0.5, 0.75]
    assert [s.clip for s in found] == [1.0, 1.0, 1.0, 0.25]
    lines = adjustments.describe_changes(run.read_plan()["changes"])
    assert lines[0] == "from step 10: training.optimizer.learning_rate = 0.5"


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"training.batch_tokens": 5}, "may not change"),
        ({"training.optimizer.learning_rat": 5}, "did you mean 'training.optimizer.learning_rate'"),
        ({"training.optimizer.learning_rate": -1}, "greater than 0"),
        ({"training.optimizer.learning_rate": "high"}, "number"),
        ({"training.optimizer.muon_learning_rate": 0.1}, "'adamw'"),
    ],
)
def test_what_cannot_be_is_refused(values: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        adjustments.apply_changes(SETTINGS, values)


def test_a_request_is_taken_up_once(tmp_path: Path) -> None:
    """A process that died after it recorded a request finds it again, and does not record it again."""
    run = begun(tmp_path / "run")
    adjustments.request_changes(run, {"training.clip": 0.5})
    [path] = adjustments.pending_requests(run.folder)
    content = path.read_text()
    done, refused = adjustments.accept_requests(run, SETTINGS, 7)
    assert done == ["training.clip = 0.5 from step 7 on"]
    assert not refused
    path.write_text(content)
    adjustments.accept_requests(run, SETTINGS, 9)
    assert [change["step"] for change in run.read_plan()["changes"]] == [7]
    assert not adjustments.pending_requests(run.folder)


def test_a_damaged_request_is_named_and_put_away(tmp_path: Path) -> None:
    run = begun(tmp_path / "run")
    (run.folder / adjustments.REQUESTS_FOLDER).mkdir()
    (run.folder / adjustments.REQUESTS_FOLDER / "1.json").write_text(
        '{"values": {"training.clip": -5}, "requested_at": 1}'
    )
    (run.folder / adjustments.REQUESTS_FOLDER / "2.json").write_text('{"values"')
    done, refused = adjustments.accept_requests(run, SETTINGS, 7)
    assert not done
    assert ["1.json" in refused[0], "2.json" in refused[1]] == [True, True]
    assert run.read_plan()["changes"] == []
    assert not adjustments.pending_requests(run.folder)


def test_a_repeat_begins_with_the_plan(tmp_path: Path) -> None:
    first, second = begun(tmp_path / "first"), Run.open(tmp_path / "second", SETTINGS)
    adjustments.record_change(first, {"training.clip": 0.5}, 30)
    plan = first.folder / "plan.json"
    adjustments.replay_plan(second, plan)
    adjustments.replay_plan(second, plan)  # the same command goes on
    assert second.read_plan()["changes"] == first.read_plan()["changes"]
    assert second.read_plan()["steps"] == 100
    with pytest.raises(ConfigError, match="--out"):
        adjustments.replay_plan(first, plan)
    (tmp_path / "no.json").write_text(json.dumps([1]))
    with pytest.raises(ConfigError, match=r"no\.json: no plan"):
        adjustments.replay_plan(second, tmp_path / "no.json")


def test_one_process_at_a_time(tmp_path: Path) -> None:
    assert not run_lock.is_running(tmp_path)
    with run_lock.lock_run(tmp_path):
        assert run_lock.is_running(tmp_path)
        with pytest.raises(ConfigError, match="another process"), run_lock.lock_run(tmp_path):
            pass
    assert not run_lock.is_running(tmp_path)
