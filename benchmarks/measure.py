"""Interleaved pairs of processes, medians and their spread, peak memory."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
THREADS = int(os.environ.get("BENCH_THREADS", "2"))


@dataclass(frozen=True)
class Options:
    """What the command line of a benchmark says."""

    out: Path
    """Folder of this benchmark's results."""
    data: Path | None = None
    models: Path = Path("~/.cache/pretune-models")
    pairs: int = 10
    seconds: float = 20.0
    """Length of a window, after warm-up."""
    limit: float = 900.0
    """Seconds that one child process may take."""
    smoke: bool = False
    trials: int | None = None
    minutes: float | None = None

    @property
    def scratch(self) -> Path:
        """What is made once and used by every run: texts, tokenizers, prepared corpora."""
        return self.out.parent / ".scratch"


@dataclass(frozen=True)
class Spread:
    """The middle of several measurements, and how far they lie apart."""

    median: float
    low: float
    high: float
    quartiles: tuple[float, float]
    n: int

    def __str__(self) -> str:
        return (
            f"{self.median:.3g} (quartiles {self.quartiles[0]:.3g} to {self.quartiles[1]:.3g}, "
            f"all {self.low:.3g} to {self.high:.3g}, n = {self.n})"
        )


def spread(values: Sequence[float]) -> Spread:
    """Median, extremes and quartiles."""
    if not values:
        raise ValueError("no measurement to take the median of")
    ordered = sorted(values)
    quarters = statistics.quantiles(ordered, n=4, method="inclusive") if len(ordered) > 1 else ordered * 3
    return Spread(
        statistics.median(ordered), ordered[0], ordered[-1], (quarters[0], quarters[2]), len(ordered)
    )


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """Ours / theirs, pair by pair: a machine that is slow for a while is so for both."""
    return spread([a / b for a, b in zip(ours, theirs, strict=True)])


def child(side: str, config: Mapping[str, Any], *, limit: float, log: Path | None = None) -> dict[str, Any]:
    """Run one side in a process of its own; what it measured.

    Raises:
        RuntimeError: it failed or took longer than ``limit`` seconds.
    """
    environment = os.environ | {
        "OMP_NUM_THREADS": str(THREADS), "TOKENIZERS_PARALLELISM": "true", "HF_HUB_OFFLINE": "1",
    }  # fmt: skip
    command = [sys.executable, "-m", "benchmarks.side", side]
    began = time.perf_counter()
    try:
        done = subprocess.run(
            command, input=json.dumps(config), capture_output=True, text=True, timeout=limit,
            cwd=ROOT, env=environment, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"{side}: not done after {limit:.0f} s: {json.dumps(config)}") from error
    if log is not None:
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(f"{json.dumps(config)}\n{done.stderr}{done.stdout}", encoding="utf-8")
    if done.returncode:
        raise RuntimeError(f"{side} failed: {json.dumps(config)}\n{done.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found | {"process_seconds": time.perf_counter() - began}


def interleaved(
    sides: Mapping[str, tuple[str, Mapping[str, Any]]], options: Options, key: str
) -> dict[str, list[float]]:
    """Each side once, then each once again, ``pairs`` times; the figure ``key`` of each."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(options.pairs):
        for name, (side, config) in sides.items():
            result = child(side, config, limit=options.limit, log=options.out / f"{name}.log")
            found[name].append(float(result[key]))
        print(f"  pair {number + 1}: " + ", ".join(f"{n} {v[-1]:,.1f}" for n, v in found.items()), flush=True)
    return found


def compared(
    sides: Mapping[str, tuple[str, Mapping[str, Any]]], options: Options, key: str, *, ours: str = "ours"
) -> dict[str, Any]:
    """Interleave the sides and set ``ours`` beside each other one, as ratios with their spread."""
    found = interleaved(sides, options, key)
    return beside(found, key, ours) | {"configs": {name: config for name, (_, config) in sides.items()}}


def whole_run(early: Sequence[float], late: Sequence[float], until: float) -> list[float]:
    """Units a second of whole runs whose first share ``until`` of the steps has the rates ``early``."""
    return [1 / (until / a + (1 - until) / b) for a, b in zip(early, late, strict=True)]


def beside(found: Mapping[str, Sequence[float]], key: str, ours: str = "ours") -> dict[str, Any]:
    """The figures of ``ours`` beside those of each other side, as ratios with their spread."""
    result: dict[str, Any] = {"unit": key, "sides": {n: asdict(spread(v)) for n, v in found.items()}}
    result["ratios"] = {}
    for name, values in found.items():
        if name != ours:
            ratio = ratios(found[ours], values)
            print(f"  {ours} / {name}: {ratio}", flush=True)
            result["ratios"][name] = asdict(ratio)
    return result


def peak_memory() -> int:
    """Most bytes that this process has held so far.

    Not ``ru_maxrss``: a child's begins at what its parent held.
    """
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/self/status has no VmHWM; this benchmark needs Linux")


def full(marks: Sequence[tuple[float, float]], warm: float, seconds: float) -> bool:
    """Is the window over: ``seconds`` after the warm-up, and five steps of it at least?"""
    counted = sum(at >= marks[0][0] + warm for at, _ in marks)
    return marks[-1][0] - marks[0][0] > warm + seconds and counted > 5


def window(marks: Sequence[tuple[float, float]], warm: float) -> float:
    """Units a second, from the first mark at least ``warm`` seconds after the first to the last.

    ``marks`` are (seconds, units so far).
    """
    start = next((mark for mark in marks if mark[0] >= marks[0][0] + warm), None)
    if start is None or start is marks[-1]:
        raise ValueError(f"{len(marks)} steps do not fill a window after {warm} s of warm-up")
    return (marks[-1][1] - start[1]) / (marks[-1][0] - start[0])


def reported(marks: Sequence[tuple[float, float]], warm: float) -> dict[str, Any]:
    """What a side reports of a window of ``marks``, (seconds, tokens so far) a step."""
    return {
        "tokens a second": window(marks, warm),
        "peak bytes": peak_memory(),
        "steps": len(marks),
    }


def timed(work: Callable[[], Any], seconds: float) -> float:
    """Calls a second, over at least ``seconds`` after one call to warm up."""
    work()
    began, calls = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        work()
        calls += 1
    return calls / (time.perf_counter() - began)
