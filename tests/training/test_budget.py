"""A length in minutes: corrections keep the deadline, the schedule and what a resume repeats."""

from __future__ import annotations

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pretune.training import budget
from pretune.training.schedules import lr_factor
from pretune.training.settings import ScheduleSettings


def course(steps: int, *changes: tuple[int, int]) -> budget.StepBudget:
    old, rows = steps, []
    for step, new in changes:
        rows.append({"step": step, "steps": [old, new]})
        old = new
    return budget.StepBudget.from_plan({"steps": steps, "changes": rows})


def test_without_a_change_every_step_is_its_own_place() -> None:
    plain = course(100)
    assert [plain.schedule_step(s) for s in range(101)] == list(range(101))
    assert plain.evaluation_steps(4) == {25, 50, 75, 100}
    assert plain.total_steps(99) == 100


def test_other_changes_of_a_run_are_no_corrections() -> None:
    plan = {"steps": 10, "changes": [{"step": 3, "training.optimizer.learning_rate": 1e-4}]}
    assert budget.StepBudget.from_plan(plan) == course(10)


def test_a_change_holds_from_its_step_on_and_not_before() -> None:
    changed = course(100, (20, 60))
    assert [changed.total_steps(s) for s in (0, 19, 20, 59)] == [100, 100, 60, 60]
    assert changed.progress(10) == pytest.approx(0.10)
    assert changed.progress(20) == pytest.approx(0.20)
    assert changed.progress(40) == pytest.approx(0.60)
    assert changed.progress(60) == 1.0
    assert changed.evaluation_steps(5) == {20, 30, 40, 50, 60}


@example(50, [(0.5, 1.5), (0.5, 1.5), (0.5, 2.0)], 8)
@given(
    st.integers(50, 400),
    st.lists(st.tuples(st.floats(0.05, 0.95), st.floats(0.5, 2.0)), max_size=4),
    st.integers(1, 12),
)
def test_the_schedule_follows_the_plan_and_every_evaluation_is_made(
    steps: int, wishes: list[tuple[float, float]], evaluations: int
) -> None:
    changes: list[tuple[int, int]] = []
    at, total = 0, steps
    for place, scale in wishes:
        step = at + max(1, int((total - at) * place))
        if step >= total:
            break
        at, total = step, step + max(1, int((total - step) * scale))
        changes.append((at, total))
    found = course(steps, *changes)
    settings = ScheduleSettings(warmup=0.0)
    rates = [
        lr_factor(found.schedule_step(s), found.total_steps(s), settings)
        for s in range(found.last_segment.end + 1)
    ]
    shares = [found.progress(s) for s in range(found.last_segment.end + 1)]
    assert shares[-1] == 1.0
    # The cosine's steepest slope is pi / 2 a unit of the schedule: no step moves faster than its share, and
    # none goes back, but where the plan grew: there the schedule is at the share of the longer run.
    totals = [steps, *(total for _, total in changes)]
    grown = {at: total for (at, total), old in zip(changes, totals, strict=False) if total > old}
    for s in range(found.last_segment.end):
        if s + 1 in grown:
            assert shares[s + 1] <= (s + 1) / grown[s + 1] + 1e-9
            continue
        assert shares[s] <= shares[s + 1]
        assert -1e-9 <= rates[s] - rates[s + 1] <= math.pi / 2 * (shares[s + 1] - shares[s]) + 1e-9
    due = found.evaluation_steps(evaluations)
    assert max(due) == found.last_segment.end
    assert len(due) <= evaluations + 1


@pytest.mark.parametrize("planned", [1, 2, 5])
def test_a_plan_that_grows_from_a_few_steps_trains_at_the_whole_schedule(planned: int) -> None:
    found, plain = course(planned, (1, 100)), course(100)
    settings = ScheduleSettings()

    def rates(of: budget.StepBudget) -> list[float]:
        return [lr_factor(of.schedule_step(s), of.total_steps(s), settings) for s in range(1, 100)]

    assert rates(found) == pytest.approx(rates(plain))


def test_evaluations_take_a_twentieth_of_the_time_at_most() -> None:
    assert budget.count_evaluations(10, 238.0, 5.5) == 2
    assert budget.count_evaluations(10, 10.0, 5.5) == 1
    assert budget.count_evaluations(10, 3600.0, 5.5) == 10


