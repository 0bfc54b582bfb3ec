"""Children that something happens to: forked, so that hundreds of tries cost no start of an interpreter.

The faults are put into the child by patching what it calls, here and nowhere in pretune. Each child runs the
real command line on a tiny model.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import torch
import torch._dynamo  # which torch loads on first use: once here, not in every child

from pretune.cli import main as command_line
from pretune.data.corpus import build as corpus_module
from pretune.evaluation import language_model
from pretune.families import bert
from pretune.runtime import atomic_files
from pretune.runtime import metrics_log as log_module
from pretune.training import checkpointer
from pretune.workflows.pretrain import pretrain  # noqa: F401  loaded here once, not in every child

torch.set_num_threads(1)  # a process of one thread can be forked
STEPS, SAVE_EVERY, EVALUATIONS, LIMIT = 15, 3, 3, 60.0


@dataclass
class Row:
    """One line of the table."""

    fault: str
    checked: str
    tries: int = 0
    survived: int = 0
    why: list[str] = field(default_factory=list)
    seen: dict[str, int] = field(default_factory=dict)
    """What happened in the tries: a fault that never struck would prove nothing."""

    def saw(self, what: str) -> None:
        self.seen[what] = self.seen.get(what, 0) + 1

    @contextmanager
    def naming(self, what: str) -> Iterator[None]:
        """Within a try: what was done, for the message if it fails."""
        try:
            yield
        except AssertionError as error:
            raise AssertionError(f"{what}: {error}") from None

    @contextmanager
    def trying(self, what: str) -> Iterator[None]:
        """One try: it survives if nothing is found wrong within."""
        self.tries += 1
        try:
            yield
        except Exception as error:  # noqa: BLE001  one failed try must not hide the others
            self.why.append(f"{what}: {type(error).__name__}: {error}")
        else:
            self.survived += 1


@dataclass(frozen=True)
class Ended:
    """How a child ended."""

    code: int
    """As a shell has it; negative: killed by that signal."""
    err: str
    after: float
    """Seconds from the (first) signal that it sent itself, or from its start."""


def check(holds: bool, said: object) -> None:
    """What `assert` does, optimised or not."""
    if not holds:
        raise AssertionError(str(said)[-600:])


def child(folder: Path, body: Callable[[], None], kill_after: float | None = None) -> Ended:
    """Run ``body`` in a child of this process, at most LIMIT seconds; ``kill_after`` seconds it is killed."""
    errors, mark = folder / "err.txt", folder / "signalled"
    mark.unlink(missing_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    began = time.monotonic()
    number = os.fork()
    if number == 0:
        be_child(errors, body)
    limit = began + (LIMIT if kill_after is None else kill_after)
    status = 0
    while True:
        found, status = os.waitpid(number, os.WNOHANG)
        if found:
            break
        if time.monotonic() > limit:
            os.kill(number, signal.SIGKILL)
            _, status = os.waitpid(number, 0)
            break
        time.sleep(0.002)
    ended = time.monotonic()
    code = os.waitstatus_to_exitcode(status)
    since = float(mark.read_text()) if mark.exists() else began
    return Ended(code, errors.read_text(errors="replace"), ended - since)


def be_child(errors: Path, body: Callable[[], None]) -> None:
    """What a forked child does: the body, with its errors in a file; it never returns."""
    code = 99
    try:
        descriptor = os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, 2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w", buffering=1)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        body()
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except KeyboardInterrupt:
        code = 130
    except BaseException:  # noqa: BLE001  whatever it is must be seen by the parent
        import traceback

        traceback.print_exc()
    finally:
        with suppress(OSError, ValueError):
            sys.stderr.flush()
        os._exit(code)


def kill_me() -> None:
    """Only ever in a child."""
    os.kill(os.getpid(), signal.SIGKILL)


class Setting:
    """Prepared text, and the run that nothing disturbed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        draw = random.Random(0)
        nouns = ["soldier", "castle", "captain", "harvest", "meadow", "士兵", "城堡", "农夫", "收成"]
        texts = [
            " ".join(
                f"The {draw.choice(nouns)} saw {draw.choice(nouns)} {draw.randint(1, 99)}." for _ in range(5)
            )
            for _ in range(300)
        ]
        self.raw = folder / "texts.jsonl"
        self.raw.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        self.first = folder / "first"
        ended = self.run(self.first, source=self.raw)
        check(ended.code == 0, ended.err)
        self.data = self.first / "data"
        self.whole = folder / "whole"
        ended = self.run(self.whole)
        check(ended.code == 0, ended.err)
        self.seconds = ended.after
        self.weights = (self.whole / "model" / "model.safetensors").read_bytes()
        self.log = log_of(self.whole)
        self.counts = counted(self)
        """How often each kind of event happens in a run that nothing disturbs."""

    def command(self, run: Path, source: Path | None = None, *more: str) -> list[str]:
        sizes = ("hidden_size=32", "num_hidden_layers=2", "num_attention_heads=2", "hidden_dropout_prob=0.1")
        return [
            "pretrain", str(source or self.data), "--family", "bert", "--out", str(run), "--budget",
            f"{STEPS} steps", *(["vocabulary_size=350", "validation_fraction=0.3"] if source else []),
            "max_length=32",
            *(f"model.{size}" for size in sizes), "training.batch_tokens=512", "training.ema=0.9",
            f"training.evaluations={EVALUATIONS}", f"training.save_every={SAVE_EVERY}", *more,
        ]  # fmt: skip

    def run(
        self,
        run: Path,
        fault: Callable[[], None] | None = None,
        *,
        source: Path | None = None,
        kill_after: float | None = None,
        more: tuple[str, ...] = (),
    ) -> Ended:
        """The command in a child, with a fault that is put in before it starts."""

        def body() -> None:
            sys.argv = ["pretune", *self.command(run, source, *more)]
            if fault is not None:
                fault()
            command_line.main()

        return child(self.folder, body, kill_after)

    def goes_on(self, run: Path, source: Path | None = None) -> None:
        """The same command ends as the undisturbed run did, bit for bit, and the log is the same."""
        ended = self.run(run, source=source)
        check(ended.code == 0, ended.err)
        check((run / "model" / "model.safetensors").read_bytes() == self.weights, "other weights at the end")
        check(log_of(run) == self.log, "another log at the end")

    @contextmanager
    def fresh(self, name: str) -> Iterator[Path]:
        """A place for one try."""
        run = self.folder / name
        shutil.rmtree(run, ignore_errors=True)
        yield run
        shutil.rmtree(run, ignore_errors=True)


