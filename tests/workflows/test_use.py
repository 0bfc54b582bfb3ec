"""Generate, score and export, from Python and the command line."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import pretune
from pretune.errors import CheckpointError, ConfigError, DataError, UsageError
from pretune.generation.sampling import Sampling
from pretune.workflows import export as exporting
from pretune.workflows.generate import generate, generate_file
from pretune.workflows.score import score_file

Cli = Callable[..., Any]
RECORDS = [
    {"id": 7, "text": "The soldier"},
    {"text": "士兵看见"},
    {"text": "   "},
    {"text": "The castle saw the"},
]


@pytest.fixture
def records(tmp_path: Path) -> Path:
    path = tmp_path / "records.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in RECORDS) + "\n", encoding="utf-8")
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


# -- generate -------------------------------------------------------------------------------------


def test_the_prompts_of_a_file_are_continued(llama: Path, records: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "written.jsonl"
    options = {"max_new_tokens": 6, "num_return_sequences": 2, "seed": 3}
    summary = generate_file(llama, data=records, out=out, options=options)
    assert (summary["records"], summary["bad"]) == (3, 1)
    rows = read(out)
    assert [(row.get("id"), row["text"]) for row in rows] == [
        (7, "The soldier"), (None, "士兵看见"), (None, "The castle saw the")
    ]  # fmt: skip
    alone = generate(llama, ["士兵看见"], options)[0]
    assert [one["text"] for one in rows[1]["continuations"]] == [one.text for one in alone]
    assert not list(out.parent.glob("*.partial"))


def test_a_file_without_a_usable_prompt_leaves_nothing(llama: Path, tmp_path: Path) -> None:
    data = tmp_path / "empty.jsonl"
    data.write_text('{"text": ""}\n')
    with pytest.raises(DataError, match=r"empty.jsonl:1: 'text' is empty"):
        generate_file(llama, data=data, out=tmp_path / "out.jsonl")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty.jsonl"]


def test_what_is_not_given_is_the_models_own(llama: Path) -> None:
    model = pretune.load(llama)
    default = model.generate("The soldier", max_new_tokens=12, seed=2)
    assert default == model.generate("The soldier", max_new_tokens=12, seed=2, sampling=Sampling())
    assert generate(model, ["The soldier"], {"max_new_tokens": 12, "seed": 2})[0][0].text == default
    cold = generate(model, ["The soldier"], {"max_new_tokens": 12, "temperature": 0.0})[0][0].text
    assert cold == model.generate("The soldier", max_new_tokens=12, sampling=Sampling(temperature=0))
    with pytest.raises(ConfigError, match="did you mean 'seed'"):
        generate(model, ["a"], {"seeed": 1})


def test_generate_from_the_command_line(cli: Cli, llama: Path, records: Path, tmp_path: Path) -> None:
    words = ("generate", llama, "The soldier", "--max-new-tokens", 12, "--seed", 2)
    plain = cli(*words)
    assert plain.code == 0
    assert plain.out.startswith("The soldier")
    streamed = cli(*words, "--stream")
    assert (streamed.code, streamed.out) == (0, plain.out)
    told = json.loads(cli(*words, "士兵", "--num-return-sequences", 2, "--json").out)
    assert [answer["text"] for answer in told["prompts"]] == ["The soldier", "士兵"]
    assert "The soldier" + told["prompts"][0]["continuations"][0]["text"] == plain.out.rstrip("\n")
    beams = cli("generate", llama, "士兵", "--num-beams", 3, "--num-return-sequences", 2, "--json")
    scores = [one["score"] for one in json.loads(beams.out)["prompts"][0]["continuations"]]
    assert scores == sorted(scores, reverse=True)
    out = tmp_path / "written.jsonl"
    said = cli("generate", llama, "--data", records, "--out", out, "--stop", "。", "--json")
    assert json.loads(said.out)["records"] == 3
    assert all("。" not in row["continuations"][0]["text"] for row in read(out))


def test_wrong_usage_of_generate_is_named(cli: Cli, llama: Path, bert: Path, records: Path) -> None:
    for words, named in (
        ((llama,), "give either texts"),
        ((llama, "a", "--data", records), "give either texts"),
        ((llama, "--data", records), "go together"),
        ((llama, "a", "b", "--stream"), "--stream is for one text"),
        ((llama, "a", "--top-p", 1.5), "top_p = 1.5"),
        ((llama, "a", "--temperature", 0, "--num-return-sequences", 2), "same text each time"),
        ((llama, "a", "--num-beams", 2, "--temperature", 0.5), "leave temperature out"),
        ((llama, "a", "--stop", ""), "empty string"),
        ((bert, "a"), "'masked_lm' head"),
    ):
        said = cli("generate", *words)
        assert said.code == 2, words
        assert named in said.err, (words, said.err)
        assert said.out == ""


# -- score ----------------------------------------------------------------------------------------


def test_the_texts_of_a_file_are_scored(llama: Path, records: Path, tmp_path: Path) -> None:
    out = tmp_path / "scores.jsonl"
    summary = score_file(llama, data=records, out=out, tokens=True)
    assert (summary["records"], summary["bad"]) == (3, 1)
    rows = read(out)
    model = pretune.load(llama)
    for row in rows:
        score = model.score(row["text"])
        assert row["nll"] == pytest.approx(score.nll, abs=1e-4)
        assert [token for token, _ in row["log_probabilities"]] == [token for token, _ in score.tokens]
    assert summary["nll"] == pytest.approx(sum(row["nll"] for row in rows), abs=1e-3)
    assert summary["tokens"] == sum(row["tokens"] for row in rows)


def test_what_is_wrong_for_all_is_said_before_a_record_is_read(
    classifier: Path, llama: Path, tmp_path: Path
) -> None:
    for model, settings, fault in (
        (classifier, {}, "classification"),
        (llama, {"stride": 99}, "from 1 to 32"),
    ):
        with pytest.raises(UsageError, match=fault):
            score_file(model, data=tmp_path / "none.jsonl", out=tmp_path / "out.jsonl", **settings)


@pytest.mark.parametrize("kind", ["llama", "bert"])
def test_score_from_the_command_line(cli: Cli, kind: str, request: pytest.FixtureRequest) -> None:
    run = request.getfixturevalue(kind)
    texts = ("The soldier saw the castle in year 7.", "saw 7 castle year", "士兵看见城堡。")
    said = json.loads(cli("score", run, *texts, "--json").out)
    nats = [row["nll"] for row in said["scores"]]
    assert said["most_probable"] == nats.index(min(nats))
    shown = cli("score", run, "--text", texts[0], texts[1], "--tokens")
    assert shown.code == 0
    assert "most probable: text" in shown.out
    measure = {"llama": "log-probability", "bert": "pseudo-log-likelihood"}[kind]
    assert measure in shown.out
    assert measure == said["scores"][0]["metric"]
    assert len(shown.out.splitlines()) > 8
    assert cli("score", run).code == 2
    assert cli("score", run, "--text", "a", "--data", "b").code == 2


# -- export ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["llama", "bert", "classifier"])
def test_an_exported_folder_says_the_same(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    run, out = request.getfixturevalue(kind), tmp_path / "exported"
    summary = pretune.export(run, out=out)
    assert summary["differences"]["pretune"] == 0
    assert 0 <= summary["differences"]["transformers"] < 1e-4
    names = {path.name for path in out.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md", "manifest.json"} <= names
    assert ("generation_config.json" in names) == (kind == "llama")
    reader = transformers.AutoTokenizer.from_pretrained(out)
    network = {
        "llama": transformers.AutoModelForCausalLM,
        "bert": transformers.AutoModelForMaskedLM,
        "classifier": transformers.AutoModelForSequenceClassification,
    }[kind].from_pretrained(out)
    with torch.inference_mode():
        assert torch.isfinite(network(**reader("士兵 saw", return_tensors="pt")).logits).all()
    model = pretune.load(out)  # the manifest holds
    assert model.max_length == pretune.load(run).max_length


def test_export_without_transformers_says_so(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name, *a: None if name == "transformers" else found(name, *a)
    )
    said = cli("export", llama, "--out", tmp_path / "out", "--text", "士兵")
    assert said.code == 0
    assert "only pretune has read the folder back" in said.err
    assert "transformers" not in said.out


def test_export_from_the_command_line(cli: Cli, llama: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    said = cli("export", llama, "--out", out, "--json")
    assert json.loads(said.out)["format"] == "hugging-face"
    again = cli("export", llama, "--out", out)
    assert again.code == 2
    assert "is there already" in again.err
    (out / "notes.txt").write_text("mine")
    replaced = cli("export", llama, "--out", out, "--overwrite")
    assert replaced.code == 0, replaced.err
    assert "files of the same names are replaced, others stay" in replaced.err
    assert (out / "notes.txt").read_text() == "mine"
    pretune.load(out)
    wrong = cli("export", llama, "--out", tmp_path / "other", "--format", "huggingface")
    assert wrong.code == 2
    assert "did you mean 'hugging-face'" in wrong.err
    assert not (tmp_path / "other").exists()
    spoken = cli("export", llama, "--out", tmp_path / "spoken")
    assert "transformers" in spoken.out


def test_a_folder_that_says_something_else_is_not_kept(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = pretune.load(llama)
    write = model.write

    def spoilt(folder: Path) -> None:
        with torch.no_grad():
            model.network.norm.weight.mul_(1.5)
        write(folder)
        with torch.no_grad():
            model.network.norm.weight.div_(1.5)

    monkeypatch.setattr(model, "write", spoilt)
    with pytest.raises(CheckpointError, match="its logits differ"):
        pretune.export(model, out=tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_formats_are_those_that_there_are() -> None:
    assert list(exporting.FORMATS) == ["hugging-face"]


def test_a_model_is_saved_over_nothing_of_the_users(llama: Path, tmp_path: Path) -> None:
    model, folder, file = pretune.load(llama), tmp_path / "mine", tmp_path / "file"
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work")
    file.write_text("mine")
    for place in (folder, file):
        with pytest.raises(UsageError, match=f"{place}: is "):
            model.save(place)
    assert model.path == llama / "model"
    assert [path.name for path in folder.iterdir()] == ["thesis.txt"]
    assert file.read_text() == "mine"
    model.save(folder, overwrite=True)
    model.save(tmp_path / "new")
    model.save(tmp_path / "new")  # as pretune wrote it
    assert (folder / "thesis.txt").read_text() == "years of work"
    for place in (folder, tmp_path / "new"):
        assert pretune.load(place).fingerprint == model.fingerprint
    assert not list(tmp_path.glob(".*"))
