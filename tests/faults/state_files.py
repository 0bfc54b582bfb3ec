"""Files that work goes on from, damaged between stop and resume: flipped bits, cuts, files that are gone.

Each ends bit for bit as undisturbed, or in one line that names the file and the way out; where that is to
remove the file and run the command again, that is done, and ends as undisturbed.
"""

from __future__ import annotations

import json
import random
import shutil
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from harness import Ended, Events, Row, Setting, check, child, kill_me, log_of, one_line, send

from pretune.cli import main as command_line
from pretune.data.cleaning import workers
from pretune.runtime.resumable_file import ResumableFile
from pretune.workflows.data import prepare as data_module

STOPPED = (
    "data/train/tokens-00000.bin", "data/train/word_starts-00000.bin", "data/train/documents.bin",
    "data/train/corpus.json", "data/validation/tokens-00000.bin", "data/validation/word_starts-00000.bin",
    "data/validation/corpus.json", "data/tokenizer/tokenizer.json", "data/tokenizer/tokenizer_config.json",
    "data/tokenizer/manifest.json", "data/tokenized_corpus.json", "data/text_fingerprints.safetensors",
    "metrics.jsonl", "plan.json", "config.yaml",
)  # fmt: skip
"""Of a pretraining run that was stopped in a step."""
FINISHED = (
    "summary.json", "model/model.safetensors", "model/config.json", "model/tokenizer.json",
    "model/pretune.json", "model/manifest.json", "model/text_fingerprints.safetensors",
)  # fmt: skip
"""Of one that has ended."""
WAYS_OUT = ("remove", "another folder", "--out", "prepare the text again", "is begun anew")


def state_files(setting: Setting, tries: int) -> list[Row]:
    """``tries`` at each kind of work."""
    return [
        _stopped_run(setting, tries), _finished_run(setting, tries), _answers(setting, tries),
        _cleaning(setting, tries), _cleaned(setting, tries),
    ]  # fmt: skip


def damage(path: Path, draw: random.Random) -> str:
    """Damage a file in one of three ways; which."""
    content = bytearray(path.read_bytes())
    at = draw.randrange(len(content))
    how = draw.choice(("flipped", "flipped", "cut", "gone"))
    if how == "flipped":
        content[at] ^= 1 << draw.randrange(8)
    if how == "gone":
        path.unlink()
    else:
        path.write_bytes(content[:at] if how == "cut" else content)
    return f"{path.name} {how} at {at}"


def said(setting: Setting, words: list[str], fault: Callable[[], None] | None = None) -> Ended:
    """A command of pretune in a child."""

    def body() -> None:
        sys.argv = ["pretune", *words]
        if fault is not None:
            fault()
        command_line.main()

    return child(setting.folder, body)


def ends_well(run_again: Callable[[], Ended], file: Path, same: Callable[[], None], row: Row) -> None:
    """As undisturbed at once, or after the way out that one line names."""
    ended = run_again()
    if ended.code == 0:
        row.saw("as undisturbed")
        same()
        return
    one_line(ended)
    line = next(line for line in ended.err.splitlines() if line.startswith("pretune:"))
    check(ended.code in (1, 2) and (file.name in line or file.parent.name in line), ended)
    check(any(word in line for word in WAYS_OUT), line)
    row.saw("named, with the way out")
    if f"{file}: " in line and "remove it and run the command again" in line:
        file.unlink()
        ended = run_again()
        check(ended.code == 0, ended.err)
        same()


def _stopped_run(setting: Setting, tries: int) -> Row:
    row = Row("a file of a stopped run damaged", "bit for bit as undisturbed, or named with the way out")
    draw, stopped = random.Random(11), setting.folder / "stopped-run"
    events = Events("step", 8, lambda: send(setting.folder, signal.SIGTERM))
    ended = setting.run(stopped, lambda: events.watch() and None, source=setting.raw)
    check(ended.code == 3, ended.err)
    for number in range(tries):
        name = STOPPED[(7 * number) % len(STOPPED)]
        with setting.fresh("damaged-run") as run, row.trying(f"{name}, try {number}"):
            shutil.copytree(stopped, run)
            what = damage(run / name, draw)
            again = partial(setting.run, run, source=setting.raw)
            with row.naming(what):
                ends_well(again, run / name, partial(_same_run, setting, run), row)
    shutil.rmtree(stopped)
    return row


def _finished_run(setting: Setting, tries: int) -> Row:
    row = Row("a file of a finished run damaged", "its model is put back, or the file is named")
    draw = random.Random(12)
    for number in range(tries):
        name = FINISHED[number % len(FINISHED)]
        with setting.fresh("damaged-run") as run, row.trying(f"{name}, try {number}"):
            shutil.copytree(setting.first, run)
            what = damage(run / name, draw)
            again = partial(setting.run, run, source=setting.raw)
            with row.naming(what):
                ends_well(again, run / name, partial(_same_run, setting, run), row)
    return row


def _same_run(setting: Setting, run: Path) -> None:
    for name in ("model.safetensors", "tokenizer.json", "config.json", "pretune.json"):
        same = (run / "model" / name).read_bytes() == (setting.first / "model" / name).read_bytes()
        check(same, f"another {name} at the end")
    check(log_of(run) == log_of(setting.first), "another log at the end")


