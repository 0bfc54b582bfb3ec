"""Runs are compared by setting: seeds together, values in place of defaults, no winner of a tie."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import pretune

RATE = "training.optimizer.learning_rate"
Variant = Callable[..., Path]


@pytest.fixture
def variant(bert: Path, classifier: Path, tmp_path: Path) -> Variant:
    """A copy of a finished run, of another seed, learning rate, loss or share of right answers."""

    def make(
        name: str, of: str = "bert", *, seed: int = 0, rate: float = 1e-3, loss: float | None = None,
        right: int | None = None, language: str = "en",
    ) -> Path:  # fmt: skip
        folder = tmp_path / name
        shutil.copytree(bert if of == "bert" else classifier, folder)
        config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        config["training"]["seed"], config["training"]["optimizer"]["learning_rate"] = seed, rate
        config["language"] = language
        (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        if loss is not None:
            summary["loss"] = loss
        if right is not None:
            path = folder / "predictions.jsonl"
            rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
            for k, row in enumerate(rows):
                row["prediction"] = row["label"] if k < right else "neither"
            path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
            summary["scores"]["accuracy"]["value"] = right / len(rows)
        (folder / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
        return folder

    return make


def test_seeds_of_one_setting_are_one(variant: Variant, tmp_path: Path, cli: Callable[..., Any]) -> None:
    slow = [variant(f"slow-{s}", seed=s, loss=x) for s, x in enumerate((5.50, 5.60, 5.55))]
    fast = [variant(f"fast-{s}", seed=s, rate=3e-3, loss=x) for s, x in enumerate((5.30, 5.41, 5.34))]
    found = pretune.compare_runs([*slow, *fast], html=tmp_path / "page.html")
    assert [group["runs"] for group in found["groups"]] == [[r.name for r in slow], [r.name for r in fast]]
    assert found["groups"][0]["seeds"] == [0, 1, 2]
    score = found["groups"][0]["scores"]["loss"]
    assert (score["mean"], score["std"]) == (pytest.approx(5.55), pytest.approx(0.05))
    [finding] = found["findings"]
    assert finding.startswith("fast-0 (3 seeds) has a lower validation loss than slow-0 (3 seeds): 5.350 ± ")
    assert "over seeds, paired" in finding
    said = cli("runs", "compare", *slow, *fast).out
    assert "slow-0, slow-1, slow-2: one setting, seeds 0, 1, 2" in said
    assert "mean 5.550, spread 0.050" in said


def test_a_difference_within_the_spread_has_no_winner(variant: Variant) -> None:
    slow = [variant(f"slow-{s}", seed=s, loss=x) for s, x in ((0, 5.50), (1, 5.60))]
    fast = [variant(f"fast-{s}", seed=s, rate=3e-3, loss=x) for s, x in ((2, 5.45), (3, 5.58))]
    [finding] = pretune.compare_runs([*slow, *fast])["findings"]
    assert "cannot be told apart by their validation losses" in finding
    assert "paired" not in finding  # other seeds


def test_a_tie_of_losses_has_no_winner(variant: Variant) -> None:
    runs = [
        variant("a", loss=5.5001),
        variant("b", rate=3e-3, loss=5.5002),
        variant("c", rate=5e-3, loss=5.6),
    ]
    [finding] = pretune.compare_runs(runs)["findings"]
    assert finding == "a and b have the same validation loss, 5.500: none is better"
    [finding] = pretune.compare_runs([runs[0], runs[2]])["findings"]
    assert finding.startswith("a has the lowest validation loss, 5.500; one seed each says little")


def test_seeds_alone_are_not_put_against_each_other(variant: Variant) -> None:
    runs = [variant("a", loss=5.4), variant("b", seed=1, loss=5.5, language="zh")]
    found = pretune.compare_runs(runs)
    assert len(found["groups"]) == 1
    assert found["findings"] == []
    found = pretune.compare_runs([*runs, variant("again", loss=5.6)])  # the seed of a, once more
    assert [group["runs"] for group in found["groups"]] == [["a", "b"], ["again"]]


def test_classifiers_are_averaged_over_seeds_first(variant: Variant) -> None:
    first = [variant(f"first-{s}", "finetune", seed=s, right=n) for s, n in ((0, 15), (1, 16), (2, 14))]
    other = [variant(f"other-{s}", "finetune", seed=s, rate=3e-3, right=n) for s, n in ((0, 3), (1, 5))]
    [finding] = pretune.compare_runs([*other, *first])["findings"]
    assert finding.startswith("first-0 (3 seeds) is better than other-0 (2 seeds) by 68.8 points of accuracy")
    assert "16 texts; 3 and 2 seeds, spread 6.2 and 8.8" in finding
    alike = variant("alike", "finetune", rate=5e-3, right=15)
    [finding] = pretune.compare_runs([first[0], alike])["findings"]
    assert "cannot be told apart" in finding
    assert "difference 0.0 points of accuracy" in finding


def test_defaults_are_printed_as_values(variant: Variant, bert: Path, cli: Callable[..., Any]) -> None:
    other = variant("other")
    config = yaml.safe_load((other / "config.yaml").read_text(encoding="utf-8"))
    config["training"]["clip"] = 0.5
    config["model"]["intermediate_size"] = 64
    del config["training"]["min_delta"]  # of an earlier version, which had no such setting
    (other / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    found = pretune.compare_runs([bert, other])
    assert found["settings"] == {
        RATE: {"bert": 2e-3, "other": 1e-3},
        "training.clip": {"bert": 1.0, "other": 0.5},
        "model.intermediate_size": {"bert": None, "other": 64},
    }
    said = cli("runs", "compare", bert, other).out
    assert "training.clip: 1.0 (bert), 0.5 (other)" in said
    assert "model.intermediate_size: – (bert), 64 (other)" in said
    assert "default" not in said


@pytest.fixture(scope="module")
def tagged(bert: Path, texts: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of several labels a text, with baselines."""
    folder = tmp_path_factory.mktemp("tagged")
    for part in ("train", "test"):
        rows = [json.loads(line) for line in getattr(texts, part).read_text(encoding="utf-8").splitlines()]
        labelled = ({"text": row["text"], "labels": [row["label"]]} for row in rows)
        (folder / f"{part}.jsonl").write_text(
            "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in labelled), encoding="utf-8"
        )
    return pretune.finetune(
        bert, train=folder / "train.jsonl", validation=folder / "test.jsonl", test=folder / "test.jsonl",
        task="multi_label_classification", budget="2 steps", training={"evaluations": 1}, out=folder / "run",
    ).folder  # fmt: skip


