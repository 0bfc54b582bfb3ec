"""The schedules against transformers', step by step, and their values at the corners."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import optimization

from pretune.config import build_settings
from pretune.errors import ConfigError
from pretune.training.schedules import SCHEDULES, lr_factor
from pretune.training.settings import ScheduleSettings

TOTAL, WARMUP, DECAY = 50, 10, 15
Reference = Callable[[torch.optim.Optimizer], Any]
REFERENCES: dict[str, tuple[dict[str, Any], Reference]] = {
    "cosine": (
        {"final_factor": 0.1},
        lambda o: optimization.get_cosine_with_min_lr_schedule_with_warmup(
            o, WARMUP + 1, TOTAL + 1, min_lr_rate=0.1
        ),
    ),
    "linear": ({}, lambda o: optimization.get_linear_schedule_with_warmup(o, WARMUP + 1, TOTAL + 1)),
    "wsd 1-sqrt": (
        {"decay": DECAY / TOTAL},
        lambda o: optimization.get_wsd_schedule(o, WARMUP + 1, DECAY, TOTAL + 1, decay_type="1-sqrt"),
    ),
    "wsd linear": (
        {"decay": DECAY / TOTAL, "decay_shape": "linear"},
        lambda o: optimization.get_wsd_schedule(o, WARMUP + 1, DECAY, TOTAL + 1, decay_type="linear"),
    ),
    "inverse_sqrt": ({}, lambda o: optimization.get_inverse_sqrt_schedule(o, WARMUP + 1)),
    "constant": ({}, lambda o: optimization.get_constant_schedule_with_warmup(o, WARMUP + 1)),
}


def settings(**values: Any) -> ScheduleSettings:
    return build_settings(ScheduleSettings, values)


@pytest.mark.parametrize("case", REFERENCES)
def test_equals_the_reference(case: str) -> None:
    """At one step later of a run one step longer, whose first step has a learning rate of 0."""
    values, reference = REFERENCES[case]
    chosen = settings(name=case.split()[0], warmup=WARMUP, **values)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = reference(optimizer)
    found, expected = [], []
    for step in range(TOTAL):
        optimizer.step()
        schedule.step()
        expected.append(schedule.get_last_lr()[0])
        found.append(lr_factor(step, TOTAL, chosen))
    assert found == pytest.approx(expected, abs=1e-12)
    assert len(set(found)) > WARMUP


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("warmup", [0, 0.2, 10])
def test_warms_up_to_the_peak_and_never_leaves_it_upwards(name: str, warmup: float) -> None:
    chosen = settings(name=name, warmup=warmup)
    factors = [lr_factor(step, TOTAL, chosen) for step in range(TOTAL)]
    assert all(0 < f <= 1 for f in factors)
    peak = 10 if warmup else 0
    assert factors[peak] == 1.0
    assert factors[:peak] == sorted(factors[:peak])
    assert factors[peak:] == sorted(factors[peak:], reverse=True)


@pytest.mark.parametrize("name", ["cosine", "linear", "wsd"])
def test_ends_at_the_final_share(name: str) -> None:
    assert lr_factor(TOTAL, TOTAL, settings(name=name, final_factor=0.25)) == pytest.approx(0.25)


def test_the_stable_stage_of_wsd_is_a_share() -> None:
    chosen = settings(name="wsd", warmup=0, decay=0.3)
    factors = [lr_factor(step, TOTAL, chosen) for step in range(TOTAL)]
    assert factors.index(next(f for f in factors if f < 1)) == 0.7 * TOTAL + 1


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"name": "constant", "final_factor": 0.1}, "final_factor"),
        ({"name": "wsd", "warmup": 0.5, "decay": 0.6}, "decay"),
        ({"name": "step"}, "name"),
        ({"warmup": -1}, "warmup"),
        ({"name": "wsd", "decay_shape": "cubic"}, "decay_shape"),
    ],
)
def test_what_does_not_fit_is_refused(values: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        settings(**values)
