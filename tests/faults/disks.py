"""A disk that is full, and writes and fsyncs that fail."""

from __future__ import annotations

import errno
import resource
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
from harness import SAVE_EVERY, Events, Row, Setting, check, mounted, one_line, steps_in, whole_checkpoints

from pretune.runtime import metrics_log as log_module


def full_disk(setting: Setting, tries: int) -> list[Row]:
    """A run on a disk of 0.1 to 2.1 checkpoints; then the disk grows and the same command goes on."""
    row = Row("disk full", "")
    newest = max((setting.whole / "checkpoints").iterdir())
    size = sum(path.stat().st_size for path in newest.iterdir())
    checked = "one line; what was saved loads; no half folder; goes on, bit for bit, with more room"
    for share in np.linspace(0.1, 2.1, tries):
        with setting.fresh("full") as run, row.trying(f"{share:.2f} checkpoints"):
            if mounted(run, int(share * size)):
                row.checked = f"(tmpfs) {checked}"
                try:
                    row.saw(_fails_well(run, setting.run(run)))
                    grown = ["mount", "-o", "remount,size=64m", str(run)]
                    subprocess.run(grown, check=True)
                    setting.goes_on(run)
                finally:
                    subprocess.run(["umount", str(run)], check=True)
            else:
                row.checked = f"(RLIMIT_FSIZE, as no tmpfs can be mounted) {checked}"
                # Of a file, not of a folder: the largest is about two fifths of a checkpoint.
                limit = int(share / 2.2 * 0.4 * size)
                row.saw(_fails_well(run, setting.run(run, lambda limit=limit: _limit(limit))))
                setting.goes_on(run)
    return [row]


def _limit(size: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def failing_calls(setting: Setting, tries: int) -> list[Row]:
    """The n-th write, fsync or move of a run fails; and the n-th line of its log."""
    names = {"write": errno.ENOSPC, "fsync": errno.EIO, "move": errno.EACCES, "line": errno.ENOSPC}
    row = Row(
        "n-th write, fsync, rename or line of the log fails",
        "one line; what was saved loads; goes on, bit for bit",
    )
    counts = setting.counts
    for number in range(tries):
        kind = list(names)[number % len(names)]
        at = 1 + (number // len(names) * 7919 + 13 * number) % counts[kind]
        with setting.fresh("failing") as run, row.trying(f"{kind} {at} of {counts[kind]}"):
            ended = setting.run(run, lambda kind=kind, at=at: _failing(kind, at, names[kind]))
            row.saw(_fails_well(run, ended))
            setting.goes_on(run)
    return [row]


def _failing(kind: str, at: int, number: int) -> None:
    def fail() -> None:
        raise OSError(number, "injected")

    if kind == "line":
        _failing_lines(at, fail)
    else:
        Events(kind, at, fail).watch()


def _failing_lines(at: int, fail: Any) -> None:
    """Half of the ``at``-th line is written before it fails, as a full disk does."""
    write, seen = log_module.MetricsLog._write_row, [0]

    class Half:
        def __init__(self, file: Any) -> None:
            self.file = file

        def write(self, line: bytes) -> int:
            self.file.write(line[: len(line) // 2])
            fail()
            return 0

        def close(self) -> None:
            self.file.close()

    def watched(log: Any, row: Any) -> None:
        seen[0] += 1
        if seen[0] == at:
            log._file = Half(log._file)
        write(log, row)

    log_module.MetricsLog._write_row = watched  # type: ignore[method-assign]


def curves_that_cannot_be_written(setting: Setting, tries: int) -> list[Row]:
    """TensorBoard's folder is a file: the run says so in a line, and ends as ever."""
    row = Row("TensorBoard's events cannot be written", "said in one line; the run ends, bit for bit")

    def fault() -> None:
        class Refusing:
            def __init__(self, *_: Any, **__: Any) -> None:
                self.left = 5

            def add_scalar(self, *_: Any) -> None:
                self.left -= 1
                if not self.left:
                    raise OSError(errno.ENOSPC, "No space left on device")

            def close(self) -> None:
                pass

        log_module.SummaryWriter = Refusing

    for number in range(tries):
        with setting.fresh("curves") as run, row.trying(f"try {number}"):
            ended = setting.run(run, fault)
            check(ended.code == 0, ended.err)
            check(ended.err.count("without TensorBoard's curves") == 1, ended.err)
            setting.goes_on(run)
    return [row]


def _fails_well(run: Path, ended: Any) -> str:
    """Failed with one line, or came to the end where the fault lay after all that counts."""
    if ended.code == 0:
        return "done"
    check(ended.code in (1, 2), ended)
    one_line(ended)
    kept = whole_checkpoints(run)
    check(
        steps_in(run) - max(kept, default=0) <= SAVE_EVERY, f"{steps_in(run)} steps, {kept} kept: {ended.err}"
    )
    check(
        not list(run.glob("**/*.partial")) or run.is_mount(),
        f"left half-written: {list(run.glob('**/*.partial'))}",
    )
    check(
        (run / "summary.json").exists() <= (run / "model" / "manifest.json").exists(),
        "a summary without a model",
    )
    return "failed"
