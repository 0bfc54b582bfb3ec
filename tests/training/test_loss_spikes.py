"""Steps whose loss or gradient is unusable: they change nothing, and the run gets past them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import small
import torch

from pretune.errors import Interrupted, TrainingError
from pretune.runtime import atomic_files
from pretune.runtime.run_folder import Run
from pretune.training import adjustments
from pretune.training.adjustments import describe_changes
from pretune.training.loss_spikes import MAX_LOSSES, MIN_LOSSES, SpikeGuard, failed_rollbacks
from pretune.training.train_state import TrainState

SETTINGS: dict[str, Any] = {
    "save_every": 4,
    "evaluations": 2,
    "ema": 0.9,
    "activation_stats_every": 1,
    "steps": 16,
}


def gradient_of_nan(made: Any) -> None:
    next(p for p in made.network.parameters() if p.grad is not None).grad[0] = math.nan


FAULTS: dict[str, Callable[[Any, float], float]] = {
    "gradient": lambda made, loss: [gradient_of_nan(made), loss][1],  # type: ignore[list-item, func-returns-value]
    "nan": lambda made, loss: math.nan,
    "inf": lambda made, loss: math.inf,
    "hundredfold": lambda made, loss: 150 * loss,
}


def broken(folder: Path, bad: set[int], kind: str = "nan", times: int | None = None, **settings: Any) -> Any:
    """A run whose ``bad`` steps go wrong, each as often as they are computed, or ``times`` times."""
    made = small.trainer(folder, "masked_lm", family="bert", **(SETTINGS | settings))
    add, left = made.gradients.accumulate, dict.fromkeys(bad, times)

    def adding(batches: Any, step: int, stop: Any) -> Any:
        loss = add(batches, step, stop)
        if step not in left or left[step] == 0 or loss is None:
            return loss
        left[step] = None if left[step] is None else left[step] - 1
        return FAULTS[kind](made, loss)

    made.gradients.accumulate = adding
    return made


def log_of(folder: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


def skipped(folder: Path) -> list[int]:
    return [row["step"] for row in log_of(folder) if row["type"] == "skipped"]


def everything(made: Any) -> dict[str, torch.Tensor]:
    """Weights, optimiser and average."""
    average = {f"average/{n}": p.clone() for n, p in made.ema._average.items()}
    return small.state(made) | average


def assert_same(expected: dict[str, torch.Tensor], found: dict[str, torch.Tensor]) -> None:
    assert expected.keys() == found.keys()
    assert [name for name in expected if not torch.equal(expected[name], found[name])] == []


@pytest.mark.parametrize("kind", FAULTS)
def test_a_bad_step_changes_nothing(kind: str, tmp_path: Path) -> None:
    """Weights, optimiser, average and health before and after it, bit for bit; what was found is logged."""
    made = broken(tmp_path / "run", {9}, kind)
    seen = {}
    step = made._train_step

    def watched(*arguments: Any) -> bool:
        number = made.state.step
        seen[number] = everything(made)
        return bool(step(*arguments))

    made._train_step = watched
    made.train()
    assert_same(seen[9], seen[10])
    assert [name for name in seen[9] if not torch.equal(seen[8][name], seen[9][name])]
    [row] = [row for row in log_of(tmp_path / "run") if row["type"] == "skipped"]
    assert row["step"] == 10
    raw = row["gradient_norm"] if kind == "gradient" else row["loss"]
    assert raw == {"gradient": "nan", "nan": "nan", "inf": "inf"}.get(kind, raw)
    assert isinstance(raw, str) or raw > 100
    assert 10 not in [
        row["step"] for row in log_of(tmp_path / "run") if row["type"] in ("step", "activation_stats")
    ]
    [change] = made.run.read_plan()["changes"]
    assert (change["step"], change["skip"]) == (9, [9])


def test_three_bad_steps_go_back_and_are_left_out(tmp_path: Path) -> None:
    """The result is that of the run that never made the steps from the checkpoint on."""
    made = broken(tmp_path / "run", {9, 10, 11})
    outcome = made.train()
    change = made.run.read_plan()["changes"][-1]
    assert (change["step"], change["skip"], change["rolled_back_at"]) == (8, [8, 9, 10, 11], 12)
    assert skipped(tmp_path / "run") == [9, 10, 11, 12]
    rows = [row for row in log_of(tmp_path / "run") if row["type"] == "skipped"]
    assert [row.get("loss") for row in rows] == [None, "nan", "nan", "nan"], (
        "raw, though the log was cut back"
    )
    assert all(row["rolled_back"] for row in rows)
    assert outcome.steps == 16

    # The same by other means: from the checkpoint at step 8 straight to step 12.
    other = small.trainer(tmp_path / "other", "masked_lm", family="bert", **SETTINGS)
    step = other._train_step

    def jumping(*arguments: Any) -> bool:
        if other.state.step == 8:
            other.state.step = 12
            other._save(arguments[0])  # due here in the run, too
        return bool(step(*arguments))

    other._train_step = jumping
    other.train()
    assert_same(everything(made), everything(other))
    assert "left out" in describe_changes(made.run.read_plan()["changes"])[-1]


def test_a_repeat_leaves_out_the_same_steps(tmp_path: Path) -> None:
    """Though the fault does not show again."""
    made = broken(tmp_path / "run", {2, 9, 10, 11}, times=1)
    outcome = made.train()
    repeat = small.trainer(tmp_path / "repeat", "masked_lm", family="bert", **SETTINGS)
    adjustments.replay_plan(repeat.run, made.run.folder / "plan.json")
    assert repeat.train().best_scores == outcome.best_scores
    assert_same(everything(made), everything(repeat))
    assert log_of(tmp_path / "run") == log_of(tmp_path / "repeat")


@pytest.mark.parametrize("at", [3, 10, 11, 13])
def test_a_resume_leaves_out_the_same_steps(at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed before, among or after the bad steps, and gone on with where no fault shows any more."""

    class Killed(BaseException):
        pass

    whole = broken(tmp_path / "whole", {2, 9, 10, 11})
    whole.train()
    killed = broken(tmp_path / "run", {2, 9, 10, 11})
    step = killed._train_step

    def dying(*arguments: Any) -> bool:
        if killed.state.step == at:
            raise Killed
        return bool(step(*arguments))

    killed._train_step = dying
    with pytest.raises(Killed):
        killed.train()
    resumed = broken(tmp_path / "run", {9, 10, 11})
    resumed.train()
    assert_same(everything(whole), everything(resumed))
    assert log_of(tmp_path / "whole") == log_of(tmp_path / "run")