def log_of(run: Path) -> list[dict[str, Any]]:
    """The log without wall-clock."""
    path = run / "metrics.jsonl"
    lines = path.read_bytes().split(b"\n") if path.exists() else []
    rows = []
    for line in lines:
        with suppress(ValueError):
            rows.append(json.loads(line))
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def steps_in(run: Path) -> int:
    """Steps that the log knows of."""
    return max([row["step"] for row in log_of(run) if row["type"] == "step"], default=0)


def whole_checkpoints(run: Path) -> list[int]:
    """Steps of the visible checkpoints, newest first; each must verify."""
    steps = []
    for folder in atomic_files.list_checkpoints(run / "checkpoints"):
        atomic_files.verify_folder(folder)
        steps.append(int(folder.name.removeprefix("step-")))
    return steps


def one_line(ended: Ended) -> None:
    """One line says what happened."""
    lines = [line for line in ended.err.splitlines() if line.startswith("pretune:")]
    check(len(lines) == 1 and "Traceback" not in ended.err, ended.err)


class Events:
    """Counts what a child does, by kind, and lets something happen at the n-th time."""

    def __init__(self, kind: str, at: int, happen: Callable[[], None]) -> None:
        self.kind, self.at, self.happen = kind, at, happen
        self.counts: dict[str, int] = {}

    def see(self, kind: str) -> None:
        self.counts[kind] = self.counts.get(kind, 0) + 1
        if kind == self.kind and self.counts[kind] == self.at:
            self.happen()

    def watch(self) -> Events:
        """Patch this process: only ever in a child."""
        _before(os, "fsync", lambda *_: self.see("fsync"))
        for name in ("write_text", "write_bytes", "rename", "replace", "mkdir"):
            _before(
                Path, name, lambda *_, name=name: self.see("write" if name.startswith("write") else "move")
            )
        _before(checkpointer, "save_file", lambda *_: self.see("write"))
        _before(checkpointer, "save_file", lambda *_: self.see("save"))
        _before(atomic_files, "_fsync", lambda *_: self.see("save"))
        _before(atomic_files, "_replace_folder", lambda *_: self.see("save"))
        _before(atomic_files, "remove_folder", lambda *_: self.see("save"))
        _before(log_module.MetricsLog, "_write_row", lambda *_: self.see("line"))
        _before(corpus_module, "write_corpus", lambda *_: self.see("corpus"))
        _before(
            bert.Network,
            "forward",
            lambda network, *_: self.see("step" if network.training else "evaluation"),
        )
        _before(language_model.HeldOutSet, "evaluate", lambda *_: self.see("scores"))
        return self


def _before(owner: Any, name: str, look: Callable[..., None]) -> None:
    original = getattr(owner, name)

    def watched(*arguments: Any, **named: Any) -> Any:
        look(*arguments)
        return original(*arguments, **named)

    setattr(owner, name, watched)


def send(folder: Path, number: signal.Signals) -> None:
    """A real signal to this very process, with the time of the first."""
    mark = folder / "signalled"
    if not mark.exists():
        with mark.open("w") as file:
            file.write(str(time.monotonic()))
    os.kill(os.getpid(), number)


def counted(setting: Setting) -> dict[str, int]:
    place = setting.folder / "counts.json"

    def body() -> None:
        events = Events("", 0, lambda: None)
        events.watch()
        sys.argv = ["pretune", *setting.command(setting.folder / "counted")]
        try:
            command_line.main()
        finally:
            with place.open("w") as file:
                json.dump(events.counts, file)

    ended = child(setting.folder, body)
    check(place.exists(), ended.err)
    shutil.rmtree(setting.folder / "counted", ignore_errors=True)
    found: dict[str, int] = json.loads(place.read_text())
    return found


def mounted(folder: Path, size: int) -> bool:
    """Whether a disk of ``size`` bytes could be mounted at ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    words = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    try:
        return subprocess.run(words, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False
