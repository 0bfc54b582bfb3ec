"""A run that is stopped, killed or out of disk goes on by the same command, to the same weights."""

from __future__ import annotations

import json
import os
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.conftest import SETTINGS

import pretune
from pretune.data.corpus import build as corpus_module
from pretune.errors import CheckpointError, PretuneError
from pretune.runtime import atomic_files
from pretune.runtime.progress import NullReporter
from pretune.training import trainer

pytestmark = pytest.mark.slow
WEIGHTS = Path("model") / "model.safetensors"
SOURCE = str(Path(pretune.__file__).parents[1])


def command(texts: Any, out: Path) -> list[str]:
    sizes = ("hidden_size=32", "num_hidden_layers=2", "num_attention_heads=2", "hidden_dropout_prob=0.1")
    return [
        "pretrain", str(texts.corpus), "--family", "bert", "--out", str(out), "--budget", "60 steps",
        "vocabulary_size=350",
        "max_length=32", *(f"model.{size}" for size in sizes), "training.batch_tokens=512",
        "training.evaluations=2", "training.save_every=10",
    ]  # fmt: skip


def start(words: list[str]) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": SOURCE}
    return subprocess.Popen(
        [sys.executable, "-m", "pretune.cli.main", *words],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def wait_for_steps(process: subprocess.Popen[str], run: Path, count: int) -> None:
    for _ in range(12_000):
        log = run / "metrics.jsonl"
        if log.exists() and log.read_bytes().count(b"\n") >= count:
            return
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.005)
    raise AssertionError("no step was made in a minute")