def _answers(setting: Setting, tries: int) -> Row:
    row = Row("answers of predict, half-written, damaged", "the same bytes at the end")
    draw, folder = random.Random(13), setting.folder / "answers"
    folder.mkdir()
    records = folder / "records.jsonl"
    records.write_text(
        "".join(json.dumps({"text": f"The [MASK] saw {n} castles."}) + "\n" for n in range(40))
    )
    words = ["predict", str(setting.first / "model"), "--data", str(records), "--out"]
    ended = said(setting, [*words, str(folder / "whole.jsonl")])
    check(ended.code == 0, ended.err)
    for number in range(tries):
        out = folder / "out" / "said.jsonl"
        shutil.rmtree(out.parent, ignore_errors=True)
        with row.trying(f"try {number}"):
            ended = said(setting, [*words, str(out)], partial(_dies_after, draw.randint(1, 4)))
            check(ended.code == -signal.SIGKILL, ended)
            file = out.with_name("said.jsonl.partial" + ("", ".json")[number % 2])
            what = damage(file, draw)
            with row.naming(what):
                same = partial(_same_files, folder / "whole.jsonl", out)
                ends_well(partial(said, setting, [*words, str(out)]), file, same, row)
    shutil.rmtree(folder)
    return row


def _dies_after(pieces: int) -> None:
    write, seen = ResumableFile.write, [0]

    def mortal(*arguments: object) -> None:
        seen[0] += 1
        if seen[0] > pieces:
            kill_me()
        write(*arguments)  # type: ignore[arg-type]

    ResumableFile.write = mortal  # type: ignore[method-assign,assignment]


def _same_files(one: Path, other: Path) -> None:
    check(one.read_bytes() == other.read_bytes(), f"{other.name} is another file at the end")


def _cleaning_words(setting: Setting, out: Path) -> list[str]:
    return [
        "data", "prepare", str(setting.raw), "--out", str(out), "--processes", "1", "--deduplicate", "near",
        "shard_megabytes=0.004",
    ]  # fmt: skip


def _cleaning(setting: Setting, tries: int) -> Row:
    row = Row("a stopped data prepare damaged", "the same text at the end, or named with the way out")
    draw, whole, out = random.Random(14), setting.folder / "clean", setting.folder / "cleaning"
    ended = said(setting, _cleaning_words(setting, whole), _small_batches)
    check(ended.code == 0, ended.err)
    parts = len(list((whole / "text").iterdir()))
    check(parts >= 3, f"{parts} parts")
    for number in range(tries):
        partial_folder = out.with_name("cleaning.partial")
        shutil.rmtree(out, ignore_errors=True)
        shutil.rmtree(partial_folder, ignore_errors=True)
        with row.trying(f"try {number}"):
            ended = said(setting, _cleaning_words(setting, out), partial(_dies_after_parts, 2))
            check(ended.code == -signal.SIGKILL, ended)
            files = sorted(
                path for path in partial_folder.rglob("*") if path.is_file() and path.stat().st_size
            )
            file = files[(5 * number) % len(files)]
            what = damage(file, draw)
            with row.naming(what):
                again = partial(said, setting, _cleaning_words(setting, out), _small_batches)
                ends_well(again, file, partial(_same_text, whole, out), row)
    shutil.rmtree(out, ignore_errors=True)
    return row


def _small_batches() -> None:
    """A part ends where a batch does: more of them."""
    workers.BATCH_DOCUMENTS = 40


def _dies_after_parts(count: int) -> None:
    _small_batches()
    write, seen = data_module.write_progress, [0]

    def mortal(*arguments: object) -> None:
        write(*arguments)  # type: ignore[arg-type]
        seen[0] += 1
        if seen[0] == count:
            kill_me()

    data_module.write_progress = mortal  # type: ignore[assignment]


def _same_text(whole: Path, out: Path) -> None:
    for path in sorted((whole / "text").iterdir()):
        _same_files(path, out / "text" / path.name)
    check(
        {p.name for p in (whole / "text").iterdir()} == {p.name for p in (out / "text").iterdir()},
        "other parts",
    )


def _cleaned(setting: Setting, tries: int) -> Row:
    """Pretraining on a prepared text of which a part is damaged."""
    row = Row("a prepared text damaged", "pretrain and data prepare name the file and the way out")
    draw, whole, out = random.Random(15), setting.folder / "clean", setting.folder / "cleaned"
    for number in range(tries):
        shutil.rmtree(out, ignore_errors=True)
        with setting.fresh("damaged-run") as run, row.trying(f"try {number}"):
            shutil.copytree(whole, out)
            files = [out / "cleaned.json", *sorted((out / "text").iterdir())]
            file = files[number % len(files)] if number else files[1]
            what = damage(file, draw)
            with row.naming(what):
                if not file.exists() and file.name == "cleaned.json":
                    row.saw("then any folder of text")
                    continue
                ended = setting.run(run, source=out)
                one_line(ended)
                line = next(line for line in ended.err.splitlines() if line.startswith("pretune:"))
                check(file.name in line and "prepare the text again" in line, line)
                check(not run.exists(), "a run was begun")
                row.saw("named, with the way out")
    shutil.rmtree(out, ignore_errors=True)
    shutil.rmtree(whole, ignore_errors=True)
    return row
