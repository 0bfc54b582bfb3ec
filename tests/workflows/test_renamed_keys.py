"""Folders of before the renaming of keys: they load, or the error names the file, the key and the way out."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.conformance import small

import pretune
from pretune.config import build_settings, unknown_keys
from pretune.data.cleaning.limits import Limits
from pretune.data.cleaning.settings import CleaningSettings
from pretune.data.corpus.token_shards import Corpus
from pretune.errors import CheckpointError, ChecksumError, ConfigError, PretuneError, suggestion
from pretune.generation.settings import Decoding
from pretune.objectives import parse_objective
from pretune.registry import find
from pretune.runtime import atomic_files, state_file
from pretune.runtime.metrics_reader import read_metrics
from pretune.runtime.resumable_file import ResumableFile
from pretune.runtime.run_folder import Run
from pretune.training.callbacks.adjustments import accept_requests, replay_plan
from pretune.training.settings import TrainingSettings
from pretune.workflows.data.folder import PrepareSettings
from pretune.workflows.finetune.settings import FinetuneSettings
from pretune.workflows.pretrain.settings import PretrainSettings

PAGE = Path(__file__).parents[2] / "docs" / "renamed-keys.md"
BEFORE = Path(__file__).parent / "before"
"""A run of 20 steps, its text and cleaned text, as commit 46602de wrote them."""


@pytest.fixture
def before(tmp_path: Path) -> Path:
    return shutil.copytree(BEFORE, tmp_path / "before")


def test_a_model_of_before_is_used_as_ever(before: Path, texts: Any, tmp_path: Path) -> None:
    model = pretune.load(before / "run")
    assert len(model("the cat sat on the [MASK]")[0]) > 1
    onward = pretune.pretrain(
        {"training": {"batch_tokens": 64, "evaluations": 1}}, corpus=texts.corpus, start_from=before / "run",
        budget="1 steps", out=tmp_path / "onward",
    )  # fmt: skip
    assert onward.summary["initial_scores"]["loss"] > 0
    tuned = pretune.finetune(before / "run", train=texts.train, budget="1 steps", out=tmp_path / "tuned")
    assert tuned.summary["num_train"] > 0


@pytest.mark.parametrize(
    ("read", "message"),
    [
        (lambda folder: pretune.show_run(folder / "run"), r"summary\.json: key 'ended' .* 'stop_reason'"),
        (lambda folder: read_metrics(folder / "run/metrics.jsonl"), r"metrics\.jsonl: key 'kind' .*'type"),
        (
            lambda folder: pretune.pretrain(corpus=folder / "data", budget="1 steps", out=folder / "out"),
            r"prepared\.json: file prepared\.json is called tokenized_corpus\.json now.*prepare the text",
        ),
        (
            lambda folder: pretune.pretrain(corpus=folder / "cleaned", budget="1 steps", out=folder / "out"),
            r"prepare\.json is called cleaned\.json now, and its key 'parts' 'shards'.*or remove",
        ),
        (
            lambda folder: pretune.prepare_data(sources=folder / "run", out=folder / "cleaned"),
            r"prepare\.json is called cleaned\.json now",
        ),
    ],
    ids=["run", "metrics", "corpus", "cleaned text", "cleaned text again"],
)  # fmt: skip
def test_a_file_of_before_is_named_with_its_key(read: Any, message: str, before: Path) -> None:
    with pytest.raises(PretuneError, match=f"{message}.*") as error:
        read(before)
    assert "docs/renamed-keys.md" in str(error.value)


def test_the_index_of_a_corpus_says_the_same() -> None:
    with pytest.raises(ChecksumError, match=r"corpus\.json: key 'seal' is called 'sha256' now.*renamed-keys"):
        Corpus.open(BEFORE / "data" / "train")


def test_a_run_of_before_is_listed_with_the_reason(before: Path) -> None:
    [entry] = pretune.list_runs(before)
    assert (entry["state"], "'stop_reason'" in entry["error"]) == ("damaged", True)


def test_a_run_of_before_does_not_go_on(before: Path) -> None:
    (before / "run" / "summary.json").unlink()
    with pytest.raises(ConfigError, match=r"no key .*held_out.*training\.keep.*renamed-keys\.md"):
        Run.open(before / "run", build_settings(PretrainSettings, {}))


def test_a_checkpoint_of_before_is_refused_with_its_keys(tmp_path: Path) -> None:
    trainer = small.trainer(tmp_path / "run", "masked_lm", family="bert", steps=2, evaluations=1)
    trainer.train()
    state = json.loads((BEFORE / "run" / "checkpoints" / "state.json").read_text())["about"]
    [folder] = atomic_files.list_checkpoints(trainer.run.checkpoints_path)
    files = shutil.copytree(folder, tmp_path / "files", ignore=shutil.ignore_patterns("manifest.json"))
    atomic_files.write_folder(
        folder, lambda partial: shutil.copytree(files, partial, dirs_exist_ok=True), state
    )
    with pytest.raises(
        CheckpointError, match=r"manifest\.json: there is no key bad, factor, log_position, stale"
    ):
        small.trainer(tmp_path / "run", "masked_lm", family="bert", steps=2, evaluations=1).train()


OLD_PLAN = {
    "steps": 4, "machine": "cpu", "data": "0",
    "changes": [{"step": 1, "set": {"training.clip": 0.5}, "asked": 1}],
}  # fmt: skip


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (OLD_PLAN, r"plan\.json: key '(set|asked)' is called '(values|requested_at)' now"),
        ({**OLD_PLAN, "changes": [], "spent": 1.0}, r"plan\.json: key 'spent' is called 'seconds_spent' now"),
        (
            {**OLD_PLAN, "changes": [], "memory": {}},
            r"plan\.json: key 'memory' is called 'micro_batch_limits'",
        ),
    ],
)
def test_a_plan_of_before_is_named_with_its_key(plan: dict[str, Any], message: str, tmp_path: Path) -> None:
    run = Run.open(tmp_path / "run", TrainingSettings())
    state_file.write(run.plan_path, plan)
    with pytest.raises(CheckpointError, match=message):
        run.read_plan()
    run.plan_path.unlink()
    state_file.write(tmp_path / "plan.json", plan)
    with pytest.raises(ConfigError, match=message):
        replay_plan(run, tmp_path / "plan.json")


def test_a_request_of_before_is_refused_with_its_key(tmp_path: Path) -> None:
    run = Run.open(tmp_path / "run", TrainingSettings())
    state_file.write(run.folder / "requests" / "1.json", {"set": {"training.clip": 0.5}, "asked": 1})
    done, [refused] = accept_requests(run, TrainingSettings(), 0)
    assert not done
    assert "key 'set' is called 'values' now" in refused


def test_an_output_of_before_is_begun_anew(tmp_path: Path) -> None:
    said: list[str] = []
    old = {"identity": {"a": 1}, "bytes": 3, "content": "0", "state": {"answered": 1}}
    (tmp_path / "out.jsonl.partial").write_text("abc")
    state_file.write(tmp_path / "out.jsonl.partial.json", old)
    ResumableFile(tmp_path / "out.jsonl", {"a": 1}, said.append).close()
    assert any("'content' is called 'content_sha256' now" in line for line in said)


def rows_of(section: str) -> Iterator[tuple[str, str, str]]:
    """(where, old, new) of a table of the page, a name each."""
    text = PAGE.read_text(encoding="utf-8").partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        old, new = (re.findall(r"`([^`]+)`", cell) for cell in cells[1:3]) if len(cells) == 3 else ((), ())
        for pair in zip(old, new, strict=False):
            yield (cells[0], *pair)


def models_of(where: str) -> list[Any]:
    """The settings that a row of the page speaks of."""
    found: dict[str, Any] = {
        "pretrain": PretrainSettings, "finetune": FinetuneSettings, "training": TrainingSettings,
        "limits": Limits, "cleaning": CleaningSettings, "Decoding": Decoding, "data prepare": PrepareSettings,
        "training.schedule": type(TrainingSettings().schedule),
    }  # fmt: skip
    if where.startswith("`model` of "):
        return [find("families", name).Config for name in where.removeprefix("`model` of ").split(", ")]
    return [found[name] for name in re.findall(r"`([^`]+)`", where)[:1] or [where] if name in found]


SETTINGS_ROWS = [
    row
    for row in rows_of("Settings and options")
    if models_of(row[0]) and "-" not in row[1] and "N" not in row[1]
]


OBJECTIVE_ROWS = [
    (name, old, new)
    for where, old, new in rows_of("Settings and options")
    if where.startswith("options of ")
    for name in where.removeprefix("options of ").split(", ")
]


@pytest.mark.parametrize(("name", "old", "new"), OBJECTIVE_ROWS)
def test_the_page_names_options_of_today(name: str, old: str, new: str) -> None:
    said = []
    for key in (old, new):
        try:
            parse_objective(name).check_options({key: 0.5}, "objective_options")
        except ConfigError as error:  # of the new one its value, where it is no share
            said += [line for line in str(error).splitlines() if "there is no key" in line]
    assert [f"'{old}'" in line for line in said] == [True]


@pytest.mark.parametrize("row", SETTINGS_ROWS, ids=lambda row: row[1])
def test_the_page_names_settings_of_today(row: tuple[str, str, str]) -> None:
    where, old, new = row
    for model in models_of(where):
        if old in ("keep", "identity") and where.startswith("`cleaning"):  # a value
            continue
        assert unknown_keys(model, {old: 1, new: 1}) == [old]


def test_the_page_names_all_settings_that_a_run_of_before_has() -> None:
    listed = {old for _, old, _ in (*SETTINGS_ROWS, *OBJECTIVE_ROWS)}
    assert len(listed) > 40
    assert {"held_out", "keep", "final", "shape", "rate", "tokenizer_kind", "health_every"} <= listed


@pytest.mark.parametrize(
    ("name", "known", "said"),
    [
        ("rate", ["mean", "mask_rate"], "did you mean 'mask_rate'"),
        ("final", ["name", "final_factor"], "did you mean 'final_factor'"),
        ("hiden_size", ["hidden_size", "size_of_hidden"], "did you mean 'hidden_size'"),
        ("keep", ["name", "seed"], "there are: name, seed"),
    ],
)
def test_a_name_within_a_longer_one_is_near(name: str, known: list[str], said: str) -> None:
    assert said in suggestion(name, known)
