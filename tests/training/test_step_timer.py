"""The plan of a run in minutes: what its time is spent on, and what is said where too little is left."""

from __future__ import annotations

from pathlib import Path

import pytest

from pretune.runtime.run_folder import Run
from pretune.training import budget, step_timer
from pretune.training.dataloader import DataLoaderLike
from pretune.training.duration import parse_duration
from pretune.training.settings import TrainingSettings


class FakeBatches:
    """What a plan asks of batches."""

    fingerprint, steps_per_epoch, tokens_per_step, cost_changes_at, micro_batch = (
        "data",
        20.0,
        1000.0,
        None,
        1,
    )


class FakeClock:
    """Seconds that pass as the test says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(step_timer.time, "monotonic", lambda: self.now)

    def spend(self, seconds: float) -> None:
        self.now += seconds


def planned(
    tmp_path: Path, clock: FakeClock, length: str, *, before: float = 0.0, step: float = 0.1,
    evaluations: int | None = None, tokens: float = 0.0,
) -> tuple[step_timer.TrainingBudget, dict[str, object], list[str]]:  # fmt: skip
    """A run planned with steps of so many seconds, evaluations of 2 s, checkpoints of 1 s, a test of 6 s."""
    run = Run.open(tmp_path / "run", TrainingSettings(batch_tokens=1000))
    found = step_timer.TrainingBudget(
        parse_duration(length), run, evaluations, clock.now - before, max_evaluations=10,
        evaluation_tokens=tokens,
        post_training_seconds=lambda evaluation: {"test": 3 * evaluation},
    )  # fmt: skip
    trial = step_timer.TimingTrial(lambda number, share: clock.spend(step), lambda: clock.spend(2.0),
                         lambda: clock.spend(1.0))  # fmt: skip
    said: list[str] = []
    batches: DataLoaderLike = FakeBatches()  # type: ignore[assignment]
    plan = found.load_or_create_plan(batches, 0, lambda: trial, said.append)
    return found, plan, said


def test_a_time_covers_preparation_evaluations_checkpoints_and_what_follows_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = FakeClock(monkeypatch)
    found, plan, said = planned(tmp_path, clock, "3min", before=60.0)
    ended = clock.now + plan["steps"] * 0.1 + plan["evaluations"] * 3.0 + 6.0
    assert 175 < ended - found.start_time <= 180
    assert plan["evaluations"] == 1  # 3 s of some 100
    assert plan["seconds_after_training"] == {"test": pytest.approx(6.0)}
    assert "preparation 6" in said[0]
    assert "1 evaluation with checkpoints 3 s" in said[0]
    assert "test 6 s" in said[0]
    assert len(said) == 1


def test_evaluations_that_were_asked_for_are_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found, plan, _ = planned(tmp_path, FakeClock(monkeypatch), "3min", evaluations=7)
    assert plan["evaluations"] == found.evaluations == 7
    assert len(found.step_budget.evaluation_steps(found.evaluations)) == 7


@pytest.mark.parametrize(
    ("length", "before", "step", "budget_said"),
    [("1min", 55.0, 0.1, "80s"), ("60s", 0.0, 10.0, "10min"), ("20 steps", 0, 1, "'50 steps'"),
     ("9k tokens", 0, 1, "'50000 tokens'"), ("2 epochs", 0, 1, "'3 epochs'")],
)  # fmt: skip
def test_too_few_steps_are_said_with_the_budget_that_would_do(
    length: str, before: float, step: float, budget_said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = FakeClock(monkeypatch)
    found, plan, said = planned(tmp_path, clock, length, before=before, step=step)
    assert plan["steps"] < budget.MIN_STEPS
    assert said[-1].endswith(f"--budget {budget_said} gives 50")
    enough = parse_duration(found.min_budget().strip("'"))
    if enough.unit != "seconds":
        assert enough.to_steps(20.0, 1000.0) >= budget.MIN_STEPS
    else:
        _, plan, _ = planned(tmp_path / "again", clock, str(enough), before=before, step=step)
        assert plan["steps"] >= budget.MIN_STEPS


def test_a_length_that_is_no_time_has_as_many_evaluations_on_any_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = FakeClock(monkeypatch)
    plans = [
        planned(tmp_path / str(k), clock, "1000 steps", step=step, tokens=9000.0)[1]["evaluations"]
        for k, step in enumerate((0.1, 10.0))
    ]
    # A million tokens of training; one evaluation costs as much as 4,500 of them.
    assert plans == [10, 10]
    assert planned(tmp_path / "short", clock, "100 steps", tokens=9000.0)[1]["evaluations"] == 1


def test_a_run_whose_time_is_used_up_ends_with_the_step_that_it_is_at(tmp_path: Path) -> None:
    found = budget.StepBudget.from_plan({"steps": 10, "changes": []})
    pace = budget.StepTimer(evaluation_seconds=1.0)
    pace.count_step()
    assert budget.correct_total_steps(found, 1, -5.0, pace, 1) == 1
    ended = budget.StepBudget.from_plan({"steps": 10, "changes": [{"step": 1, "steps": [10, 1]}]})
    assert ended.total_steps(1) == 1
    assert ended.evaluation_steps(1) == {1}