@pytest.fixture(scope="module")
def whole(texts: Any, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The weights of the run that nothing disturbed, made in a process of its own."""
    out = tmp_path_factory.mktemp("whole") / "run"
    process = start(command(texts, out))
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return (out / WEIGHTS).read_bytes()


@pytest.mark.alone
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_a_checkpoint_from_which_the_same_command_goes_on(
    number: signal.Signals, whole: bytes, texts: Any, tmp_path: Path, cli: Callable[..., Any]
) -> None:
    run = tmp_path / "run"
    process = start(command(texts, run))
    wait_for_steps(process, run, 7)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 3, err
    assert "run the same command to go on" in err
    assert err.rstrip().endswith(shlex.join(["pretune", *command(texts, tmp_path / "run")])), "as it is typed"
    assert "Traceback" not in err
    assert out == ""
    kept = atomic_files.find_newest_valid(run / "checkpoints", print)
    assert kept is not None
    assert not (run / "model").exists()
    assert not (run / "summary.json").exists()
    again = cli(*command(texts, run))
    assert again.code == 0
    assert f"going on from step {int(kept.name.removeprefix('step-'))}" in again.err
    assert (run / WEIGHTS).read_bytes() == whole


@pytest.mark.alone
def test_a_killed_run_goes_on(whole: bytes, texts: Any, tmp_path: Path, cli: Callable[..., Any]) -> None:
    run = tmp_path / "run"
    process = start(command(texts, run))
    wait_for_steps(process, run, 14)
    process.kill()
    process.communicate(timeout=60)
    assert not (run / "summary.json").exists()
    said = cli(*command(texts, run))
    assert said.code == 0
    assert "going on from step" in said.err
    assert (run / WEIGHTS).read_bytes() == whole
    steps = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in steps if row["type"] == "step"] == list(range(1, 61))


@pytest.mark.parametrize("which", ["train", "validation"])
def test_a_preparation_that_is_interrupted_is_done_again(
    which: str, texts: Any, tmp_path: Path, cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, write = tmp_path / "run", corpus_module.write_corpus
    words = [*command(texts, run), "--budget", "2 steps"]

    def interrupted(documents: Iterator[str], tokenizer: Any, folder: Path, **joint: Any) -> Any:
        if folder.name == which:
            raise KeyboardInterrupt
        return write(documents, tokenizer, folder, **joint)

    monkeypatch.setattr(corpus_module, "write_corpus", interrupted)
    said = cli(*words)
    assert said.code == 130
    assert "run the same command to go on" in said.err
    assert not (run / "data").exists()
    monkeypatch.undo()
    # What another version may have left, which says of no text that it was made from it.
    shutil.rmtree(run / "data.partial")
    (run / "data.partial" / "train").mkdir(parents=True)
    (run / "data" / "train").mkdir(parents=True)
    (run / "data" / "train" / "tokens-00000.bin").write_bytes(b"half")
    sys.argv = ["pretune"]
    assert pretune.pretrain(saved(run), out=run).summary["steps"] == 2
    assert not (run / "data.partial").exists()


@pytest.mark.parametrize("changed", [False, True])
def test_an_interrupted_preparation_goes_on_with_its_finished_parts(
    changed: bool, texts: Any, tmp_path: Path, cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """But not with those of a text that has changed since."""
    run, write = tmp_path / "run", corpus_module.write_corpus
    corpus = tmp_path / "corpus.jsonl"
    shutil.copy(texts.corpus, corpus)
    words = [str(corpus) if word == str(texts.corpus) else word for word in command(texts, run)]

    def interrupted(documents: Iterator[str], tokenizer: Any, folder: Path, **joint: Any) -> Any:
        if folder.name == "validation":
            raise KeyboardInterrupt
        return write(documents, tokenizer, folder, **joint)

    monkeypatch.setattr(corpus_module, "write_corpus", interrupted)
    assert cli(*words, "--budget", "2 steps").code == 130
    monkeypatch.undo()
    finished = (run / "data.partial" / "train").stat().st_ino
    if changed:
        with corpus.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"text": "The castle saw a shepherd who was not there before."}) + "\n")
    said = cli(*words, "--budget", "2 steps")
    assert said.code == 0
    assert ("training a tokenizer" in said.err) is changed
    assert ((run / "data" / "train").stat().st_ino != finished) is changed
    fresh = tmp_path / "fresh"
    again = [str(fresh) if word == str(run) else word for word in words]
    assert cli(*again, "--budget", "2 steps").code == 0
    for name in ("data/tokenized_corpus.json", "data/train/corpus.json", "model/model.safetensors"):
        assert (run / name).read_bytes() == (fresh / name).read_bytes()
    assert {p.name for p in (run / "data").iterdir()} == {p.name for p in (fresh / "data").iterdir()}


def saved(run: Path) -> dict[str, Any]:
    settings: dict[str, Any] = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    return settings


@pytest.fixture
def small_disk() -> Iterator[Callable[[int], None]]:
    """Files cannot grow beyond a size: a disk that is full, as the system calls see it."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_at_the_end_keeps_the_checkpoints(
    texts: Any,
    tmp_path: Path,
    cli: Callable[..., Any],
    small_disk: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run, write = tmp_path / "run", atomic_files.write_folder
    words = [*command(texts, run), "--budget", "4 steps"]

    def full(folder: Path, *rest: Any, **named: Any) -> None:
        if folder.name == "model":
            small_disk(60_000)
        write(folder, *rest, **named)

    monkeypatch.setattr(atomic_files, "write_folder", full)
    said = cli(*words)
    small_disk(resource.RLIM_INFINITY)
    monkeypatch.setattr(atomic_files, "write_folder", write)
    assert said.code == 1
    assert [line for line in said.err.splitlines() if line.startswith("pretune:")] == [
        said.err.splitlines()[-1]
    ]
    assert f"{run / 'model'}: could not be saved" in said.err
    assert not [path for path in run.iterdir() if path.name in ("model", "model.partial", "summary.json")]
    for checkpoint in atomic_files.list_checkpoints(run / "checkpoints"):
        pretune.load(checkpoint)
    with pytest.raises(CheckpointError, match="no finished model yet"):
        pretune.load(run)
    assert cli(*words).code == 0
    pretune.load(run)


def test_a_full_disk_in_preparation_leaves_nothing(
    texts: Any, tmp_path: Path, cli: Callable[..., Any], small_disk: Callable[[int], None]
) -> None:
    run = tmp_path / "run"
    words = [*command(texts, run), "--budget", "2 steps"]
    small_disk(4_000)
    said = cli(*words)
    small_disk(resource.RLIM_INFINITY)
    assert said.code == 1
    assert "could not be written" in said.err
    assert not run.exists()
    assert cli(*words).code == 0


def test_weights_that_diverge_are_no_model(texts: Any, tmp_path: Path, cli: Callable[..., Any]) -> None:
    run = tmp_path / "run"
    said = cli(*command(texts, run), "--budget", "1 step", "training.optimizer.learning_rate=1e30")
    assert said.code == 1
    assert "lower training.optimizer.learning_rate" in said.err
    assert not (run / "model").exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [("plan.json", "[]"), ("plan.json", "{"), ("summary.json", "{"), ("config.yaml", "- a")],
)
def test_a_damaged_file_of_a_run_is_named_with_the_way_out(
    name: str, content: str, bert: Path, tmp_path: Path
) -> None:
    run, settings = stopped_at_the_end(bert, tmp_path / "run")
    (run / name).write_text(content)
    with pytest.raises(PretuneError, match=rf"{name}: .*(remove|another folder)"):
        pretune.pretrain(settings, out=run)


def test_a_plan_that_is_gone_is_put_back_from_the_newest_checkpoint(bert: Path, tmp_path: Path) -> None:
    run, settings = stopped_at_the_end(bert, tmp_path / "run")
    plan = (run / "plan.json").read_bytes()
    (run / "plan.json").unlink()
    notes = Notes()
    assert pretune.pretrain(settings, out=run, reporter=notes).summary["steps"] == 8
    assert "plan.json: was gone; put back" in notes.text
    assert (run / "plan.json").read_bytes() == plan


