"""What the pages make of a log that holds more than good steps, and which advice fits which case."""

from __future__ import annotations

from pretune.metrics.statistics import paired_difference
from pretune.workflows.findings import baseline_finding, loss_finding, severe_findings_of_run, should_advise
from pretune.workflows.run_page import loss_curve, sample_section


def test_an_evaluation_after_a_step_that_was_left_out_is_drawn() -> None:
    rows = [
        {"type": "step", "step": 1, "tokens": 100, "loss": 5.0},
        {"type": "step", "step": 2, "tokens": 200, "loss": 4.5},
        {"type": "skipped", "step": 3, "tokens": 200, "loss": "nan", "gradient_norm": "nan"},
        {"type": "evaluation", "step": 3, "scores": {"loss": 4.0}},
    ]
    curve = loss_curve(
        "en", {"run": rows}, {"unigram_loss": 6.0, "bigram_loss": 5.0, "objective": "causal_lm"}, "Loss"
    )
    assert curve.series[0].x == (200.0,)


def pretrained(loss: float, *verdicts: str) -> dict[str, object]:
    """As much of a pretraining run's summary as its findings read."""
    rows = [{"type": kind, "status": "bad", "text": kind, "evidence": {}} for kind in verdicts]
    return {"loss": loss, "unigram_loss": 6.0, "bigram_loss": 5.0, "objective": "causal_lm", "verdicts": rows}


def test_a_loss_advises_nothing_where_the_curves_know_the_cause() -> None:
    for verdicts, advises in (((), True), (("learning_rate_too_high",), False), (("too_short",), False)):
        summary = pretrained(6.1, *verdicts)
        item = loss_finding("en", "model", summary, with_advice=should_advise(summary))
        assert "no better than a unigram model" in item.text
        assert ("Train longer" in item.text) is advises


def test_few_labels_are_said_of_few_labels_only() -> None:
    below = paired_difference([[False] * 300 + [True] * 100], [[True] * 350 + [False] * 50])
    for language, few, many in (
        ("en", "so few labels (533)", "With 5,186 labels"),
        ("zh", "533 条", "5,186 条"),
    ):
        item = baseline_finding(language, "m", below, 0.25, "tfidf", 0.875, metric="accuracy", num_train=533)
        assert few in item.text
        item = baseline_finding(language, "m", below, 0.25, "tfidf", 0.875, metric="accuracy", num_train=5186)
        assert many in item.text
        assert "few labels" not in item.text
        assert "建议直接用基线" not in item.text
        item = baseline_finding(
            language, "m", below, 0.25, "tfidf", 0.875, metric="accuracy", num_train=533, with_advice=False
        )
        assert few not in item.text


def test_what_writes_grammar_before_sense_is_small() -> None:
    assert "grammar before sense" in sample_section("en", (), 1_000_000).note
    assert "grammar before sense" not in sample_section("en", (), 135_000_000).note


def test_what_makes_a_model_useless_is_said_again_in_the_language_of_a_page() -> None:
    figures = {"steps": 3, "min_steps": 24}
    rows = [
        {"type": "plateau", "status": "neutral", "text": "", "evidence": {}},
        {"type": "too_short", "status": "bad", "text": "", "evidence": figures},
        {"type": "too_short", "status": "neutral", "text": "", "evidence": figures},
    ]
    [item] = severe_findings_of_run("zh", "中文", rows)
    assert (item.status, item.text[:10]) == ("bad", "中文: 训练只有 3")