def test_runs_of_several_labels_are_shown_and_compared(
    tagged: Path, classifier: Path, tmp_path: Path, cli: Callable[..., Any]
) -> None:
    summary = json.loads((tagged / "summary.json").read_text(encoding="utf-8"))
    shown = cli("runs", "show", tagged)
    assert shown.code == 0, shown.err
    baselines = pretune.show_run(tagged)["baselines"]
    assert baselines == {n: row["micro_f1"]["value"] for n, row in summary["baselines"].items()}
    assert f"tfidf          {baselines['tfidf']:.3f} (baseline)" in shown.out
    again = shutil.copytree(tagged, tmp_path / "again")
    for html in ((), ("--html", tmp_path / "page.html")):
        said = cli("runs", "compare", tagged, again, *html)
        assert said.code == 0, said.err
    rows = [
        json.loads(line) for line in (again / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    worse = [row | {"prediction": ["war", "farm"]} for row in rows]
    (again / "predictions.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in worse), encoding="utf-8"
    )
    config = (again / "config.yaml").read_text(encoding="utf-8")
    (again / "config.yaml").write_text(config.replace("learning_rate: 0.0002", "learning_rate: 0.0003"))
    [finding] = pretune.compare_runs([tagged, again])["findings"]
    assert "micro F1" in finding  # which decides, and not the records wholly right
    assert "no score in common" in pretune.compare_runs([tagged, classifier])["reason"]