def test_the_usual_loss_outlives_a_stop(tmp_path: Path) -> None:
    """A hundredfold loss just after a resume is told from a usual one."""
    stopped = broken(tmp_path / "run", {9}, "hundredfold")
    step = stopped._train_step

    def stopping(log: Any, stop: Any, work: Any) -> bool:
        stop.should_stop = stopped.state.step == 9
        return bool(step(log, stop, work))

    stopped._train_step = stopping
    with pytest.raises(Interrupted):
        stopped.train()
    resumed = broken(tmp_path / "run", {9}, "hundredfold")
    resumed.train()
    assert skipped(tmp_path / "run") == [10]


def test_bad_steps_without_end_are_a_clear_error(tmp_path: Path) -> None:
    made = broken(tmp_path / "run", set(range(9, 99)), steps=40)
    with pytest.raises(TrainingError, match=r"lower training\.optimizer\.learning_rate"):
        made.train()
    ways = [change for change in made.run.read_plan()["changes"] if "rolled_back_at" in change]
    assert len(ways) == 3
    assert [change["step"] for change in ways] == [8, 4, 4], (
        "a checkpoint that did not help is not tried again"
    )
    assert atomic_files.find_newest_valid(made.run.checkpoints_path, print) is not None
    with pytest.raises(TrainingError, match="times in a row"):  # the same command says the same again
        broken(tmp_path / "run", set(range(9, 99)), steps=40).train()


def test_without_a_checkpoint_there_is_no_way_back(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no good checkpoint"):
        broken(tmp_path / "run", {1, 2, 3}).train()


def test_a_damaged_or_doubtful_checkpoint_is_not_gone_back_to(tmp_path: Path) -> None:
    """Nor one that was saved among the bad steps."""
    made = broken(tmp_path / "run", {11, 12, 13}, max_checkpoints=4)
    step = made._train_step

    def damaging(*arguments: Any) -> bool:
        if made.state.step == 13:
            weights = atomic_files.checkpoint_path(made.run.checkpoints_path, 8) / "model.safetensors"
            weights.write_bytes(weights.read_bytes()[:-1])
        return bool(step(*arguments))

    made._train_step = damaging
    made.train()
    assert made.run.read_plan()["changes"][-1]["step"] == 4
    assert skipped(tmp_path / "run") == list(range(5, 15))


def test_what_is_bad() -> None:
    judge, state = SpikeGuard(Run(Path("nowhere"))), TrainState()
    assert not judge.is_bad_step(state, 1e9, 1.0), "nothing is known yet"
    for number in range(MIN_LOSSES):
        judge.accept_loss(state, 2.0 + number)
    assert judge.is_bad_step(state, 400.0, 1.0)
    assert not judge.is_bad_step(state, 300.0, 1e9)
    assert judge.is_bad_step(state, 2.0, math.inf)
    for _ in range(MAX_LOSSES + 5):
        judge.accept_loss(state, 1e-6)
    assert len(state.losses) == MAX_LOSSES
    assert not judge.is_bad_step(state, 4.0, 1.0), "one hard record among many that are known by heart"
    assert judge.is_bad_step(state, 6.0, 1.0)


def test_progress_is_counted_anew() -> None:
    ways = [{"step": 8, "skip": [], "rolled_back_at": at} for at in (12, 17, 60)]
    plan = {"changes": [{"step": 3, "values": {}}, *ways]}
    assert len(failed_rollbacks(plan, 61)) == 1
    assert len(failed_rollbacks(plan, 70)) == 0
    assert len(failed_rollbacks({"changes": ways[:2]}, 18)) == 2
