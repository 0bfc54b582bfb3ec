"""Columns and encodings through the verbs: named, kept with the model, and used where a file has them."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import pretune
from pretune.errors import CheckpointError, ConfigError, DataError
from pretune.model.model import Model

Cli = Callable[..., Any]
QUICK = ("--budget", "1 step", "training.evaluations=1", "baselines=false")


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def table(path: Path, source: Path, *names: str, delimiter: str = ",", encoding: str = "utf-8") -> Path:
    """The labelled records of ``source`` under other names; the first two are text and label."""
    with path.open("w", newline="", encoding=encoding, errors="replace") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(names)
        for row in rows(source):
            writer.writerow([row["text"], row["label"], *["x"] * (len(names) - 2)])
    return path


@pytest.fixture(scope="module")
def stars(bert: Path, texts: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier that learnt from a table of ``Wording;Stars``, both of which must be named."""
    folder = tmp_path_factory.mktemp("stars")
    train = table(folder / "train.csv", texts.train, "Wording", "Points", delimiter=";")
    return pretune.finetune(
        bert, train=train, columns={"text": "Wording", "label": "Points"}, budget="1 step",
        training={"evaluations": 1}, out=folder / "run",
    ).folder  # fmt: skip


@pytest.mark.slow
def test_named_columns_stay_with_the_model(stars: Path, texts: Any, tmp_path: Path, cli: Cli) -> None:
    assert Model.load(stars).metadata["columns"] == {"text": "Wording", "label": "Points"}
    test = table(tmp_path / "test.csv", texts.test, "Wording", "Points", "text")
    scored = pretune.evaluate(stars, data=test)
    plain = pretune.evaluate(stars, data=texts.test)
    assert scored["scores"] == plain["scores"]
    out = tmp_path / "out.jsonl"
    said = cli("predict", stars, "--data", test, "--out", out)
    assert said.code == 0
    assert "text is read from column 'Wording'" in said.err
    assert [row["text"] for row in rows(out)] == [row["text"] for row in rows(texts.test)]
    renamed = table(tmp_path / "renamed.csv", texts.test, "said", "points")
    assert cli("predict", stars, "--data", renamed, "--out", tmp_path / "other.jsonl").code == 1
    wrong = cli("evaluate", stars, "--data", renamed, "--text-column", "said", "--label-column", "stars")
    assert (wrong.code, "no column 'stars'" in wrong.err) == (1, True)
    right = cli(
        "evaluate", stars, "--data", renamed, "--text-column", "said", "--label-column", "points", "--json"
    )
    assert json.loads(right.out)["scores"] == plain["scores"]


@pytest.mark.slow
def test_the_only_usual_names_are_taken_and_said(bert: Path, texts: Any, tmp_path: Path, cli: Cli) -> None:
    train = table(tmp_path / "train.csv", texts.train, "review", "stars")
    said = cli("finetune", bert, "--train", train, *QUICK, "--out", tmp_path / "run")
    assert said.code == 0
    assert "text is read from column 'review', label from 'stars'" in said.err
    unlabelled = tmp_path / "new.csv"
    unlabelled.write_text("review,comment\nA soldier saw a castle.,nothing\n")  # the model knows which
    assert pretune.predict(tmp_path / "run", data=unlabelled, out=tmp_path / "a.jsonl")["records"] == 1
    dry = cli("finetune", bert, "--train", train, "--dry-run")
    assert "text is read from column 'review'" in dry.err


def test_a_dry_run_says_which_columns_there_are(bert: Path, texts: Any, tmp_path: Path, cli: Cli) -> None:
    train = table(tmp_path / "train.csv", texts.train, "title", "class", "body")
    said = cli("finetune", bert, "--train", train, "--dry-run")
    assert said.code == 1
    assert (
        "'title' or 'body' could be it; there are: title, class, body; name it with --text-column" in said.err
    )
    said = cli("finetune", bert, "--train", train, "--text-column", "title", "--dry-run", "--json")
    assert json.loads(said.out)["num_train"] > 40
    said = cli("finetune", bert, "--train", train, "--text-column", "title", "--print-config")
    assert "columns:\n  text: title\n" in said.out


def test_columns_of_pretraining_and_cleaning(texts: Any, tmp_path: Path, cli: Cli) -> None:
    corpus = table(tmp_path / "a.csv", texts.train, "body", "title")
    assert "--text-column" in cli("pretrain", corpus, "--dry-run").err
    assert "documents: 60" in cli("pretrain", corpus, "--text-column", "body", "--dry-run").out
    pairs = ["objective=sequence_to_sequence", "--dry-run"]
    said = cli("pretrain", corpus, *pairs, "--source-column", "title", "--target-column", "body")
    assert "documents: 60" in said.out
    said = cli("pretrain", corpus, *pairs, "--text-column", "title")
    assert "columns.text = 'title': the fields are source, target" in said.err
    found = cli("data", "inspect", corpus, "--text-column", "body")
    assert found.out.startswith("60 documents")
    said = cli(
        "data", "prepare", corpus, "--processes", 1, "--text-column", "body", "--out", tmp_path / "clean"
    )
    assert "60 documents kept" in said.out
    with pytest.raises(ConfigError, match=r"columns\.label = 'title': the fields are text"):
        pretune.inspect_data(corpus, columns={"label": "title"})


