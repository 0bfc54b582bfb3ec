"""Two processes on one output, started a random time apart: one does the work, the other touches nothing."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from harness import LIMIT, Ended, Row, Setting, be_child, check, log_of, one_line

from pretune.cli import main as command_line
from pretune.workflows.finetune import finetune  # noqa: F401  loaded here once, not in every child

BUSY = re.compile(r"another process writes it \(process \d+ on \S+, since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d")
THERE = "is there already"


def together(setting: Setting, tries: int) -> list[Row]:
    """``tries`` at each verb that writes an output."""
    folder = setting.folder / "together"
    folder.mkdir()
    train, records = folder / "train.jsonl", folder / "records.jsonl"
    draw = random.Random(21)
    rows = [
        (f"The {word} saw {n}.", label) for n in range(20) for word, label in (("castle", "a"), ("barn", "b"))
    ]
    train.write_text("".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in rows))
    records.write_text("".join(json.dumps({"text": f"The [MASK] saw {n}."}) + "\n" for n in range(60)))
    model = str(setting.first / "model")
    commands: dict[str, tuple[Callable[[Path], list[str]], Callable[[Path, Path], None]]] = {
        "pretrain": (lambda out: setting.command(out, setting.raw), _same_run),
        "finetune": (
            lambda out: [
                "finetune", model, "--train", str(train), "--out", str(out), "--budget", "6 steps",
                "training.evaluations=1", "baselines=false",
            ],
            _same_run,
        ),
        "predict --out": (
            lambda out: ["predict", model, "--data", str(records), "--out", f"{out}.jsonl"],
            _same_answers,
        ),
        "data prepare": (
            lambda out: ["data", "prepare", str(setting.raw), "--out", str(out), "--processes", "1"],
            _same_text,
        ),
    }  # fmt: skip
    found = []
    for verb, (words, same) in commands.items():
        row = Row(
            f"two processes: {verb}", "one does the work, as ever; the other says who, and touches nothing"
        )
        found.append(row)
        whole, out = folder / "whole", folder / "out"
        [alone] = at_once(folder, [words(whole)], 0.0)
        check(alone.code == 0, alone.err)
        for number in range(tries):
            delay = 0.0 if number == 0 else draw.uniform(0, 1.1) * alone.after
            with row.trying(f"{delay:.2f} s apart"):
                ended = at_once(folder, [words(out), words(out)], delay)
                row.saw(_judged(ended))
                same(whole, out)
                check(not list(folder.glob(".*.lock")) and not (out / "lock").exists(), "a lock is left")
            _clear(out)
        _clear(whole)
    shutil.rmtree(folder)
    return found


def at_once(folder: Path, commands: list[list[str]], delay: float) -> list[Ended]:
    """Each command in a child of its own, ``delay`` seconds after the one before."""
    running: list[tuple[int, Path, float]] = []
    for number, words in enumerate(commands):
        errors = folder / f"err-{number}.txt"
        errors.write_text("")
        time.sleep(delay if number else 0)
        sys.stdout.flush()
        sys.stderr.flush()
        began = time.monotonic()
        pid = os.fork()
        if pid == 0:
            be_child(errors, partial(_body, words))
        running.append((pid, errors, began))
    ended = []
    for pid, errors, began in running:
        status = 0
        while not status and time.monotonic() < began + LIMIT:
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                break
            time.sleep(0.002)
        ended.append(Ended(os.waitstatus_to_exitcode(status), errors.read_text(), time.monotonic() - began))
    return ended


def _body(words: list[str]) -> None:
    sys.argv = ["pretune", *words]
    command_line.main()


def _judged(ended: list[Ended]) -> str:
    """At least one has done it; the other, if it has not, says why in a line."""
    done = [one for one in ended if one.code == 0]
    check(bool(done), ended)
    if len(done) == 2:
        check("complete" in ended[1].err or "is prepared" in ended[1].err, ended)
        return "one after the other"
    [other] = [one for one in ended if one.code != 0]
    one_line(other)
    check(other.code == 2, other)
    line = other.err.splitlines()[-1]
    if THERE in line:
        return "one after the other"
    check(BUSY.search(line) is not None and "--out" in line, line)
    return "refused"


def _same_run(whole: Path, out: Path) -> None:
    same = (whole / "model" / "model.safetensors").read_bytes() == (
        out / "model" / "model.safetensors"
    ).read_bytes()
    check(same, "other weights")
    check(log_of(whole) == log_of(out), "another log")
    check((out / "summary.json").exists(), "no summary")


def _same_answers(whole: Path, out: Path) -> None:
    one, other = (path.with_name(f"{path.name}.jsonl").read_bytes() for path in (whole, out))
    check(one == other, "other answers")


def _same_text(whole: Path, out: Path) -> None:
    for path in (whole / "text").iterdir():
        check(path.read_bytes() == (out / "text" / path.name).read_bytes(), path.name)


def _clear(out: Path) -> None:
    for path in out.parent.glob(f"*{out.name}*"):
        shutil.rmtree(path, ignore_errors=True)
        path.unlink(missing_ok=True)
