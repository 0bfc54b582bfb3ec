"""The verbs from the command line: settings, output, exit codes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

OPTIONS = (
    "vocabulary_size=350", "max_length=32", "model.hidden_size=32", "model.num_hidden_layers=2",
    "model.num_attention_heads=2", "training.batch_tokens=256", "training.evaluations=1",
)  # fmt: skip
Cli = Callable[..., Any]


def test_settings_are_printed_and_taken_back(cli: Cli, texts: Any, tmp_path: Path) -> None:
    words = (
        "pretrain",
        texts.corpus,
        *OPTIONS,
        "--budget",
        "2 steps",
        "training.optimizer.learning_rate=3e-4",
    )
    first = cli(*words, "--print-config")
    assert first.code == 0
    assert yaml.safe_load(first.out)["training"]["optimizer"]["learning_rate"] == 3e-4
    file = tmp_path / "settings.yaml"
    file.write_text(first.out, encoding="utf-8")
    second = cli("pretrain", "--config", file, "--print-config")
    assert second.out == first.out
    assert cli("pretrain", "--config", file, "max_length=16", "--print-config").out != first.out
    assert [path.name for path in tmp_path.iterdir()] == ["settings.yaml"]


@pytest.mark.slow
def test_one_json_object_and_nothing_else(cli: Cli, texts: Any, tmp_path: Path) -> None:
    run, tuned = tmp_path / "run", tmp_path / "tuned"
    words = ("pretrain", texts.corpus, *OPTIONS, "--budget", "2 steps", "--out", run, "--json")
    said = cli(*words)
    assert said.err == ""
    assert json.loads(said.out)["folder"] == str(run)
    again = cli(*words)  # a finished run says the same
    assert json.loads(again.out) == json.loads(said.out)
    spoken = cli(*words[:-1])
    assert "this run is complete" in spoken.err
    said = cli("finetune", run, "--train", texts.train, "--budget", "2 steps", "--out", tuned, "--json")
    assert json.loads(said.out)["labels"] == ["farm", "war"]
    said = cli("evaluate", tuned, "--data", texts.test, "--json")
    assert json.loads(said.out)["n"] == 16
    said = cli("predict", tuned, "--data", texts.test, "--out", tmp_path / "said.jsonl", "--json")
    assert json.loads(said.out)["records"] == 16
    said = cli("predict", tuned, "--text", "农夫看见牧场。", "--json")
    assert json.loads(said.out)["label"] in ("farm", "war")


@pytest.mark.slow
def test_a_rehearsal_writes_nothing(
    cli: Cli, texts: Any, bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = cli("pretrain", texts.corpus, *OPTIONS, "--dry-run", "--json")
    assert json.loads(said.out)["documents"] == 60
    said = cli("finetune", bert, "--train", texts.train, "--test", texts.test, "--dry-run")
    assert said.code == 0
    assert "labels: farm, war" in said.out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["famly=bert"], "did you mean 'family'"),
        (["training.seeed=1"], "did you mean 'training.seed'"),
        (["learning_rate=0.1"], "did you mean 'training.optimizer.learning_rate'"),
        (["training.optimizer.learning_rate=-1"], "training.optimizer.learning_rate = -1"),
        (["training.optimizer.learning_rate=.inf"], "training.optimizer.learning_rate = inf"),
        (["training.optimizer.betas=[1, 2]"], "training.optimizer.betas.0 = 1"),
        (["training.seed=-1"], "training.seed = -1"),
        (["model.hiden_size=32"], "did you mean 'hidden_size'"),
        (["model.hidden_size=wide"], "hidden_size = 'wide'"),
        (["objective_options.mask_rat=0.3"], "did you mean 'mask_rate'"),
        (["training=3"], "training = 3"),
        (["--budget", "soon"], "budget 'soon'"),
        (["--budget", "1e999 steps"], "budget '1e999 steps'"),
        (["--family", "brt"], "did you mean 'bert'"),
        (["--family", "llama", "objective=masked_lm"], "causal_lm"),
        (["objective=classification"], "masked_lm"),
        (["--language", "fr"], "fr"),
        (["vocabulary_size=3"], "vocabulary_size = 3"),
        (["--config", "nowhere.yaml"], "nowhere.yaml: no such config file"),
    ],
)
def test_a_wrong_setting_is_named(
    words: list[str], named: str, cli: Cli, texts: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = cli("pretrain", texts.corpus, *words)
    assert said.code in (1, 2)
    assert said.err.startswith("pretune: ")
    assert named in said.err
    assert said.out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("- a\n- b\n", "expected 'key: value'"),
        ("a: [1\n", "cannot be read as YAML"),
        ("1: 2\n", "there is no key '1'"),
        ("corpus: 7\n", "corpus"),
    ],
)
def test_a_wrong_settings_file_is_named(text: str, named: str, cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(text)
    said = cli("pretrain", "--config", file, "family=bert")
    assert said.code == 2
    assert named in said.err


def test_wrong_usage_ends_with_two(cli: Cli, texts: Any, tmp_path: Path) -> None:
    for words, named in (
        (["pretrian"], "pretrian"),
        (["predict", tmp_path], "--data"),
        (["predict", tmp_path, "--text", "a", "--data", texts.test], "either texts"),
        (["predict", tmp_path, "--data", texts.test], "--out"),
        (["evaluate", tmp_path], "--data"),
        (["finetune", "one", "two", "--train", texts.train], "one, two"),
        (["finetune", "--train", texts.train], "'model' is needed"),
        (["finetune", tmp_path], "'train' is needed"),
        (["pretrain"], "corpus"),
        (["pretrain", texts.corpus, "--nothing"], "--nothing"),
    ):
        said = cli(*words)
        assert said.code == 2, words
        assert named in said.err, words


@pytest.mark.slow
def test_pairs_and_bad_rows_on_the_command_line(cli: Cli, classifier: Path, tmp_path: Path) -> None:
    said = cli("predict", classifier, "--text", "The barn.", "--text-pair", "士兵看见城堡。")
    assert json.loads(said.out)["text_pair"] == "士兵看见城堡。"
    said = cli("predict", classifier, "--text", "a", "--text", "b", "--text-pair", "c")
    assert said.code == 2
    assert "give one for each" in said.err
    data = tmp_path / "data.jsonl"
    data.write_text('{"text": "a"}\n{\n{"text": "b"}\n', encoding="utf-8")
    said = cli("predict", classifier, "--data", data, "--out", "-", "--on-bad", "keep")
    assert said.code == 0
    rows = [json.loads(line) for line in said.out.splitlines()]
    assert [row.get("text") for row in rows] == ["a", None, "b"]
    assert rows[1]["line"] == 2
    said = cli("predict", classifier, "--data", data, "--out", tmp_path / "said.csv", "--on-bad", "drop")
    assert said.code == 2
