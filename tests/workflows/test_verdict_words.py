"""Every verdict has its sentence in both languages, with its numbers; an early stop says why."""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any, get_args

import pytest

import pretune
from pretune.report.diagnostics import Finding, FindingType, diagnose
from pretune.workflows.verdicts import CHINESE, ENGLISH, PHRASES, describe_finding

CURVES = Path(__file__).parent.parent / "report" / "curves"


def placeholders(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


def test_both_languages_say_the_same() -> None:
    assert ENGLISH.keys() == CHINESE.keys()
    for kind, text in ENGLISH.items():
        assert placeholders(text) == placeholders(CHINESE[kind]), kind


def test_every_kind_has_words() -> None:
    of_each = {f"constant_prediction_{of}" for of in ("text", "gap", "repetition", "empty")}
    assert of_each | set(get_args(FindingType)) - {"constant_prediction"} <= ENGLISH.keys()


@pytest.mark.parametrize("language", PHRASES)
@pytest.mark.parametrize("name", ["good", "low", "high", "over", "begun"])
def test_real_findings_are_said_with_their_numbers(name: str, language: str) -> None:
    rows = [json.loads(line) for line in (CURVES / f"{name}.jsonl").read_text().splitlines()]
    for finding in diagnose(rows):
        said = describe_finding(language, finding)
        assert "{" not in said
        assert (
            f"{float(finding.evidence.get('end', finding.evidence.get('step', 0))):.3f}".rstrip("0.") in said
        )


def test_one_spike_is_one() -> None:
    figures = {"count": 1, "step": 30, "jump": 2.0, "learning_rate": 1e-3}
    assert "once" in describe_finding("en", Finding("spikes", "neutral", figures))
    assert "4 times" in describe_finding("en", Finding("spikes", "neutral", figures | {"count": 4}))


def test_an_early_stop_says_why_and_at_what_rate(texts: Any, tmp_path: Path) -> None:
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    training = {"batch_tokens": 256, "evaluations": 4, "patience": 2, "min_delta": 9.0}
    settings = {"vocabulary_size": 350, "max_length": 32, "model": shape, "training": training}
    run = pretune.pretrain(
        settings, corpus=texts.corpus, family="bert", budget="8 steps", out=tmp_path / "run"
    )
    assert (run.summary["stop_reason"], run.summary["steps"], run.summary["planned_steps"]) == (
        "patience",
        6,
        8,
    )
    [short, verdict] = run.summary["verdicts"]
    assert (short["type"], short["status"], verdict["type"]) == ("too_short", "bad", "stopped_early")
    share = run.summary["last_lr_factor"]
    assert 0 < share < 1
    assert f"still at {share:.0%} of its peak" in verdict["text"]
    assert "step 6 of 8" in verdict["text"]
    assert verdict["text"].replace("%", "&#37;")[:40] in run.report.read_text().replace("%", "&#37;")
