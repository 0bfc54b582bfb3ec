"""Verdicts compare by the metric that decides, in words that metrics and baselines bring."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small

import pretune
from pretune.baselines.base import Baseline
from pretune.inference.heads import MAX_BATCH_TOKENS
from pretune.metrics.base import Metric
from pretune.metrics.statistics import compare
from pretune.model.model import Model
from pretune.registry import find
from pretune.tasks import find_task
from pretune.tasks.tagging import Task
from pretune.types import OutputSpec, Prediction, Record
from pretune.workflows.evaluate import Evaluation, fit_baselines
from pretune.workflows.findings import baseline_findings

TAGS = OutputSpec(("O", "B-PER", "I-PER"))


def tagged(n: int = 60) -> tuple[list[Record], list[tuple[str, ...]], list[tuple[str, ...]]]:
    """Records of which two answers have equally many wholly right, and only one finds spans."""
    true = [("B-PER", "I-PER", "O", "B-PER")] * n
    records = [
        Record({"tokens": ["a", "b", "c", "d"], "tags": list(tags)}, "t", i) for i, tags in enumerate(true)
    ]
    nothing = [("O", "O", "O", "O")] * n
    some = [("O", "O", "O", "B-PER")] * n
    return records, nothing, some


class Stub(Task):
    """A task with a baseline and a metric of unknown names, without words."""

    def metrics(self, language: str) -> tuple[Metric, ...]:
        strict = super().metrics(language)[0]
        return (Metric("nameless", {}, strict.count, strict.value),)

    def baselines(self, train: Any, records: Any) -> Any:
        yield Baseline(tuple(tagged(len(records))[2]), "made for the test", "newcomer")


def evaluation(task: Task) -> Evaluation:
    records, nothing, _ = tagged()
    predictions = [Prediction(i, value, 0.5) for i, value in enumerate(nothing)]
    references = [task.reference(r) for r in records]
    baselines = fit_baselines(task, records, records)
    scores = task.score(predictions, records)
    return Evaluation("tagging", task, records, predictions, references, "en", scores, baselines)


@pytest.mark.parametrize(("language", "worse"), [("en", "is below newcomer"), ("zh", "低于“newcomer”")])
def test_equal_exact_match_does_not_hide_a_worse_span_f1(language: str, worse: str) -> None:
    found = evaluation(Stub(TAGS))
    _, nothing, some = tagged()
    exact = [[v == t for v, t in zip(x, found.references, strict=True)] for x in (nothing, some)]
    assert sum(exact[0]) == sum(exact[1]) == 0
    assert found.scores[0].value == 0
    assert found.baselines["newcomer"][1][0].value == pytest.approx(2 / 3)
    [item] = baseline_findings(language, found, {"verdicts": (), "num_train": 2000})
    assert item.status == "bad"
    assert worse in item.text
    assert "nameless" in item.text
    assert not found.beats_majority
    difference = compare(found.metric, [nothing], [some], found.references)
    assert difference.mean == pytest.approx(-2 / 3)


def lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tagging", "question_answering"])
def test_a_run_of_each_task_is_tested_shown_and_compared(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng, traits = np.random.default_rng(0), find("families", "bert").TRAITS
    rows = [dict(find_task(name).sample(rng)) for _ in range(60)]
    train, test = lines(tmp_path / "train.jsonl", rows[:40]), lines(tmp_path / "test.jsonl", rows[40:])
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = Model.create("bert", shape, small.tokenizer(traits), "masked_lm", max_length=32, seed=0)
    sizes = []
    real = Model.predict
    monkeypatch.setattr(
        Model, "predict", lambda self, *a, **k: sizes.append(k.get("batch_size")) or real(self, *a, **k)
    )
    runs = [
        pretune.finetune(
            model.save(tmp_path / f"base-{seed}"), task=name, train=train, validation=test, test=test,
            budget="4 steps", training={"evaluations": 1, "optimizer": {"learning_rate": rate}},
            out=tmp_path / f"run-{seed}",
        )
        for seed, rate in ((0, 1e-3), (1, 1e-9))
    ]  # fmt: skip
    assert max(size for size in sizes if size) <= min(20, MAX_BATCH_TOKENS // 8), "rows, and no tokens"
    run = runs[0]
    metric = find_task(name)(OutputSpec(tuple(run.summary["labels"]))).metrics("en")[0]
    assert next(iter(run.summary["scores"])) == metric.name
    assert metric.word("en") in (run.folder / "report.html").read_text(encoding="utf-8")
    card = (run.folder / "model" / "README.md").read_text(encoding="utf-8")
    assert find_task(name).phrases["en"].limits.format(n="40") in card.replace("\\", "")
    again = pretune.evaluate(run.folder, data=test, train=train)
    assert again["scores"] == run.summary["scores"]
    compared = pretune.compare_runs([r.folder for r in runs])
    assert compared["reason"] is None
    assert metric.word("en") in compared["findings"][0]
    assert pretune.show_run(run.folder)["scores"].keys() == run.summary["scores"].keys()
    out = tmp_path / "out.jsonl"
    pretune.predict(run.folder, data=test, out=out)
    answers = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert len(answers) == 20
    assert set(find_task(name).prediction_fields) < set(answers[0])
    pretune.export(run.folder, out=tmp_path / "exported")
