"""What the pages make of a log that holds more than good steps."""

from __future__ import annotations

from pretune.workflows.pages import loss_curve


def test_an_evaluation_after_a_step_that_was_left_out_is_drawn() -> None:
    rows = [
        {"kind": "step", "step": 1, "tokens": 100, "loss": 5.0},
        {"kind": "step", "step": 2, "tokens": 200, "loss": 4.5},
        {"kind": "skipped", "step": 3, "tokens": 200, "loss": "nan", "gradient_norm": "nan"},
        {"kind": "evaluation", "step": 3, "scores": {"loss": 4.0}},
    ]
    curve = loss_curve("en", {"run": rows}, {"unigram": 6.0, "bigram": 5.0, "objective": "causal_lm"}, "Loss")
    assert curve.series[0].x == (200.0,)
