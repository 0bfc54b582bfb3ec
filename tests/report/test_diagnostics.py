"""What curves say: made ones, whose truth is known, and curves of real runs in ``curves/``."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pretune.report.diagnostics import diagnose, split_losses

Shape = Callable[[float], float]
CURVES = Path(__file__).with_name("curves")


def rows(
    training: Shape, held_out: Shape | None = None, *, steps: int = 400, checks: int = 10, name: str = "loss",
    noise: float = 0.05, spikes: tuple[int, ...] = (), rate: Shape = lambda share: 1.0,
    epochs: float | None = None, due: tuple[int, ...] = (), error: float | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """A run's log: shapes of the share of the run that is done; ``error`` is the score's over its records."""
    draw, found = np.random.default_rng(0), []
    due = due or tuple(round(steps * k / checks) for k in range(1, checks + 1))
    for step in range(1, steps + 1):
        loss = training(step / steps) + noise * float(draw.standard_normal()) + 3.0 * (step in spikes)
        found.append({"type": "step", "step": step, "loss": loss, "learning_rate": 1e-3 * rate(step / steps)})
        if epochs is not None:
            found[-1]["epoch"] = epochs * step / steps
        if step in due:
            score = (held_out or training)(step / steps)
            direction = "lower" if name == "loss" else "higher"
            found.append(
                {"type": "evaluation", "step": step, "scores": {name: score}, "direction": direction}
            )
            if error is not None:
                found[-1]["interval"] = [score - 1.96 * error, score + 1.96 * error]
    return found


def kinds(*arguments: Any, **options: Any) -> list[str]:
    return [finding.type for finding in diagnose(rows(*arguments, **options))]


def falling(share: float) -> float:
    """A usual curve: fast, then ever slower."""
    return 4 + 3 * math.exp(-6 * share)


def test_a_usual_curve_that_has_come_to_rest() -> None:
    assert kinds(falling) == ["plateau"]
    [finding] = diagnose(rows(falling))
    assert 0.5 * 400 <= float(finding.evidence["since"]) <= 0.9 * 400


def test_a_curve_that_still_falls() -> None:
    assert kinds(lambda share: 7 - 1.2 * math.log(1 + 20 * share)) == ["still_improving"]


def test_divergence_and_not_its_spikes() -> None:
    found = diagnose(rows(lambda share: falling(share) if share < 0.6 else 5.5))
    assert [finding.type for finding in found] == ["diverged"]
    assert found[0].status == "bad"
    assert float(found[0].evidence["low"]) == pytest.approx(4.1, abs=0.15)
    assert float(found[0].evidence["end"]) == pytest.approx(5.5, abs=0.05)
    assert float(found[0].evidence["at"]) <= 0.6 * 400


def test_over_fitting_needs_both_curves() -> None:
    rising = lambda share: 4 + 2 * math.exp(-8 * share) + 0.8 * share  # noqa: E731
    [finding] = diagnose(rows(falling, rising))
    assert finding.type == "overfitted"
    assert finding.status == "bad"
    assert finding.evidence["at"] == min((rising(k / 10), 40 * k) for k in range(1, 11))[1]
    assert "overfitted" not in kinds(lambda share: 5.0, rising)


def test_accuracy_is_better_when_higher() -> None:
    rising = lambda share: 0.9 - 0.4 * math.exp(-2 * share)  # noqa: E731
    assert kinds(falling, rising, name="accuracy") == ["still_improving"]
    assert "overfitted" in kinds(falling, lambda share: 0.9 - 0.3 * share, name="accuracy")


def test_spikes_are_counted_and_placed() -> None:
    found = {f.type: f for f in diagnose(rows(falling, spikes=(200, 201, 310)))}
    assert found["spikes"].evidence["count"] == 2
    assert found["spikes"].evidence["step"] in (200, 310)
    assert float(found["spikes"].evidence["jump"]) == pytest.approx(3, abs=0.3)
    assert "spikes" not in kinds(falling, noise=0.3)


def test_learning_rates_that_are_too_low() -> None:
    assert "learning_rate_too_low" in kinds(lambda share: 9 - 0.5 * share, noise=0.02)
    assert kinds(lambda share: 9.0, noise=0.02)[0] == "no_learning"
    assert "learning_rate_too_low" not in kinds(falling)


def test_updates_of_the_usual_size_acquit_the_learning_rate() -> None:
    steady = rows(lambda share: 9 - 0.5 * share, noise=0.02)
    steady.append({"type": "activation_stats", "step": 400, "update_ratio": {"layers.0": 1e-3}})
    assert "learning_rate_too_low" not in [finding.type for finding in diagnose(steady)]
    steady[-1]["update_ratio"] = {"layers.0": 2e-5}
    found = {finding.type: finding for finding in diagnose(steady)}
    assert found["learning_rate_too_low"].evidence["ratio"] == 2e-5


@pytest.mark.parametrize(
    ("end", "needed", "moot"),
    [
        (7.1, "undertrained", "plateau"),  # above the unigram's loss
        (6.9, "undertrained", "plateau"),  # below it, by a twentieth of what a bigram model gains
        (6.5, "plateau", "undertrained"),
    ],
)
def test_a_level_at_the_unigram_is_no_level(end: float, needed: str, moot: str) -> None:
    made = rows(lambda share: end + 1.5 * math.exp(-12 * share), steps=47)
    for row in made:
        if row["type"] == "evaluation":
            row["reference_losses"] = {"unigram": 7.0, "bigram": 5.0}
    found = {finding.type: finding for finding in diagnose(made)}
    assert needed in found
    assert moot not in found
    if needed == "undertrained":
        assert found["undertrained"].evidence == {
            "name": "loss", "best": pytest.approx(end, abs=0.01), "step": 47, "unigram": 7.0, "bigram": 5.0,
            "learning_rate": 1e-3,
        }  # fmt: skip
    unknown = [{key: value for key, value in row.items() if key != "reference_losses"} for row in made]
    assert "undertrained" not in [finding.type for finding in diagnose(unknown)]


def cosine(share: float) -> float:
    """The usual learning rate: half of the peak in the middle, a tenth of it from four fifths on."""
    return 0.5 + 0.5 * math.cos(math.pi * share)


def level_from(begin: float) -> Shape:
    """A score that falls evenly and stays from ``begin`` on."""
    return lambda share: 4 + 3 * max(0.0, 1 - share / begin)


@pytest.mark.parametrize(
    ("begin", "rate", "level"),
    [
        (0.4, cosine, True),
        (0.9, cosine, False),  # flat where the learning rate has come down
        (0.7, cosine, False),  # too short a stretch before that
        (0.4, lambda share: 1.0, True),
        (0.7, lambda share: 1.0, True),
        (0.1, lambda share: max(0.0, 1 - share / 0.1), False),  # the learning rate was 0 from a tenth on
        (0.1, lambda share: float(share < 0.02), False),
    ],
)
def test_a_level_is_one_of_the_model_and_not_of_the_schedule(begin: float, rate: Shape, level: bool) -> None:
    assert ("plateau" in kinds(level_from(begin), rate=rate)) is level


def test_the_last_few_steps_of_a_run_are_no_level() -> None:
    """Evaluations close together at the end, where nothing can have changed between them."""
    assert "plateau" not in kinds(level_from(1.0), steps=187, due=(47, 94, 141, 183, 185, 187))
    assert "plateau" in kinds(level_from(0.5), steps=187, due=(47, 94, 141, 160, 175, 187))


@pytest.mark.parametrize(("epochs", "level"), [(0.3, False), (0.49, False), (0.6, True), (4.0, True)])
def test_a_level_before_half_of_the_records_were_read_is_none(epochs: float, level: bool) -> None:
    assert ("plateau" in kinds(falling, epochs=epochs)) is level


def test_too_few_records_show_no_level() -> None:
    rising = lambda share: 0.8 - 0.3 * math.exp(-12 * share)  # noqa: E731
    assert "plateau" in kinds(falling, rising, name="accuracy", error=0.01)
    assert "plateau" not in kinds(falling, rising, name="accuracy", error=0.05)


def test_a_score_that_only_swings_back_is_not_improving() -> None:
    curve = dict(zip(range(1, 11), (7.0, 6.0, 5.0, 4.5, 4.4, 4.6, 5.6, 5.2, 5.1, 5.0), strict=True))
    swinging = lambda share: curve[round(10 * share)]  # noqa: E731
    assert "still_improving" not in kinds(falling, swinging)
    curve[10] = 4.2
    assert "still_improving" in kinds(falling, swinging)


def test_changes_that_chance_makes_are_no_verdict() -> None:
    """0.03 of accuracy: of 1,000 records, or of 64."""
    rising = lambda share: 0.70 + 0.1 * share  # noqa: E731
    assert "still_improving" in kinds(falling, rising, name="accuracy", error=0.014)
    assert "still_improving" not in kinds(falling, rising, name="accuracy", error=0.057)
    sinking = lambda share: 0.80 - 0.05 * share  # noqa: E731
    assert "overfitted" in kinds(falling, sinking, name="accuracy", error=0.014)
    assert "overfitted" not in kinds(falling, sinking, name="accuracy", error=0.057)


def test_what_was_read_once_is_not_learnt_by_heart() -> None:
    rising = lambda share: 4 + 2 * math.exp(-8 * share) + 0.8 * share  # noqa: E731
    assert "overfitted" not in kinds(falling, rising, epochs=0.9)
    assert "overfitted" in kinds(falling, rising, epochs=4.0)


def test_a_long_warm_up_is_no_low_learning_rate() -> None:
    """The curve bends as usual; the half of the run that is warm-up hides it."""
    late = lambda share: 8.5 + 0.5 * math.exp(-8 * max(0.0, share - 0.4))  # noqa: E731
    assert "learning_rate_too_low" in kinds(lambda share: 9 - 0.5 * share, noise=0.02, rate=cosine)
    assert "learning_rate_too_low" not in kinds(late, noise=0.02, rate=lambda share: min(1.0, share / 0.9))
    assert "learning_rate_too_low" not in kinds(lambda share: 9 - 0.5 * share, noise=0.005, steps=60)


def test_a_loss_that_fell_far_was_not_held_back() -> None:
    assert "learning_rate_too_low" not in kinds(lambda share: 1.1 - 0.8 * share, noise=0.02)


def test_updates_in_warm_up_say_nothing_of_the_learning_rate() -> None:
    steady = rows(lambda share: 9 - 0.5 * share, noise=0.02, rate=lambda share: min(1.0, share / 0.1))
    steady.append({"type": "activation_stats", "step": 1, "update_ratio": {"layers.0": 2e-5}})
    assert "learning_rate_too_low" not in [finding.type for finding in diagnose(steady)]
    steady.append({"type": "activation_stats", "step": 201, "update_ratio": {"layers.0": 3e-5}})
    found = {finding.type: finding for finding in diagnose(steady)}
    assert found["learning_rate_too_low"].evidence["ratio"] == 3e-5


def test_a_noisy_loss_is_not_said_to_have_stood_still() -> None:
    """Falls from 0.8 to 0.5, of which 30 steps at this noise show nothing for sure."""
    assert "no_learning" not in kinds(lambda share: 0.8 - 0.3 * share, steps=30, noise=0.2)
    assert "no_learning" in kinds(lambda share: 0.8, steps=400, noise=0.02)


def test_dead_units_are_named() -> None:
    made = rows(falling)
    made.append({"type": "activation_stats", "step": 400, "dead_share": {"layers.0": 0.02, "layers.1": 0.4}})
    found = {finding.type: finding for finding in diagnose(made)}
    assert found["dead_units"].evidence == {"layer": "layers.1", "dead_share": 0.4, "step": 400}


@pytest.mark.parametrize("steps", [0, 1, 23])
def test_a_short_curve_is_not_judged(steps: int) -> None:
    made = rows(falling, steps=steps, checks=1) if steps else []
    assert [finding.type for finding in diagnose(made)] == ["too_short"]


def test_losses_that_are_no_numbers_are_passed_over() -> None:
    made = rows(falling)
    made[10]["loss"] = None
    assert [finding.type for finding in diagnose(made)] == ["plateau"]


def test_stretches_cover_every_step_once() -> None:
    losses = [(step, float(step)) for step in range(1, 102)]
    parts = split_losses(losses)
    assert parts[0].first_step == 1
    assert parts[-1].last_step == 101
    assert all(b.first_step == a.last_step + 1 for a, b in pairwise(parts))
    assert np.mean([p.mean for p in parts]) == pytest.approx(51, abs=1)


REAL = {
    "good": ({"still_improving"}, set()),
    "low": ({"learning_rate_far_too_low"}, set()),
    "high": ({"learning_rate_too_high"}, {"dead_units"}),
    "over": ({"overfitted"}, set()),
    "begun": ({"undertrained"}, set()),
}
"""A Llama of 48 to 96 wide on English prose: learning rates 3e-3, 3e-5, 0.3 without clipping, and 1e-2 on 9
thousand tokens for ten epochs; a masked model of 64 wide after 47 steps. What must be said, and what may be
besides."""


@pytest.mark.parametrize("name", REAL)
def test_curves_of_real_runs(name: str) -> None:
    lines = (CURVES / f"{name}.jsonl").read_text().splitlines()
    found = {finding.type for finding in diagnose([json.loads(line) for line in lines])}
    needed, allowed = REAL[name]
    assert needed <= found <= needed | allowed


@pytest.mark.parametrize(("steps", "kind"), [(40, "too_short"), (200, "no_learning")])
def test_a_loss_that_did_not_move_in_few_steps_blames_no_learning_rate(steps: int, kind: str) -> None:
    rows = [
        {"type": "step", "step": k, "loss": 0.69 + 0.02 * (-1) ** k, "learning_rate": 1e-4, "tokens": 100 * k}
        for k in range(1, steps + 1)
    ]
    kinds = {finding.type for finding in diagnose(rows)}
    assert kind in kinds
    assert not kinds & (
        {"no_learning", "learning_rate_far_too_low", "learning_rate_too_low", "too_short"} - {kind}
    )