def test_an_encoding_that_is_given_is_read_by_every_verb(bert: Path, tmp_path: Path, cli: Cli) -> None:
    file = tmp_path / "a.csv"
    lines = [f"Noël à l'été numéro {n} déjà,{'ab'[n % 2]}" for n in range(60)]
    file.write_text("text,label\n" + "\n".join(lines), encoding="cp1252")
    for words in (
        ("finetune", bert, "--train", file, "--dry-run"),
        ("pretrain", file, "--dry-run"),
        ("data", "prepare", file, "--processes", 1, "--out", tmp_path / "clean"),
    ):
        refused = cli(*words)
        assert (refused.code, "--encoding cp1252" in refused.err) == (1, True)
        said = cli(*words, "--encoding", "cp1252")
        assert said.code == 0
        assert "read as CP1252" in said.err
    assert "no text in it" in cli("pretrain", file, "--dry-run", "--encoding", "cp1253x").err


def test_looking_never_refuses(tmp_path: Path, cli: Cli) -> None:
    (tmp_path / "a.csv").write_text("text,label\n" + "Déjà vu,a\n" * 400, encoding="cp1252")
    alone = cli("data", "inspect", tmp_path / "a.csv")
    assert alone.code == 0
    assert alone.out.startswith("0 documents in 1 files")
    assert "1 bad records or files; the other verbs refuse so many:" in alone.out
    assert "--encoding cp1252" in alone.out
    (tmp_path / "b.jsonl").write_text('{"text": "good"}\n' * 5 + "{\n" * 50)
    (tmp_path / "c.csv").write_text("wording\na\n")
    found = pretune.inspect_data(tmp_path)
    assert (found["documents"], found["reading"]["bad"]) == (5, 52)
    assert found["reading"]["too_many_bad"]
    read = pretune.inspect_data(tmp_path / "a.csv", encoding="cp1252")
    assert (read["documents"], read["reading"]["bad"], read["reading"]["too_many_bad"]) == (400, 0, False)
    with pytest.raises(DataError, match="no such file"):
        pretune.inspect_data(tmp_path / "nothing")


def test_what_is_not_read_is_named_with_its_tool(tmp_path: Path, cli: Cli) -> None:
    for name in ("a.docx", "b.docx", "c.pdf", "d.epub", "e.png", "f", ".hidden", "sub/g.docx"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"PK")
    alone = cli("pretrain", tmp_path, "--dry-run")
    assert alone.code == 1
    assert "3 .docx (pandoc FILE -t plain -o FILE.txt), 1 .epub (pandoc" in alone.err
    (tmp_path / "a.txt").write_text("A text of some words.\n")
    listed = (
        "not read: 3 .docx (pandoc FILE -t plain -o FILE.txt), 1 .epub (pandoc FILE -t plain -o FILE.txt), "
    )
    listed += "1 .pdf (pdftotext FILE FILE.txt), 1 without a suffix, 1 .png"
    for words in (
        ("pretrain", tmp_path, "--dry-run"),
        ("data", "prepare", tmp_path, "--processes", 1, "--out", tmp_path / "out"),
    ):
        assert listed in cli(*words).err
    assert listed in cli("data", "inspect", tmp_path).out
    named = cli("pretrain", tmp_path / "a.docx", "--dry-run")
    assert "convert it first: `pandoc FILE -t plain -o FILE.txt`" in named.err


def test_what_was_skipped_is_named(tmp_path: Path, cli: Cli) -> None:
    file = tmp_path / "a.jsonl"
    lines = [json.dumps({"text": f"The tenant pays the rent, sentence {n}."}) for n in range(30)]
    file.write_text("\n".join([*lines, '{"text": null}', '{"text": ["a"]}', '{"txt": "a"}']))
    prepare = ("data", "prepare", file, "--processes", 1)
    for words in (
        ("pretrain", file, "--dry-run"), (*prepare, "--out", tmp_path / "out"), (*prepare, "--dry-run"),
    ):  # fmt: skip
        said = cli(*words)
        assert said.code == 0
        assert "a.jsonl:32: 'text' is list, not text" in said.err
    assert json.loads(cli("pretrain", file, "--dry-run", "--json").out)["bad"] == 3


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
def test_a_pipe_is_not_called_empty(tmp_path: Path, cli: Cli) -> None:
    os.mkfifo(tmp_path / "a.jsonl")
    said = cli("pretrain", tmp_path / "a.jsonl", "--dry-run")
    assert "a.jsonl: is a pipe, which can be read once only" in said.err
    assert "give - and pipe it in" in said.err
    (tmp_path / "b.txt").write_text("A text.")
    assert pretune.inspect_data(tmp_path)["documents"] == 1


def test_columns_of_a_foreign_model_folder_are_checked(bert: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(bert / "model", folder)
    (folder / "manifest.json").unlink()
    for columns in ([1], {"text": 3}, "text"):
        about = json.loads((folder / "pretune.json").read_text()) | {"columns": columns}
        (folder / "pretune.json").write_text(json.dumps(about))
        with pytest.raises(CheckpointError, match=r"pretune\.json: columns must map"):
            Model.load(folder)
