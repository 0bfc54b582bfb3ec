"""Every command that a page prints is run, top to bottom, in a folder as its reader has it.

The quickstart is run first, as the pages say; lengths of training are cut to two steps and the texts to a few
documents, everything else is as printed.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.testing
from tests.docs.test_commands import PAGES, ROOT, Command, commands_in_help, commands_on

from pretune.cli.main import app
from pretune.errors import PretuneError
from pretune.training.duration import Duration, parse_duration
from pretune.workflows.finetune import components
from pretune.workflows.pretrain import pretrain
from pretune.workflows.quickstart import quickstart

pytestmark = pytest.mark.slow
RUNNER = typer.testing.CliRunner()
SHORT = Duration(2, "steps")
DOCUMENTS = 30
"""Kept of each of the quickstart's texts."""
RECORDS = 24


def short(text: str) -> Duration:
    """Two steps, whatever the page says; what it says must still be a length."""
    parse_duration(text)
    return SHORT


@pytest.fixture(scope="module")
def brief(one_thread: None) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for workflow in (pretrain, components):
            patch.setattr(workflow, "parse_duration", short)
        patch.setattr(quickstart, "SEEDS", (0,))
        yield


@pytest.fixture(scope="module")
def after_quickstart(brief: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which `pretune quickstart` was run."""
    place = tmp_path_factory.mktemp("reader")
    texts = place / "runs" / "quickstart" / "texts"
    begin = quickstart._prepare_folder

    def begin_with_few(folder: Path, minutes: float) -> dict[str, Any]:
        plan = begin(folder, minutes)
        cut(texts.glob("*.jsonl"), DOCUMENTS)
        return plan

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setattr(quickstart, "_prepare_folder", begin_with_few)
        done = RUNNER.invoke(app, ["quickstart"])
        assert done.exit_code == 0, done.output
    cut(texts.glob("*/*.jsonl"), RECORDS)
    own_files(place, texts)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        corpus = "runs/quickstart/texts/pretrain_en.jsonl"
        done = RUNNER.invoke(app, ["pretrain", corpus, "--budget", "200 steps", "--out", "runs/my-run"])
        assert done.exit_code == 0, done.output
    (place / "runs" / "my-run" / "summary.json").unlink()  # as if it had been stopped
    return place


def cut(files: Iterable[Path], kept: int) -> None:
    """Leave so many lines of each file, from everywhere in it."""
    for file in files:
        lines = file.read_text(encoding="utf-8").splitlines()
        file.write_text("\n".join(lines[:: max(1, len(lines) // kept)][:kept]) + "\n", encoding="utf-8")


def own_files(place: Path, texts: Path) -> None:
    """What the pages call the reader's own: texts, pairs, labelled rows, a model folder."""
    for name in ("texts", "YOUR_FOLDER"):
        (place / name).mkdir()
        for language in ("en", "zh"):
            shutil.copy(texts / f"pretrain_{language}.jsonl", place / name)
    rows = [json.loads(line) for line in (texts / "topic_en" / "train.jsonl").read_text().splitlines()]
    for name in ("train", "dev", "test", "later"):
        with (place / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, ["text", "label"], extrasaction="ignore")
            table.writeheader()
            table.writerows(rows)
    shutil.copy(texts / "topic_en" / "test.jsonl", place / "new.jsonl")
    with (place / "articles.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["title", "body"], *([row["label"], row["text"]] for row in rows)])
    with (place / "pairs.jsonl").open("w", encoding="utf-8") as file:
        for row in rows:
            pair = {"source": row["text"], "target": row["text"][:40]}
            file.write(json.dumps(pair, ensure_ascii=False) + "\n")
    with (place / "notes.jsonl").open("w", encoding="utf-8") as file:
        for number, row in enumerate(rows):
            several = {"text": row["text"], "labels": ["urgent", "complaint"][: number % 3]}
            file.write(json.dumps(several, ensure_ascii=False) + "\n")
    shutil.copytree(place / "runs" / "quickstart" / "masked" / "model", place / "path" / "to" / "bert")


def copy_or_link(source: str, target: str) -> None:
    """Link weights, which are written anew and never changed where they lie: one copy serves every page."""
    if source.endswith(".safetensors"):
        os.link(source, target)
    else:
        shutil.copy2(source, target)


@pytest.fixture
def reader(after_quickstart: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that folder for one page."""
    place = tmp_path / "reader"
    shutil.copytree(after_quickstart, place, copy_function=copy_or_link)
    monkeypatch.chdir(place)
    monkeypatch.setenv("PRETUNE_HOME", str(place))
    return place


def run(command: Command, place: Path) -> None:
    if command.verb == "quickstart":
        return  # it was run to make the folder; another --minutes would begin it anew
    if command.settings:
        for word in command.words:
            if word.endswith((".yaml", ".yml")):
                (place / word).write_text(command.settings, encoding="utf-8")
    given = (place / command.standard_input).read_bytes() if command.standard_input else None
    done = RUNNER.invoke(app, list(command.words[1:]), input=given)
    ended = done.exception
    if isinstance(ended, PretuneError):
        pytest.fail(f"{' '.join(command.words)}\n{ended}")
    if ended is not None and not isinstance(ended, SystemExit):
        raise ended
    assert done.exit_code == 0, f"{' '.join(command.words)}\n{done.output}"


def on_the_english_page(page: Path) -> set[tuple[str, ...]]:
    """The commands of a Chinese page's twin, which need no second run."""
    twins = {ROOT / "README.zh-CN.md": ROOT / "README.md"}
    twin = twins.get(page, ROOT / "docs" / page.name)
    return {command.words for command in commands_on(twin)} if twin != page and twin.exists() else set()


RUN = [page for page in PAGES if {c.words for c in commands_on(page)} - on_the_english_page(page)]


@pytest.mark.parametrize("page", RUN, ids=lambda p: str(p.relative_to(ROOT)))
def test_the_commands_of_a_page_run(page: Path, reader: Path) -> None:
    for command in commands_on(page):  # all of them: one may need what another has left
        run(command, reader)


def test_the_commands_in_help_run(reader: Path) -> None:
    for command in commands_in_help():
        run(command, reader)
