"""Runs are listed, shown, compared where that is honest, and changed in their middle on record."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

import pretune
from pretune.config import Settings
from pretune.errors import ConfigError, Interrupted
from pretune.runtime import run_lock
from pretune.runtime.run_folder import Run
from pretune.training import adjustments
from pretune.training.settings import OptimizerSettings, TrainingSettings
from pretune.training.trainer import Trainer
from pretune.workflows.runs.runs import sparkline

SETTINGS: dict[str, Any] = {
    "vocabulary_size": 350,
    "max_length": 32,
    "model": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2},
    "training": {"batch_tokens": 256, "evaluations": 2},
}
"""Those of the fixture ``bert``."""
OPTIONS = (
    "vocabulary_size=350", "max_length=32", "model.hidden_size=32", "model.num_hidden_layers=2",
    "model.num_attention_heads=2", "training.batch_tokens=256", "training.evaluations=2",
)  # fmt: skip
RATE = "training.optimizer.learning_rate"


class Asked(Settings):
    """As much of a verb's settings as a change in mid-run reads."""

    training: TrainingSettings


def pretrained(texts: Any, out: Path, budget: str = "8 steps", **training: Any) -> Path:
    settings = {**SETTINGS, "training": {**SETTINGS["training"], **training}}
    return pretune.pretrain(settings, corpus=texts.corpus, family="bert", budget=budget, out=out).folder


