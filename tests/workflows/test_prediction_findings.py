"""One answer for every text is the first finding everywhere, with what to change, and nothing against it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

import pretune
from pretune.report.diagnostics import Finding, diagnose
from pretune.runtime.progress import NullReporter
from pretune.tasks import find_task
from pretune.types import Record
from pretune.workflows.prediction_findings import (
    DiagnosisContext,
    FinalPredictions,
    add_cause,
    diagnose_predictions,
    diagnose_samples,
)
from pretune.workflows.pretrain.samples import Sample
from pretune.workflows.verdicts import PHRASES, describe_finding, diagnose_run

CLASSIFICATION = find_task("classification")()
RECORDS = [Record({"text": "a", "label": label}, "test.jsonl", 1) for label in "aaaaabbbcc" * 10]
TRUE = [record.fields["label"] for record in RECORDS]
CONSTANT = diagnose_predictions(CLASSIFICATION, ["a"] * 100, TRUE, "test")
USUAL = DiagnosisContext(5e-5)


def log(
    steps: int, rate: float = 5e-5, learning: int | None = None, fall: float = 0.3
) -> list[dict[str, Any]]:
    """A run's log, of whose steps the first ``learning`` are at the peak and the others at 0."""
    return [
        {"type": "step", "step": step, "loss": 1.1 - fall * step / steps + 0.02 * math.sin(7 * step),
         "learning_rate": rate if step <= (learning or steps) else 0.0}
        for step in range(1, steps + 1)
    ]  # fmt: skip


def test_constant_and_absent_classes_are_found_with_their_shares() -> None:
    constant, absent = CONSTANT
    assert (constant.type, constant.status) == ("constant_prediction", "bad")
    assert (constant.evidence["value"], constant.evidence["count"], constant.evidence["n"]) == (
        "'a'",
        100,
        100,
    )
    assert absent.type == "class_never_predicted"
    assert absent.evidence["names"] == "'b' (30 %), 'c' (20 %)"
    assert (absent.evidence["label"], absent.evidence["share"], absent.evidence["support"]) == ("b", 0.3, 30)


def test_a_rare_class_that_is_never_predicted_is_only_noted() -> None:
    records = [Record({"text": "a", "label": "rare" if k < 2 else "ab"[k % 2]}, "t", k) for k in range(100)]
    said = ["ab"[k % 2] for k in range(100)]
    [found] = diagnose_predictions(CLASSIFICATION, said, [r.fields["label"] for r in records])
    assert (found.type, found.status) == ("class_never_predicted", "neutral")


@pytest.mark.parametrize(
    ("rows", "origin", "cause", "advice"),
    [
        (log(3), USUAL, "few_steps", "made 3 steps, too few to learn from: give it some hundreds (--budget)"),
        (
            log(400, learning=40),
            USUAL,
            "few_effective_steps",
            "In only 40 of 400 steps was the learning rate above",
        ),
        (log(130, rate=2e-4), USUAL, "learning_rate_high", "try 5e-05"),
        (log(130, rate=2e-4), DiagnosisContext(2e-3), "learning_rate_low", "try 0.002"),
        (log(130, rate=2e-4), DiagnosisContext(), "not_learning", "now 130 steps"),
        (log(130, rate=2e-5), USUAL, "not_learning", "now 130 steps"),
    ],
)
def test_the_cause_is_read_from_the_run(
    rows: list[dict[str, Any]], origin: DiagnosisContext, cause: str, advice: str
) -> None:
    found, _ = add_cause(CONSTANT, diagnose(rows), rows, origin)
    assert found.evidence["cause"] == cause
    assert advice in describe_finding("en", found)
    for language in PHRASES:
        assert "{" not in describe_finding(language, found)


def test_rare_classes_and_thresholds_are_causes() -> None:
    records = [Record({"text": "a", "label": "b" if k < 5 else "a"}, "t", k) for k in range(100)]
    found = diagnose_predictions(CLASSIFICATION, ["a"] * 100, [r.fields["label"] for r in records])
    [imbalance, _] = add_cause(found, (), log(300), USUAL)
    assert "class_weights=balanced" in describe_finding("en", imbalance)
    records = [Record({"text": "a", "labels": ["zh"] * (k % 3 == 0)}, "t", k) for k in range(30)]
    true = [tuple(r.fields["labels"]) for r in records]
    found = diagnose_predictions(find_task("multi_label_classification")(), [()] * 30, true, "validation")
    [empty, _] = add_cause(found, (), log(300), DiagnosisContext(5e-5, 0.5))
    assert "– is predicted for 30 of the 30 validation texts" in describe_finding("en", empty)
    assert "threshold=validation" in describe_finding("en", empty)


def test_updates_that_change_nothing_are_the_cause() -> None:
    rows = log(300, fall=0.0)
    rows.append({"type": "activation_stats", "step": 100, "update_ratio": {"layers.0": 1e-6}})
    [found, _] = add_cause(CONSTANT, diagnose(rows), rows, USUAL)
    assert "too low for this model: try 0.0005" in describe_finding("en", found)


def test_it_comes_first_and_silences_what_contradicts_it() -> None:
    """A loss that falls evenly and little: read alone it asks for a higher learning rate."""
    rows = log(300, rate=2e-4, fall=0.1)
    assert [finding.type for finding in diagnose(rows)] == ["learning_rate_too_low"]
    found = diagnose_run(rows, final=FinalPredictions(CONSTANT, False, USUAL))
    assert [finding.type for finding in found] == ["constant_prediction", "class_never_predicted"]


