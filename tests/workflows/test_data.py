"""Preparing text: the same bytes for one process and two, after a stop as without one; no loss unsaid."""

from __future__ import annotations

import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

import pretune
from pretune.data.cleaning import workers
from pretune.data.sources.records import RecordLog, read_records
from pretune.errors import ConfigError, DataError, Interrupted
from pretune.workflows.data import prepare as workflow

HAN = "天地玄黄宇宙洪荒日月盈昃辰宿列张寒来暑往秋收冬藏闰余成岁律吕调阳云腾致雨露结为霜金生丽水玉出昆冈"
WORDS = (
    "harbour", "captain", "meadow", "shepherd", "bridge", "lantern", "winter", "sailor", "kitchen", "garden",
    "letter", "market", "silver", "morning",
)  # fmt: skip


def story(draw: random.Random) -> str:
    if draw.random() < 0.5:
        return "。".join("".join(draw.sample(HAN, 12)) + "的" for _ in range(8)) + "。"
    return ". ".join("the " + " ".join(draw.sample(WORDS, 8)) for _ in range(6)) + "."


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Two files with duplicates, near duplicates, damage, personal data and noise among the good."""
    draw = random.Random(5)
    folder = tmp_path / "raw"
    folder.mkdir()
    stories = [story(draw) for _ in range(400)]
    rows: list[Any] = []
    for number, text in enumerate(stories):
        rows.append({"text": text})
        if number % 10 == 3:
            rows.append({"text": stories[number - 1]})
        if number % 10 == 5:
            rows.append({"text": text + " 完" if text[0] in HAN else text + " end"})
        if number % 20 == 7:
            rows.append(
                {"text": f"Write to me at person{number}@example.com when sailor {number} is back in town."}
            )
        if number % 50 == 9:
            rows += [{"text": f"#$% {number} ==== ++++ ----"}, "{broken"]
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    (folder / "a.jsonl").write_text("\n".join(lines[:300]) + "\n", encoding="utf-8")
    (folder / "b.jsonl").write_text("\n".join(lines[300:]) + "\n", encoding="utf-8")
    return folder


SETTINGS: dict[str, Any] = {
    "shard_megabytes": 0.02,
    "cleaning": {"deduplicate": "near", "redact": ["email"], "chinese_script": "simplified"},
}


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "BATCH_BYTES", 4096)


def parts(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "text").iterdir())}


def written(folder: Path) -> list[dict[str, Any]]:
    rows = []
    for data in parts(folder).values():
        with zstandard.ZstdDecompressor().stream_reader(data) as stream:
            rows += [json.loads(line) for line in io.TextIOWrapper(stream, encoding="utf-8")]
    return rows


def test_text_is_cleaned_counted_and_explained(raw: Path, tmp_path: Path) -> None:
    done = pretune.prepare_data(SETTINGS, sources=raw, out=tmp_path / "out")
    rows = written(done.folder)
    report = json.loads((done.folder / "report.json").read_text(encoding="utf-8"))
    counts = report["counts"]
    removed = {reason: group["documents"] for reason, group in counts["removed"].items()}
    assert removed["exact_duplicate"] == 40
    assert removed["near_duplicate"] == 40
    assert removed["min_letter_fraction"] == 8
    assert counts["documents_in"] == counts["documents"] + sum(removed.values())
    assert counts["documents"] == len(rows) == done.summary["documents"]
    assert counts["bytes"] == sum(len(row["text"].encode()) for row in rows)
    assert counts["redactions"] == {"email": 20}
    assert report["reading"]["bad"] == 8
    assert all(len(group["examples"]) <= 5 for group in counts["removed"].values())
    assert rows[0].keys() == {"text", "source", "language"}
    assert rows[0]["source"] == f"{raw / 'a.jsonl'}:1"
    assert {row["language"] for row in rows} == {"en", "zh"}
    assert not any("@" in row["text"] for row in rows)
    for name, word in (("report.html", "near duplicate"), ("report.zh.html", "近似重复")):
        assert word in (done.folder / name).read_text(encoding="utf-8")
    assert {p.name for p in done.folder.iterdir()} == {
        "text", "cleaned.json", "report.json", "report.html", "report.zh.html",
    }  # fmt: skip
    assert not done.folder.with_name("out.partial").exists()


def test_the_order_is_that_of_the_input_and_readers_find_the_text(raw: Path, tmp_path: Path) -> None:
    done = pretune.prepare_data(SETTINGS, sources=raw, out=tmp_path / "out")
    rows = written(done.folder)
    places = [(row["source"].rpartition(":")[0], int(row["source"].rpartition(":")[2])) for row in rows]
    assert places == sorted(places)
    log = RecordLog()
    assert [r.fields["text"] for r in read_records([done.folder], log=log)] == [row["text"] for row in rows]


@pytest.mark.slow
def test_two_processes_write_the_same_bytes_as_one(raw: Path, tmp_path: Path) -> None:
    one = pretune.prepare_data(SETTINGS, sources=raw, out=tmp_path / "one")
    two = pretune.prepare_data(SETTINGS, sources=raw, out=tmp_path / "two", processes=2)
    assert len(parts(one.folder)) > 3
    assert parts(one.folder) == parts(two.folder)
    assert (one.folder / "cleaned.json").read_bytes() == (two.folder / "cleaned.json").read_bytes()


@pytest.mark.parametrize("cleaning", [{}, {"boilerplate_min_documents": 3, "deduplicate": "exact"}])
def test_a_stopped_preparation_goes_on(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cleaning: dict[str, Any]
) -> None:
    settings = {**SETTINGS, "cleaning": {**SETTINGS["cleaning"], **cleaning}}
    whole = pretune.prepare_data(settings, sources=raw, out=tmp_path / "whole")
    out = tmp_path / "out"
    cleaned: list[int] = []
    take = workflow._CleaningRun._write_batch
    stops = iter([3, 9, 0, 12])

    def counting(self: Any, batch: Any, answer: Any) -> None:
        take(self, batch, answer)
        cleaned.append(len(batch))
        if len(cleaned) == limit:
            raise Interrupted("stopped")

    monkeypatch.setattr(workflow._CleaningRun, "_write_batch", counting)
    for limit in stops:
        cleaned.clear()
        if limit:
            with pytest.raises(Interrupted):
                pretune.prepare_data(settings, sources=raw, out=out)
            assert not out.exists()
    limit = -1
    cleaned.clear()
    done = pretune.prepare_data(settings, sources=raw, out=out)
    assert sum(cleaned) < done.summary["documents_in"]  # finished parts were not done again
    assert parts(done.folder) == parts(whole.folder)
    assert (done.folder / "cleaned.json").read_bytes() == (whole.folder / "cleaned.json").read_bytes()
    first, second = (
        json.loads((folder / "report.json").read_text(encoding="utf-8")) for folder in (whole.folder, out)
    )
    assert first["counts"] == second["counts"]


@pytest.mark.slow
def test_a_killed_process_leaves_what_the_same_command_goes_on_with(raw: Path, tmp_path: Path) -> None:
    words = [
        sys.executable, "-m", "pretune.cli.main", "data", "prepare", str(raw), "--processes", "2", "--out",
    ]  # fmt: skip
    options = ["shard_megabytes=0.005", "--deduplicate", "near"]
    environment = {**os.environ, "PYTHONPATH": str(Path(pretune.__file__).parents[1])}
    subprocess.run([*words, tmp_path / "whole", *options], env=environment, check=True, capture_output=True)
    for number in (signal.SIGKILL, signal.SIGINT):
        process = subprocess.Popen(
            [*words, tmp_path / "out", *options], env=environment, stderr=subprocess.PIPE
        )
        until = time.monotonic() + 30
        text = tmp_path / "out.partial" / "text"
        while time.monotonic() < until and process.poll() is None and not any(text.glob("*.zst")):
            time.sleep(0.005)
        process.send_signal(number)
        process.communicate(timeout=30)
    subprocess.run([*words, tmp_path / "out", *options], env=environment, check=True, capture_output=True)
    assert parts(tmp_path / "out") == parts(tmp_path / "whole")


def test_a_finished_folder_is_recognised_and_another_is_refused(raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = pretune.prepare_data(SETTINGS, sources=raw, out=out)
    before = parts(out)
    assert pretune.prepare_data(SETTINGS, sources=raw, out=out).summary == done.summary
    with pytest.raises(ConfigError, match=r"settings\.cleaning\.rules: light -> off"):
        pretune.prepare_data({**SETTINGS, "cleaning": {"rules": "off"}}, sources=raw, out=out)
    (raw / "c.jsonl").write_text('{"text": "another file came, and it is new"}\n')
    with pytest.raises(ConfigError, match="another state of the source files"):
        pretune.prepare_data(SETTINGS, sources=raw, out=out)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("x")
    with pytest.raises(ConfigError, match="holds files but no prepared text"):
        pretune.prepare_data(SETTINGS, sources=raw, out=tmp_path / "full")
    assert parts(out) == before


@pytest.mark.parametrize(
    ("cleaning", "error", "message"),
    [
        ({"rules": "strict"}, ConfigError, r"cleaning\.rules = 'strict'"),
        ({"dedup": "near"}, ConfigError, r"there is no key 'cleaning\.dedup'"),
        ({"redact": ["name"]}, ConfigError, r"cleaning\.redact"),
        ({"near_duplicate_threshold": 0.1}, ConfigError, r"cleaning\.near_duplicate_threshold = 0\.1"),
        ({"languages": ["fr"]}, DataError, r"nothing is left of 508 documents \(language 500"),
        ({"bad_words": "nowhere.txt"}, DataError, r"nowhere\.txt: the list of words cannot be read"),
        ({"decontaminate": ["nowhere.jsonl"]}, DataError, r"nowhere\.jsonl: no such file"),
    ],
)
def test_what_cannot_be_done_is_an_error_that_names_it(
    raw: Path, tmp_path: Path, cleaning: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        pretune.prepare_data({"cleaning": cleaning}, sources=raw, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_evaluation_files_of_any_task_are_taken_out(raw: Path, tmp_path: Path) -> None:
    texts = [
        row["text"] for row in written(pretune.prepare_data(SETTINGS, sources=raw, out=tmp_path / "x").folder)
    ]
    questions = tmp_path / "qa.jsonl"
    rows = [{"question": texts[3], "answers": {"text": [texts[7]]}}, {"messages": [{"content": texts[11]}]}]
    questions.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    settings = {**SETTINGS, "cleaning": {**SETTINGS["cleaning"], "decontaminate": [str(questions)]}}
    kept = [
        row["text"] for row in written(pretune.prepare_data(settings, sources=raw, out=tmp_path / "y").folder)
    ]
    assert set(texts) - set(kept) == {texts[3], texts[7], texts[11]}


def test_inspection_says_what_is_there(raw: Path, tmp_path: Path) -> None:
    found = pretune.inspect_data(raw)
    assert found["documents"] == 508
    assert found["exact_duplicates"] == 40
    assert found["near_duplicates"] == 80
    assert found["rules"]["light"]["reasons"]["min_letter_fraction"] == 8
    assert found["rules"]["web"]["kept"] < found["rules"]["light"]["kept"]
    assert set(found["languages"]) == {"en", "zh", "und"}
    assert found["reading"]["bad"] == 8
    assert found["lengths"]["0"] == len("#$% 9 ==== ++++ ----")
    sampled = pretune.inspect_data(raw, sample=0.01)
    assert sampled["sample"]["interval"] > 5
    assert sampled["documents"] == 508
    assert sampled["sample"]["documents"] == -(-508 // sampled["sample"]["interval"])


def test_the_command_line(raw: Path, tmp_path: Path, cli: Callable[..., Any], monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    said = cli("data", "prepare", raw, "--rules", "off", "cleaning.character_width=half", "--print-config")
    assert said.code == 0
    assert "rules: 'off'" in said.out
    assert "width: half" in said.out
    said = cli("data", "prepare", raw, "--dry-run", "--json")
    assert json.loads(said.out)["files"] == 2
    assert not (tmp_path / "runs").exists()
    said = cli("data", "prepare", raw, "--processes", "1", "--json")
    assert said.code == 0
    summary = json.loads(said.out)
    assert (tmp_path / summary["folder"] / "report.html").exists()
    assert cli("data", "prepare", raw, "--rules", "of").code == 2
    assert cli("data", "prepare").code == 2
    said = cli("data", "inspect", raw)
    assert said.code == 0
    assert "508 documents in 2 files" in said.out
    assert json.loads(cli("data", "inspect", raw, "--json").out)["documents"] == 508