@pytest.fixture(scope="module")
def other(texts: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As ``bert``, at another learning rate."""
    return pretrained(texts, tmp_path_factory.mktemp("other") / "faster", optimizer={"learning_rate": 7e-3})


@pytest.fixture
def stopped(texts: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run that was stopped before its fifth step."""
    with monkeypatch.context() as patch:
        step = Trainer._train_step
        patch.setattr(Trainer, "_train_step", lambda self, *rest: self.state.step < 4 and step(self, *rest))
        with pytest.raises(Interrupted):
            pretrained(texts, tmp_path / "stopped")
    return tmp_path / "stopped"


def test_the_list_says_how_each_run_stands(
    bert: Path, classifier: Path, stopped: Path, tmp_path: Path, cli: Callable[..., Any]
) -> None:
    home = tmp_path / "home"
    shutil.copytree(bert, home / "quickstart" / "masked")
    shutil.copytree(classifier, home / "labels")
    shutil.copytree(stopped, home / "half")
    (home / "broken").mkdir()
    (home / "broken" / "config.yaml").write_text("corpus: [")
    found = {Path(entry["run"]).name: entry for entry in pretune.list_runs(home)}
    assert found.keys() == {"masked", "labels", "half", "broken"}
    assert (found["masked"]["verb"], found["masked"]["family"], found["masked"]["state"]) == (
        "pretrain", "bert", "finished",
    )  # fmt: skip
    assert (found["masked"]["step"], found["masked"]["steps"]) == (8, 8)
    assert (found["labels"]["verb"], found["labels"]["score"]["name"]) == ("finetune", "accuracy")
    assert (found["half"]["state"], found["half"]["step"], found["half"]["steps"]) == ("stopped", 4, 8)
    assert found["broken"]["state"] == "damaged"
    assert "config.yaml" in found["broken"]["error"]
    with run_lock.lock_run(home / "half"):
        [entry] = pretune.list_runs(home / "half")
        assert entry["state"] == "running"
    said = cli("runs", "list", home)
    assert said.code == 0
    assert "4 runs" in said.out
    assert json.loads(cli("runs", "list", home, "--json").out)["runs"][0].keys() >= {"run", "state"}


def test_a_folder_without_runs_is_named(tmp_path: Path) -> None:
    assert pretune.list_runs(tmp_path) == []
    with pytest.raises(ConfigError, match="nowhere"):
        pretune.list_runs(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="no run"):
        pretune.show_run(tmp_path)


def test_a_run_is_shown_with_what_was_asked_for(
    bert: Path, llama: Path, classifier: Path, cli: Callable[..., Any]
) -> None:
    found = pretune.show_run(bert)
    summary = json.loads((bert / "summary.json").read_text())
    assert found["settings"]["vocabulary_size"] == 350
    assert found["settings"]["model.hidden_size"] == 32
    assert "training.clip" not in found["settings"]
    assert found["scores"]["loss"]["value"] == summary["loss"]
    assert found["baselines"] == {"unigram": summary["unigram_loss"], "bigram": summary["bigram_loss"]}
    assert found["reference_losses"] == found["baselines"]
    assert [verdict["type"] for verdict in found["verdicts"]] == ["too_short"]
    assert summary["verdicts"] == found["verdicts"]
    said = cli("runs", "show", llama)
    assert "8 步" in said.out  # its language is Chinese
    assert "validation loss" in said.out
    scores = pretune.show_run(classifier)["scores"]
    assert scores["accuracy"]["interval"] is not None
    assert "accuracy" in cli("runs", "show", classifier).out


def test_runs_of_the_same_text_are_compared(
    bert: Path, other: Path, tmp_path: Path, cli: Callable[..., Any]
) -> None:
    page = tmp_path / "page.html"
    found = pretune.compare_runs([bert, other], html=page)
    assert found["comparable"] is True
    assert found["settings"] == {RATE: {"bert": 2e-3, "faster": 7e-3}}
    losses = {name: scores["loss"]["value"] for name, scores in found["scores"].items()}
    best = min(losses, key=lambda name: losses[name])
    assert best in found["findings"][0]
    html = page.read_text()
    assert html.count("faster") > 1
    assert RATE in html
    said = cli("runs", "compare", bert, other)
    assert f"{losses['faster']:.3f}" in said.out


def test_what_does_not_compare_is_refused_with_the_reason(
    bert: Path, llama: Path, classifier: Path, texts: Any, tmp_path: Path, cli: Callable[..., Any]
) -> None:
    reasons = {
        "predict different tokens": pretune.compare_runs([bert, llama]),
        "no score in common": pretune.compare_runs([bert, classifier]),
    }
    for reason, found in reasons.items():
        assert reason in found["reason"]
        assert not found["scores"]
        assert found["settings"]
    settings = {**SETTINGS, "vocabulary_size": 320}
    small = pretune.pretrain(
        settings, corpus=texts.corpus, family="bert", budget="2 steps", out=tmp_path / "s"
    )
    assert "tokenizer" in pretune.compare_runs([bert, small.folder])["reason"]
    again = shutil.copytree(bert, tmp_path / "again")
    summary = json.loads((again / "summary.json").read_text())
    (again / "summary.json").write_text(json.dumps(summary | {"held_out_fingerprint": "another"}))
    said = cli("runs", "compare", bert, again, "--language", "zh", "--html", tmp_path / "page.html", "--json")
    assert "验证文本不同" in json.loads(said.out)["reason"]
    assert "验证文本不同" in (tmp_path / "page.html").read_text()
    with pytest.raises(ConfigError, match="two runs"):
        pretune.compare_runs([bert, bert])


def test_classifiers_are_compared_on_the_same_texts(classifier: Path, tmp_path: Path) -> None:
    worse = shutil.copytree(classifier, tmp_path / "worse")
    path = worse / "predictions.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        row["prediction"] = "neither"
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    [finding] = pretune.compare_runs([worse, classifier])["findings"]
    assert finding.startswith("classifier ")  # the better one, whichever is named first
    path.write_text("\n".join(json.dumps(row | {"text": "other"}) for row in rows) + "\n")
    assert "different records" in pretune.compare_runs([worse, classifier])["reason"]


def test_a_stopped_run_is_adjusted_and_repeated(
    stopped: Path, texts: Any, tmp_path: Path, cli: Callable[..., Any]
) -> None:
    """The change holds from where the run goes on; the repeat from the plan has the same weights."""
    said = cli("runs", "adjust", stopped, f"{RATE}=2e-2", "--json")
    assert said.code == 0, said.err
    assert json.loads(said.out) | {"run": ""} == {
        "run": "",
        "values": {RATE: 0.02},
        "state": "stopped",
        "step": 4,
    }
    pretrained(texts, stopped)
    words = ("pretrain", texts.corpus, "--family", "bert", "--budget", "8 steps", *OPTIONS)
    said = cli(*words, "--changes", stopped / "plan.json", "--out", tmp_path / "repeated")
    assert said.code == 0, said.err
    plain = pretrained(texts, tmp_path / "plain")
    weights = {
        run: load_file(run / "model" / "model.safetensors") for run in (stopped, tmp_path / "repeated", plain)
    }
    first, second, third = weights.values()
    assert all(first[name].equal(second[name]) for name in first)
    assert not all(first[name].equal(third[name]) for name in first)
    summary = json.loads((stopped / "summary.json").read_text())
    assert summary["changes"][0]["values"] == {RATE: 0.02}
    assert f"{RATE} = 0.02" in cli("runs", "show", stopped).out
    said = cli(*words, "--changes", stopped / "plan.json", "--out", plain)
    assert said.code == 2
    assert "--out" in said.err


def test_a_running_run_takes_a_change_up_at_its_next_step(
    texts: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, step = tmp_path / "run", Trainer._train_step

    def asking(self: Trainer, *rest: Any) -> bool:
        if self.state.step == 2:
            done = pretune.adjust_run(out, {RATE: 0.02})
            assert (done["state"], done["step"]) == ("running", None)
        return step(self, *rest)

    monkeypatch.setattr(Trainer, "_train_step", asking)
    pretrained(texts, out)
    [change] = Run(out).read_plan()["changes"]
    assert (change["step"], change["values"]) == (3, {RATE: 0.02})
    assert not adjustments.pending_requests(out)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["training.seed=3"], "may not change"),
        ([f"{RATE}=-1"], "greater than 0"),
        ([f"{RATE}"], "key=value"),
        (["training.optimizer.muon_learning_rate=0"], "greater than 0"),
    ],
)
def test_a_change_that_cannot_be_is_refused(
    words: list[str], named: str, stopped: Path, cli: Callable[..., Any]
) -> None:
    said = cli("runs", "adjust", stopped, *words)
    assert said.code == 2
    assert named in said.err
    assert not Run(stopped).read_plan()["changes"]


