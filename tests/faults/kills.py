"""`kill -9`, at any moment and within a save."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path

from harness import SAVE_EVERY, Events, Row, Setting, check, kill_me, steps_in, whole_checkpoints

from pretune.training import checkpointer


def kill_9(setting: Setting, tries: int) -> list[Row]:
    """Half of the kills come at a random time, the others within a save; some in the middle of a file."""
    anywhen = Row(
        "kill -9 at a random moment", f"at most {SAVE_EVERY} steps lost; weights and log as undisturbed"
    )
    within = Row("kill -9 within a save", "the same; every visible checkpoint verifies")
    draw, counts = random.Random(1), setting.counts
    for number in range(tries - tries // 2):
        with setting.fresh("killed") as run, anywhen.trying(f"try {number}"):
            ended = setting.run(run, kill_after=draw.uniform(0.1, 1.0) * setting.seconds)
            anywhen.saw("killed" if ended.code == -signal.SIGKILL else "ended before")
            _goes_on(setting, run)
    kinds = ("save", "fsync", "half")
    for number in range(tries // 2):
        kind = kinds[number % len(kinds)]
        at = draw.randint(1, 12 if kind == "half" else counts[kind])
        with setting.fresh("killed") as run, within.trying(f"{kind} {at}"):
            fault = (lambda at=at: half_a_file(at, draw.random())) if kind == "half" else (
                lambda at=at, kind=kind: Events(kind, at, kill_me).watch() and None
            )  # fmt: skip
            ended = setting.run(run, fault)
            check(ended.code == -signal.SIGKILL, f"not killed: {ended}")
            _goes_on(setting, run)
    return [anywhen, within]


def half_a_file(at: int, share: float) -> None:
    """Die when the ``at``-th file of tensors is partly written."""
    write, seen = checkpointer.save_file, [0]

    def cut(tensors: object, path: Path) -> None:
        write(tensors, path)
        seen[0] += 1
        if seen[0] == at:
            os.truncate(path, int(share * path.stat().st_size))
            kill_me()

    checkpointer.save_file = cut


def _goes_on(setting: Setting, run: Path) -> None:
    done, kept = steps_in(run), whole_checkpoints(run)
    check(done - max(kept, default=0) <= SAVE_EVERY, f"{done} steps done, {kept} kept")
    setting.goes_on(run)