def test_a_short_run_is_bad_where_it_learnt_nothing() -> None:
    for learnt, status in ((True, "neutral"), (False, "bad")):
        [found] = diagnose_run(log(3), final=FinalPredictions((), learnt, USUAL))
        assert (found.type, found.status) == ("too_short", status)
        assert ("too few to learn from" in describe_finding("en", found)) is not learnt
    kinds = [finding.type for finding in diagnose_run(log(3), final=FinalPredictions(CONSTANT, False, USUAL))]
    assert kinds == ["constant_prediction", "too_short", "class_never_predicted"]


def test_a_model_that_has_not_begun_is_told_more_steps_only_where_they_are_few() -> None:
    figures = {"name": "loss", "best": 7.0, "unigram": 6.9, "bigram": 5.0, "learning_rate": 1e-3}
    short, long = (
        describe_finding("en", Finding("undertrained", "bad", {**figures, "step": s})) for s in (300, 20_000)
    )
    assert "more steps (--budget)" in short
    assert "--budget" not in long
    assert "change the learning rate (now 0.001)" in long


class Letters:
    """A tokenizer of one token a character."""

    class Encoded:
        def __init__(self, text: str) -> None:
            self.ids = self
            self.text = text

        def tolist(self) -> list[int]:
            return list(map(ord, self.text))

    def encode(self, text: str) -> Letters.Encoded:
        return self.Encoded(text)

    def decode(self, ids: list[int]) -> str:
        return "".join(map(chr, ids))


@pytest.mark.parametrize(
    ("samples", "words"),
    [
        ([Sample("A", "the", "b", (("the", 0.1),), word) for word in ("sea", "king", "road")],
         "'the' for each of 3 hidden words"),
        ([Sample("A", "", reference_phrase="hidden_word") for _ in range(6)],
         "each of 6 samples ends before"),
        ([Sample("A", ",,,,,,,,") for _ in range(6)], "each of 6 samples is ',', repeated"),
        ([Sample("A", "the", "b", (("the", 0.1),), word) for word in ("the", "the", "the")], ""),
        ([Sample("A", text) for text in ("a king", "the sea", "")], ""),
        ([], ""),
    ],
)  # fmt: skip
def test_a_language_model_that_always_says_the_same(samples: list[Sample], words: str) -> None:
    found = diagnose_samples(samples, Letters())  # type: ignore[arg-type]
    assert bool(found) is bool(words)
    if found:
        [told] = add_cause(found, (), log(300), USUAL)
        assert words in describe_finding("en", told)
        assert "longer" in describe_finding("en", told)


class Lines(NullReporter):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture(scope="module")
def collapsed(
    bert: Path, texts: Any, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, tuple[str, ...]]:
    """A classifier that has learnt the more frequent class, and nothing else, in 3 steps; what was said."""
    folder, heard = tmp_path_factory.mktemp("collapsed"), Lines()
    rows = [json.loads(line) for line in texts.train.read_text(encoding="utf-8").splitlines()]
    kept = [row for k, row in enumerate(rows) if row["label"] == "war" or k % 5 == 1]
    train = folder / "train.jsonl"
    train.write_text("\n".join(json.dumps(row) for row in kept) + "\n", encoding="utf-8")
    run = pretune.finetune(
        bert, train=train, validation=texts.validation, test=texts.test, budget="3 steps", out=folder / "run",
        training={"evaluations": 1, "optimizer": {"learning_rate": 1e-2}}, reporter=heard,
    )  # fmt: skip
    return run.folder, tuple(heard.lines)


def test_scores_on_the_way_are_called_by_their_records(collapsed: tuple[Path, tuple[str, ...]]) -> None:
    _, lines = collapsed
    assert any("step 3, validation: accuracy " in line for line in lines)
    assert not [line for line in lines if "held out" in line or "held-out" in line]


def test_a_collapsed_run_says_so_first_everywhere(
    collapsed: tuple[Path, tuple[str, ...]], texts: Any, cli: Any
) -> None:
    collapsed_run, lines = collapsed
    told = [
        line for line in lines if any(w in line for w in ("One answer", "The run made", "Never predicted"))
    ]
    assert told[0].startswith("  One answer for every text")
    assert len(told) == 3
    summary = json.loads((collapsed_run / "summary.json").read_text(encoding="utf-8"))
    assert {row["prediction"] for row in map(json.loads, (collapsed_run / "predictions.jsonl").open())} == {
        "war"
    }
    first = summary["verdicts"][0]
    assert (first["type"], first["status"], first["evidence"]["cause"]) == (
        "constant_prediction", "bad", "few_steps",
    )  # fmt: skip
    assert "'war' is predicted for 16 of the 16 test texts" in first["text"]
    page = (collapsed_run / "report.html").read_text(encoding="utf-8")
    said = [page.index(words) for words in ("One answer for every text", "too few to learn from: its")]
    assert said == sorted(said)
    assert "majority class, 0.5" not in page  # it says the same, without the cause
    assert "use the baseline" not in page
    card = (collapsed_run / "model" / "README.md").read_text(encoding="utf-8")
    assert card.split("# bert fine-tuned with pretune")[1].lstrip().startswith("> One answer for every text")
    shown = cli("runs", "show", collapsed_run).out.splitlines()
    assert shown[1].startswith("! One answer for every text")
    told = cli("evaluate", collapsed_run, "--data", texts.test).out.splitlines()
    assert told[0].startswith("! One answer for every text")
