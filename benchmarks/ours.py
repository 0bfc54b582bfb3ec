"""Our sides: pretune's public face, timed from without."""

from __future__ import annotations

import importlib
import json
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pretune
from benchmarks.measure import full, peak_memory, reported
from pretune.data.corpus.build import open_corpus
from pretune.runtime.metrics_reader import read_metrics


class Enough(Exception):
    """Ends a run whose window is full."""


class Clock:
    """A reporter that notes when each step ended, and ends the run when the window is full."""

    def __init__(self, stage: str, warm: float, seconds: float) -> None:
        self.stage, self.warm, self.seconds = stage, warm, seconds
        self.marks: list[tuple[float, int]] = []
        self._current = ""

    def say(self, text: str) -> None:
        """Say nothing."""

    def start_progress(self, name: str, total: int) -> Clock:
        """Note which stage begins."""
        self._current = name
        return self

    def update(self, done: int, detail: str = "", total: int | None = None) -> None:
        """A step ended."""
        if self._current != self.stage:
            return
        now = time.perf_counter()
        self.marks.append((now, done))
        if full(self.marks, self.warm, self.seconds):
            raise Enough

    def close(self) -> None:
        """Nothing to close."""


def rate(config: Mapping[str, Any]) -> dict[str, Any]:
    """Tokens a second of pretraining, from step to step: data, logging and optimiser included."""
    clock = Clock(config["settings"]["family"], config["warm"], config["seconds"])
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "run"
        settings = {"budget": "100000 steps", **config["settings"]}
        with suppress(Enough):
            pretune.pretrain(settings, out=out, reporter=clock)
        tokens = {
            row["step"]: row["tokens"] for row in read_metrics(out / "metrics.jsonl") if "tokens" in row
        }
    marks = [(at, tokens[step]) for at, step in clock.marks if step in tokens]
    return reported(marks, config["warm"])


def complete(config: Mapping[str, Any]) -> dict[str, Any]:
    """A complete run with its own schedule: wall-clock of the whole call and where the model lies."""
    began, busy = time.perf_counter(), time.process_time()
    run = pretune.pretrain(config["settings"], out=config["out"])
    seconds, busy = time.perf_counter() - began, time.process_time() - busy
    return {"seconds": seconds, "processor seconds": busy, "model": str(run.model),
            "tokens": run.summary["tokens"], "steps": run.summary["steps"],
            "peak bytes": peak_memory()}  # fmt: skip


def finetuned(config: Mapping[str, Any]) -> dict[str, Any]:
    """Training and evaluating a classifier: examples a second, over both, reading and encoding included.

    What it imports is imported before the clock starts, as on the other side.
    """
    for name in ("pretune.workflows.finetune.finetune", "torch._dynamo"):
        importlib.import_module(name)
    with tempfile.TemporaryDirectory() as scratch:
        began = time.perf_counter()
        run = pretune.finetune(
            config["model"], task="classification", train=config["train"], validation=config["validation"],
            max_length=128, budget=config["budget"], task_options=config["task_options"],
            settings={"baselines": False, "training": config["training"]}, out=Path(scratch) / "run",
        )  # fmt: skip
        seconds = time.perf_counter() - began
        summary = json.loads((run.folder / "summary.json").read_text(encoding="utf-8"))
    return {"examples a second": config["examples"] / seconds, "seconds": seconds,
            "scores": summary.get("scores", {}), "peak bytes": peak_memory()}  # fmt: skip


def classified(config: Mapping[str, Any]) -> dict[str, Any]:
    """A classifier trained at the defaults, and what it says of the test records."""
    began, busy = time.perf_counter(), time.process_time()
    run = pretune.finetune(
        config["model"], train=config["train"], validation=config["validation"], test=config["test"],
        training={"seed": config["seed"]}, out=Path(config["out"]),
    )  # fmt: skip
    rows = read_metrics(run.folder / "predictions.jsonl")
    return {
        "right": [int(row["prediction"] == row["label"]) for row in rows],
        "macro_f1": run.summary["scores"]["macro_f1"]["value"],
        "seconds": time.perf_counter() - began, "processor seconds": time.process_time() - busy,
    }  # fmt: skip


def prepared(config: Mapping[str, Any]) -> dict[str, Any]:
    """Prepare text and train 30 steps: what a megabyte costs in seconds and memory."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=config["scratch"]) as scratch:
        run = pretune.pretrain(
            corpus=config["corpus"], tokenizer=config["tokenizer"], budget="30 steps",
            out=Path(scratch) / "run", training={"evaluations": 1},
        )  # fmt: skip
        seconds, tokens = time.perf_counter() - began, corpus_tokens(run.folder)
    return {"seconds": seconds, "corpus tokens": tokens, "microseconds a token": 1e6 * seconds / tokens,
            "peak bytes": peak_memory()}  # fmt: skip


def corpus_tokens(run: Path) -> int:
    """Tokens of the corpus that a run prepared."""
    return open_corpus(run / "data").train.num_tokens


SIDES = {
    "rate": rate,
    "complete": complete,
    "finetuned": finetuned,
    "classified": classified,
    "prepared": prepared,
}