@pytest.mark.parametrize(
    ("name", "content"),
    [("tokenized_corpus.json", b"{}"), ("train/corpus.json", b"{}"), ("train/tokens-00000.bin", b"cut"),
     ("train/tokens-00000.bin", None), ("validation/tokens-00000.bin", None),
     ("validation/word_starts-00000.bin", None), ("train/documents.bin", None),
     ("tokenizer/tokenizer.json", None), ("tokenizer/tokenizer_config.json", None),
     ("text_fingerprints.safetensors", None)],
)  # fmt: skip
def test_prepared_text_that_is_damaged_is_made_anew_from_its_source(
    name: str, content: bytes | None, bert: Path, tmp_path: Path
) -> None:
    """None: a flipped bit."""
    run, settings = stopped_at_the_end(bert, tmp_path / "run")
    (run / "data" / "notes.txt").write_text("of the user's")
    path, log = run / "data" / name, rows(run)
    whole = path.read_bytes()
    path.write_bytes(flipped(whole) if content is None else content)
    notes = Notes()
    pretune.pretrain(settings, out=run, reporter=notes)
    assert f"{name}: " in notes.text
    assert "prepared anew" in notes.text
    assert path.read_bytes() == whole
    assert (run / WEIGHTS).read_bytes() == (bert / WEIGHTS).read_bytes()
    assert rows(run) == log
    assert (run / "data" / "notes.txt").read_text() == "of the user's"


def test_damage_is_an_error_where_the_source_is_gone(bert: Path, texts: Any, tmp_path: Path) -> None:
    run, settings = stopped_at_the_end(bert, tmp_path / "run")
    path = run / "data" / "train" / "tokens-00000.bin"
    path.write_bytes(flipped(path.read_bytes()))
    gone = settings | {"corpus": [str(tmp_path / "gone.jsonl")]}
    (run / "config.yaml").write_text(yaml.safe_dump(gone))
    with pytest.raises(PretuneError, match=r"gone\.jsonl"):
        pretune.pretrain(gone, out=run)
    assert path.exists()


