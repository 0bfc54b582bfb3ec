"""SIGTERM and SIGINT: in a step, a save, an evaluation, a preparation; and a second one."""

from __future__ import annotations

import random
import shutil
import signal
from pathlib import Path

from harness import Events, Row, Setting, check, one_line, send, steps_in, whole_checkpoints

SECONDS = 10.0
NAMES = {"step": "a step", "save": "a save", "evaluation": "an evaluation"}


def signals(setting: Setting, tries: int) -> list[Row]:
    """``tries`` of each signal in each place."""
    rows, draw, counts = [], random.Random(3), setting.counts
    for turn, number in enumerate((signal.SIGTERM, signal.SIGINT)):
        for place, (kind, where) in enumerate(NAMES.items()):
            if tries == 1 and place % 2 != turn:
                continue  # the short form: each place once, by either signal in turn
            row = Row(
                f"{number.name} in {where}",
                f"out within {SECONDS:.0f} s, code 3, a checkpoint of that step; goes on",
            )
            rows.append(row)
            for _ in range(tries):
                at = draw.randint(1, counts[kind])
                with setting.fresh("stopped") as run, row.trying(f"{kind} {at}"):
                    row.saw(f"code {_stops_well(setting, run, kind, at, number)}")
    return rows


def _stops_well(setting: Setting, run: Path, kind: str, at: int, number: signal.Signals) -> int:
    events = Events(kind, at, lambda: send(setting.folder, number))
    ended = setting.run(run, lambda: events.watch() and None)
    check(ended.after < SECONDS, f"{ended.after:.1f} s")
    if ended.code == 3:
        one_line(ended)
        check("run the same command to go on" in ended.err, ended.err)
        done, kept = steps_in(run), whole_checkpoints(run)
        check(kept[0] == done, f"{done} steps done, {kept} kept")
    else:  # the last step was done, or the last evaluation: what is left is to write the model
        late = steps_in(run) == setting.log[-1]["step"]
        check(late and ended.code in (0, 130, -signal.SIGTERM), ended)
    setting.goes_on(run)
    return ended.code


def left_in_the_middle(setting: Setting, tries: int) -> list[Row]:
    """A signal in the first batch of an evaluation: no second batch is read."""
    row = Row(
        "a signal in the first batch of an evaluation",
        "the evaluation is left there, a checkpoint before it; goes on",
    )
    for number in range(tries):
        with setting.fresh("stopped") as run, row.trying(f"try {number}"):
            seen = setting.folder / "batches"
            seen.write_text("")

            def fault(seen: Path = seen) -> None:
                events = Events("evaluation", 1, lambda: send(setting.folder, signal.SIGTERM))
                look = events.see

                def counting(kind: str) -> None:
                    if kind == "evaluation":
                        with seen.open("a") as file:
                            file.write(".")
                    look(kind)

                events.see = counting  # type: ignore[method-assign]
                events.watch()

            ended = setting.run(run, fault)
            check(ended.code == 3, ended)
            check(seen.read_text() == ".", f"{len(seen.read_text())} batches were read")
            setting.goes_on(run)
    return [row]


def second_signal(setting: Setting, tries: int) -> list[Row]:
    """The first asks, the second insists."""
    row = Row("a second signal", "ends at once; what was saved goes on")
    draw, counts = random.Random(4), setting.counts
    for number in range(tries):
        word = (signal.SIGTERM, signal.SIGINT)[number % 2]
        at = draw.randint(1, counts["save"])
        with setting.fresh("insisted") as run, row.trying(f"{word.name} twice, save {at}"):

            def twice(word: signal.Signals = word) -> None:
                send(setting.folder, word)
                send(setting.folder, word)

            events = Events("save", at, twice)
            ended = setting.run(run, lambda events=events: events.watch() and None)
            check(ended.code in (130, -signal.SIGTERM, 128 + signal.SIGTERM), ended)
            check(ended.after < 2.0, f"{ended.after:.1f} s")
            whole_checkpoints(run)
            setting.goes_on(run)
    return [row]


def in_preparation(setting: Setting, tries: int) -> list[Row]:
    """While text is tokenised: out at once, and what was finished is used again."""
    row = Row("a signal in preparation", "out at once; finished parts are used again; the same end")
    for number in range(tries):
        word = (signal.SIGTERM, signal.SIGINT)[number % 2]
        at = 1 + number // 2 % 2
        with setting.fresh("preparing") as run, row.trying(f"{word.name}, corpus {at}"):
            events = Events("corpus", at, lambda word=word: send(setting.folder, word))
            ended = setting.run(run, lambda events=events: events.watch() and None, source=setting.raw)
            check(ended.code in (130, -signal.SIGTERM), ended)
            check(ended.after < SECONDS, f"{ended.after:.1f} s")
            check(not (run / "data").exists(), "half of a preparation under its name")
            parts = {
                path.name: path.stat().st_ino for path in (run / "data.partial").iterdir() if path.is_dir()
            }
            again = setting.run(run, source=setting.raw)
            check(again.code == 0, again.err)
            check("training a tokenizer" not in again.err, f"the tokenizer was trained again: {again.err}")
            finished = ["tokenizer", "train"] if at == 2 else []
            for name in finished:
                check(parts[name] == (run / "data" / name).stat().st_ino, f"{name} was made again")
            same = (run / "model" / "model.safetensors").read_bytes()
            check(
                same == (setting.first / "model" / "model.safetensors").read_bytes(),
                "other weights at the end",
            )
            shutil.rmtree(run, ignore_errors=True)
    return [row]