def test_a_rate_that_the_optimiser_does_not_have_is_refused(tmp_path: Path, cli: Callable[..., Any]) -> None:
    training = TrainingSettings(batch_tokens=256, optimizer=OptimizerSettings(name="adamw"))
    begun = Run.open(tmp_path / "begun", Asked(training=training))
    said = cli("runs", "adjust", begun.folder, "training.optimizer.muon_learning_rate=0.05")
    assert said.code == 2
    assert "training.optimizer.muon_learning_rate: this run's optimiser is 'adamw'" in said.err
    assert not adjustments.pending_requests(begun.folder)
    said = cli("runs", "adjust", begun.folder, f"{RATE}=0.05")  # which it has
    assert said.code == 0, said.err
    assert len(adjustments.pending_requests(begun.folder)) == 1


def test_a_run_that_has_ended_is_not_adjusted(bert: Path) -> None:
    with pytest.raises(ConfigError, match="has ended"):
        pretune.adjust_run(bert, {RATE: 0.1})


def test_a_sparkline_keeps_shape_and_width() -> None:
    assert sparkline([3.0, 2.0, 1.0]) == "█▅▁"
    assert len(sparkline([float(i) for i in range(1000)], width=40)) <= 40
    assert sparkline([1.0, 1.0]) == "▁▁"
    assert sparkline([]) == ""