@pytest.mark.parametrize(("seconds", "said"), [(12, "20s"), (110, "110s"), (111, "2min"), (121, "3min")])
def test_a_budget_that_would_do_is_rounded_up(seconds: float, said: str) -> None:
    assert budget.format_budget(seconds) == said


class Clock:
    """Seconds that pass as the test says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(budget.time, "monotonic", lambda: self.now)


def run(clock: Clock, seconds: float, planned_step: float, pace: list[tuple[float, float]]) -> float:
    """Wall-clock at the end of a run whose steps take what ``step_timer`` says from which second on."""
    evaluation, evaluations = 1.0, 5
    steps = budget.affordable_steps(seconds, planned_step, evaluation, evaluations)
    plan: dict[str, object] = {"steps": steps, "changes": []}
    found = budget.StepBudget.from_plan(plan)
    measure, step = budget.StepTimer(evaluation), 0
    measure.restart()
    look = budget.next_correction(0.0)
    while True:
        if step in found.evaluation_steps(evaluations):
            clock.now += evaluation
            measure.record_evaluation(evaluation)
        if step >= found.total_steps(step):
            return clock.now
        clock.now += next(cost for since, cost in reversed(pace) if clock.now >= since)
        measure.count_step()
        step += 1
        if found.progress(step) >= look:
            look = budget.next_correction(found.progress(step))
            total = budget.correct_total_steps(found, step, seconds - clock.now, measure, evaluations)
            measure.restart()
            if total is not None:
                plan["changes"].append({"step": step, "steps": [found.total_steps(step), total]})  # type: ignore[attr-defined]
                found = budget.StepBudget.from_plan(plan)


@pytest.mark.parametrize(
    "pace",
    [
        [(0, 0.1)],
        [(0, 0.25)],  # measured at a quiet moment
        [(0, 0.05)],  # measured at a busy one
        [(0, 0.1), (90, 0.3)],  # other work begins half-way
        [(0, 0.3), (90, 0.1)],
        [(0, 0.1), (60, 0.3), (100, 0.1), (150, 0.25)],
    ],
)
def test_a_deadline_is_kept_whatever_else_the_machine_does(
    pace: list[tuple[float, float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = run(Clock(monkeypatch), 180.0, 0.1, pace)
    assert 0.95 * 180 <= ended <= 1.05 * 180


def test_steps_that_cost_more_at_the_end_are_paid_for() -> None:
    found = budget.StepBudget.from_plan({"steps": 100, "changes": [], "cost_change": [0.8, 3.0]})
    assert found.step_cost(0.0, 0.8) == 1.0
    assert found.step_cost(0.8, 1.0) == pytest.approx(3.0)
    assert found.step_cost(0.0, 1.0) == pytest.approx(1.4)
    assert found.step_cost(0.5, 1.0) == pytest.approx((0.3 + 0.2 * 3) / 0.5)
    assert course(100).step_cost(0.2, 0.9) == 1.0


@pytest.mark.parametrize("busy", [1.0, 2.0])
def test_a_deadline_is_kept_where_the_last_steps_cost_more(
    busy: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the dear ones get their share of the steps: no correction takes them away at the turn."""
    clock, evaluation, evaluations, seconds = Clock(monkeypatch), 1.0, 5, 180.0
    steps = budget.affordable_steps(seconds, 0.1 * 1.4, evaluation, evaluations)
    plan: dict[str, object] = {"steps": steps, "changes": [], "cost_change": [0.8, 3.0]}
    found, measure, step = budget.StepBudget.from_plan(plan), budget.StepTimer(evaluation), 0
    measure.restart()
    look, dear = budget.next_correction(0.0), 0
    while step < found.total_steps(step):
        late = found.progress(step) >= 0.8
        dear += late
        clock.now += busy * 0.1 * (3.0 if late else 1.0)
        measure.count_step()
        step += 1
        if step in found.evaluation_steps(evaluations):
            clock.now += evaluation
            measure.record_evaluation(evaluation)
        if found.progress(step) >= look:
            look = budget.next_correction(found.progress(step))
            total = budget.correct_total_steps(found, step, seconds - clock.now, measure, evaluations)
            measure.restart(found.progress(step))
            if total is not None:
                plan["changes"].append({"step": step, "steps": [found.total_steps(step), total]})  # type: ignore[attr-defined]
                found = budget.StepBudget.from_plan(plan)
    assert 0.95 * seconds <= clock.now <= 1.05 * seconds
    assert dear / step == pytest.approx(0.2, abs=0.03 if busy == 1.0 else 0.06)
