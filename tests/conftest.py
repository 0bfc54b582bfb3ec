"""Tiny texts, and the models that the workflows make of them: made once, read by many tests."""

from __future__ import annotations

import json
import os
import random
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis
import pytest

import pretune

pytest_plugins = ("tests.turns",)

# The same examples each time, so that a change is judged by itself. `HYPOTHESIS_PROFILE=search make test`
# looks for new ones; what it finds stays as an @example. No deadlines: a busy machine is nobody's mistake.
hypothesis.settings.register_profile(
    "same", derandomize=True, deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.register_profile("search", max_examples=2000, deadline=None)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))

SHAPE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
SETTINGS: dict[str, Any] = {
    "vocabulary_size": 350,
    "max_length": 32,
    "model": SHAPE,
    "training": {"batch_tokens": 256, "evaluations": 2},
}
OPTIONS = (
    "vocabulary_size=350", "max_length=32", "model.hidden_size=32", "model.num_hidden_layers=2",
    "model.num_attention_heads=2", "training.batch_tokens=256", "training.evaluations=2",
)  # fmt: skip
"""``SETTINGS`` as the command line says them."""

ENGLISH = {
    "war": ("soldier", "castle", "siege", "captain"),
    "farm": ("harvest", "meadow", "shepherd", "barn"),
}
CHINESE = {"war": ("士兵", "城堡", "将军"), "farm": ("收成", "牧场", "农夫")}


def sentence(draw: random.Random, topic: str) -> str:
    """A short sentence of a topic, in English or Chinese."""
    if draw.random() < 0.5:
        first, second = draw.sample(ENGLISH[topic], 2)
        return f"The {first} saw the {second} in year {draw.randint(1, 999)}."
    first, second = draw.sample(CHINESE[topic], 2)
    return f"{first}看见{second}，第{draw.randint(1, 99)}年。"


def write_lines(path: Path, rows: Iterable[Any]) -> Path:
    """Rows as JSON lines; a string is written as it is."""
    lines = (row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def labelled(count: int, seed: int) -> list[dict[str, str]]:
    draw = random.Random(seed)
    topics = [("war", "farm")[number % 2] for number in range(count)]
    return [{"text": sentence(draw, topic), "label": topic} for topic in topics]


@dataclass(frozen=True)
class Texts:
    """Files that every workflow can use."""

    corpus: Path
    train: Path
    validation: Path
    test: Path


@dataclass(frozen=True)
class Said:
    """What a command left behind."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def one_thread() -> Iterator[None]:
    """Models this small gain nothing by a second thread, and on a busy machine lose much."""
    import torch

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")  # which workflows, and the processes that tests start, obey
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        yield
        torch.set_num_threads(before)


@pytest.fixture(scope="session")
def texts(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> Texts:
    folder = tmp_path_factory.mktemp("texts")
    draw = random.Random(0)
    documents = [" ".join(sentence(draw, draw.choice(("war", "farm"))) for _ in range(5)) for _ in range(60)]
    return Texts(
        write_lines(folder / "corpus.jsonl", ({"text": text} for text in documents)),
        write_lines(folder / "train.jsonl", labelled(60, 1)),
        write_lines(folder / "validation.jsonl", labelled(16, 2)),
        write_lines(folder / "test.jsonl", labelled(16, 3)),
    )


@pytest.fixture(scope="session")
def bert(texts: Texts, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of masked pretraining."""
    out = tmp_path_factory.mktemp("runs") / "bert"
    return pretune.pretrain(SETTINGS, corpus=texts.corpus, family="bert", budget="8 steps", out=out).folder


@pytest.fixture(scope="session")
def llama(texts: Texts, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of causal pretraining; its report is Chinese."""
    out = tmp_path_factory.mktemp("runs") / "llama"
    settings = {**SETTINGS, "language": "zh"}
    return pretune.pretrain(settings, corpus=texts.corpus, family="llama", budget="8 steps", out=out).folder


@pytest.fixture(scope="session")
def classifier(bert: Path, texts: Texts, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of fine-tuning."""
    out = tmp_path_factory.mktemp("runs") / "classifier"
    return pretune.finetune(
        bert, train=texts.train, validation=texts.validation, test=texts.test,
        budget="1 epoch", training={"evaluations": 1}, out=out,
    ).folder  # fmt: skip


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """The command line in this process: whatever would be a traceback fails the test."""
    from pretune.cli.main import main

    def run(*words: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["pretune", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        code = ended.value.code
        return Said(code if isinstance(code, int) else 0, said.out, said.err)

    return run