@pytest.mark.parametrize("damage", ["gone", "cut inside a line", "no UTF-8", "a flipped digit"])
def test_a_damaged_log_is_put_back(damage: str, bert: Path, tmp_path: Path) -> None:
    run, settings = stopped_at_the_end(bert, tmp_path / "run")
    path, log = run / "metrics.jsonl", rows(run)
    whole = path.read_bytes()
    damaged = {
        "gone": None, "cut inside a line": whole[: len(whole) // 2], "no UTF-8": b"\xff" + whole[1:],
        "a flipped digit": flipped(whole),
    }[damage]  # fmt: skip
    path.unlink() if damaged is None else path.write_bytes(damaged)
    notes = Notes()
    pretune.pretrain(settings, out=run, reporter=notes)
    assert "put back as the checkpoint keeps it" in notes.text
    assert rows(run) == log
    assert (run / WEIGHTS).read_bytes() == (bert / WEIGHTS).read_bytes()


@pytest.mark.parametrize("damage", ["gone", "no weights", "flipped weights", "no manifest"])
def test_a_finished_run_whose_model_is_damaged_has_it_put_back(
    damage: str, bert: Path, tmp_path: Path
) -> None:
    run, model = tmp_path / "run", tmp_path / "run" / "model"
    shutil.copytree(bert, run)
    (model / "README.md").write_text("edited")
    path = run / WEIGHTS
    {
        "gone": lambda: shutil.rmtree(model),
        "no weights": path.unlink,
        "flipped weights": lambda: path.write_bytes(flipped(path.read_bytes())),
        "no manifest": (model / "manifest.json").unlink,
    }[damage]()
    notes = Notes()
    pretune.pretrain(saved(run), out=run, reporter=notes)
    assert f"{model}" in notes.text
    assert path.read_bytes() == (bert / WEIGHTS).read_bytes()
    atomic_files.verify_folder(model, exclude=("README.md",))
    assert ("edited" in (model / "README.md").read_text()) == (damage in ("no weights", "flipped weights"))
    again = Notes()
    pretune.pretrain(saved(run), out=run, reporter=again)
    assert "this run is complete" in again.text


def test_a_finished_classifier_whose_weights_are_damaged_has_them_put_back(
    classifier: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(classifier, run)
    path = run / WEIGHTS
    path.write_bytes(flipped(path.read_bytes()))
    notes = Notes()
    pretune.finetune(settings=saved(run), out=run, reporter=notes)
    assert "put back from" in notes.text
    assert path.read_bytes() == (classifier / WEIGHTS).read_bytes()
    assert pretune.load(run).classify(["The castle."])


@pytest.mark.parametrize("key", ["steps", "machine"])
def test_a_plan_with_another_value_is_not_followed(key: str, bert: Path, tmp_path: Path) -> None:
    run, settings = stopped_at_the_end(bert, tmp_path / "run")
    plan = json.loads((run / "plan.json").read_text())
    (run / "plan.json").write_text(json.dumps(plan | {key: -1}))
    with pytest.raises(
        CheckpointError, match=r"plan\.json: damaged: .*SHA-256.*remove it and run the command"
    ):
        pretune.pretrain(settings, out=run)
    (run / "plan.json").unlink()
    pretune.pretrain(settings, out=run)
    assert (run / WEIGHTS).read_bytes() == (bert / WEIGHTS).read_bytes()


def test_a_summary_with_another_number_is_not_the_end_of_a_run(bert: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(bert, run)
    text = (run / "summary.json").read_text()
    (run / "summary.json").write_text(text.replace('"steps": 8', '"steps": 9'))
    with pytest.raises(CheckpointError, match=r"summary\.json: damaged: .*remove it and run the command"):
        pretune.pretrain(saved(run), out=run)
    (run / "summary.json").unlink()
    assert pretune.pretrain(saved(run), out=run).summary["steps"] == 8


def test_sources_that_changed_between_stop_and_resume_are_said_by_file(
    texts: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, run = tmp_path / "corpus", tmp_path / "run"
    folder.mkdir()
    lines = texts.corpus.read_text(encoding="utf-8").splitlines(keepends=True)
    for number, name in enumerate(("same", "touched", "edited", "gone")):
        (folder / f"{name}.jsonl").write_text("".join(lines[15 * number : 15 * (number + 1)]))
    words = {"corpus": folder, "family": "bert", "budget": "2 steps", "out": run}

    def interrupted(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(trainer.Trainer, "train", interrupted)
        with pytest.raises(KeyboardInterrupt):
            pretune.pretrain(SETTINGS, **words)
    same_size = (folder / "edited.jsonl").read_text().replace("castle", "CASTLE")
    (folder / "edited.jsonl").write_text(same_size)
    os.utime(folder / "touched.jsonl", (1, 1))
    (folder / "gone.jsonl").unlink()
    (folder / "new.jsonl").write_text(lines[0])
    notes = Notes()
    summary = pretune.pretrain(SETTINGS, reporter=notes, **words).summary
    expected = [
        f"{folder / 'edited.jsonl'}: has changed", f"{folder / 'gone.jsonl'}: is no longer there",
        f"{folder / 'new.jsonl'}: is new",
    ]  # fmt: skip
    assert summary["source_changes"] == expected
    assert all(f"{sentence} since this run read it" in notes.text for sentence in expected)
    card = (run / "model" / "README.md").read_text(encoding="utf-8")
    assert "since then: edited.jsonl, gone.jsonl, new.jsonl" in card


def test_bad_input_removes_only_what_the_run_wrote(texts: Any, tmp_path: Path) -> None:
    run = tmp_path / "run"

    class Meddling(NullReporter):
        def say(self, text: str) -> None:
            if run.is_dir():
                (run / "notes.txt").write_text("mine")
                (run / "data").mkdir(exist_ok=True)
                (run / "data" / "notes.txt").write_text("mine, too")

    few = tmp_path / "few.jsonl"
    few.write_text('{"text": "one"}\n')
    with pytest.raises(PretuneError, match="too little"):
        pretune.pretrain(SETTINGS, corpus=few, family="bert", budget="2 steps", out=run, reporter=Meddling())
    assert {path.name for path in run.rglob("*")} == {"data", "notes.txt"}
    with pytest.raises(PretuneError, match="holds files"):
        pretune.pretrain(SETTINGS, corpus=few, family="bert", budget="2 steps", out=run)
    assert (run / "data" / "notes.txt").read_text() == "mine, too"


def stopped_at_the_end(bert: Path, run: Path) -> tuple[Path, dict[str, Any]]:
    """A run that has made all its steps, but was killed before its model was written; its settings."""
    shutil.copytree(bert, run)
    (run / "summary.json").unlink()
    shutil.rmtree(run / "model")
    return run, saved(run)


def rows(run: Path) -> list[dict[str, Any]]:
    """The log without wall-clock: the last evaluation is made again."""
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "seconds"} for row in found]


def flipped(content: bytes) -> bytes:
    """With one bit flipped, in the middle."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


class Notes(NullReporter):
    """A reporter that keeps what it is told."""

    def __init__(self) -> None:
        self.text = ""

    def say(self, text: str) -> None:
        self.text += text + "\n"
