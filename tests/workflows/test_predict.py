"""Predictions on a file: order, bad rows, formats, and going on after a kill to the same bytes."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import pretune
from pretune.errors import DataError, UsageError
from pretune.model.model import Model
from pretune.runtime.progress import NullReporter
from pretune.workflows.predict import job

pytestmark = pytest.mark.slow


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def many(texts: Any, tmp_path: Path) -> Path:
    """Three chunks of records and a bit, of uneven length, with bad ones among them."""
    rows = [json.loads(line) for line in texts.corpus.read_text(encoding="utf-8").splitlines()]
    lines = [
        json.dumps({"id": n, "text": rows[n % len(rows)]["text"][: 10 + n % 90]}, ensure_ascii=False)
        for n in range(70)
    ]
    lines[30] = "{not json"
    lines[31] = '{"id": 31, "text": "  "}'
    path = tmp_path / "many.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


class Killed(BaseException):
    """Ends a process at once, as far as the code under test can tell."""


def die_after(monkeypatch: pytest.MonkeyPatch, name: str, calls: int) -> None:
    real, made = getattr(Model, name), 0

    def mortal(self: Model, *words: Any, **named: Any) -> Any:
        nonlocal made
        made += 1
        if made > calls:
            raise Killed
        return real(self, *words, **named)

    monkeypatch.setattr(Model, name, mortal)


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
@pytest.mark.parametrize("on_bad", ["skip", "keep"])
def test_a_killed_prediction_goes_on_to_the_same_bytes(
    classifier: Path, many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on_bad: Any, suffix: str
) -> None:
    monkeypatch.setattr(job, "CHUNK_SIZE", 20)
    whole, out = tmp_path / f"whole{suffix}", tmp_path / f"said{suffix}"
    expected = pretune.predict(classifier, data=many, out=whole, on_bad=on_bad)
    for calls in (2, 1):  # killed twice, in the third and in the fourth chunk
        with monkeypatch.context() as patch:
            die_after(patch, "predict", calls)
            with pytest.raises(Killed):
                pretune.predict(classifier, data=many, out=out, on_bad=on_bad)
        assert not out.exists()
        with (tmp_path / f"said{suffix}.partial").open("ab") as file:
            file.write(b'{"id": 40, "text": "half a li'[:-1])  # what a kill leaves of a line
    answered = 0
    real = Model.predict

    def counted(self: Model, records: Any, *words: Any, **named: Any) -> Any:
        nonlocal answered
        answered += len(records)
        return real(self, records, *words, **named)

    monkeypatch.setattr(Model, "predict", counted)
    again = pretune.predict(classifier, data=many, out=out, on_bad=on_bad)
    assert answered == 10  # rows 61 to 70: nothing was done twice
    assert {**again, "out": ""} == {**expected, "out": ""}
    assert out.read_bytes() == whole.read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([many.name, whole.name, out.name])


def test_bad_rows_are_kept_in_their_places(classifier: Path, many: Path, tmp_path: Path) -> None:
    summary = pretune.predict(classifier, data=many, out=tmp_path / "said.jsonl", on_bad="keep")
    assert (summary["records"], summary["bad"]) == (68, 2)
    said = read(tmp_path / "said.jsonl")
    assert [row.get("id") for row in said] == [None if n in (30, 31) else n for n in range(70)]
    assert [(row["line"], row["file"]) for row in said if "error" in row] == [
        (31, str(many)),
        (32, str(many)),
    ]
    assert "'text' is empty" in said[31]["error"]


def test_many_bad_rows_are_an_error_before_any_work_unless_kept(
    classifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data.jsonl"
    data.write_text('{"text": "a"}\n' + "{\n" * 12, encoding="utf-8")
    with monkeypatch.context() as patch:
        die_after(patch, "predict", 0)
        with pytest.raises(DataError, match=r"12 of 13 records(.|\n)*data\.jsonl:2(.|\n)*--on-bad keep"):
            pretune.predict(classifier, data=data, out=tmp_path / "said.jsonl")
    assert [p.name for p in tmp_path.iterdir()] == ["data.jsonl"]
    assert pretune.predict(classifier, data=data, out=tmp_path / "said.jsonl", on_bad="keep")["bad"] == 12


def test_a_table_holds_what_the_lines_hold(classifier: Path, many: Path, tmp_path: Path) -> None:
    for suffix in ("csv", "jsonl"):
        pretune.predict(classifier, data=many, out=tmp_path / f"said.{suffix}", on_bad="keep")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "said.csv").read_text(encoding="utf-8"))))
    for cells, answer in zip(rows, read(tmp_path / "said.jsonl"), strict=True):
        values = {
            k: json.dumps(v, ensure_ascii=False) if isinstance(v, dict) else str(v) for k, v in answer.items()
        }
        assert {k: v for k, v in cells.items() if v} == values


@pytest.mark.parametrize("changed", ["data", "model", "options"])
def test_what_was_begun_with_something_else_is_not_gone_on_with(
    classifier: Path, many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    monkeypatch.setattr(job, "CHUNK_SIZE", 20)
    out = tmp_path / "said.jsonl"
    with monkeypatch.context() as patch:
        die_after(patch, "predict", 1)
        with pytest.raises(Killed):
            pretune.predict(classifier, data=many, out=out)
    left = (tmp_path / "said.jsonl.partial").read_bytes()
    model = pretune.load(classifier)
    if changed == "data":
        many.write_text(many.read_text(encoding="utf-8") + '{"text": "one more"}\n', encoding="utf-8")
    if changed == "model":
        next(model.network.parameters()).data[0] += 1e-3
    options: dict[str, Any] = {"batch_size": 3} if changed == "options" else {}
    named = {"options": "batch_size: None -> 3"}.get(changed, f"{changed}: ")
    with pytest.raises(UsageError, match=f"said.jsonl.partial: .*{named}.*remove it"):
        pretune.predict(model, data=many, out=out, **options)
    assert (tmp_path / "said.jsonl.partial").read_bytes() == left


@pytest.mark.parametrize("damage", ["sidecar", "rows", "answers", "no sidecar", "cut"])
def test_a_half_written_file_that_is_damaged_is_not_believed(
    classifier: Path, many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    monkeypatch.setattr(job, "CHUNK_SIZE", 20)
    whole, out = tmp_path / "whole.jsonl", tmp_path / "said.jsonl"
    pretune.predict(classifier, data=many, out=whole)
    with monkeypatch.context() as patch:
        die_after(patch, "predict", 2)
        with pytest.raises(Killed):
            pretune.predict(classifier, data=many, out=out)
    partial, sidecar = tmp_path / "said.jsonl.partial", tmp_path / "said.jsonl.partial.json"
    text, content = sidecar.read_text(encoding="utf-8"), partial.read_bytes()
    if damage == "sidecar":
        sidecar.write_text(text[: len(text) // 2], encoding="utf-8")
    elif damage == "rows":  # as if 20 more were answered
        sidecar.write_text(text.replace('"rows": 40', '"rows": 60'), encoding="utf-8")
    elif damage == "answers":
        partial.write_bytes(content[:50] + b"\0" + content[51:])
    elif damage == "cut":
        partial.write_bytes(content[:-10])
    else:
        sidecar.unlink()
        with pytest.raises(UsageError, match=r"said\.jsonl\.partial: .*not begun by pretune.*move it away"):
            pretune.predict(classifier, data=many, out=out)
        assert partial.read_bytes() == content
        return
    notes = Notes()
    pretune.predict(classifier, data=many, out=out, reporter=notes)
    assert "begun anew" in notes.text
    assert out.read_bytes() == whole.read_bytes()


def test_no_file_that_is_there_is_replaced_unless_asked(
    classifier: Path, many: Path, tmp_path: Path, cli: Any
) -> None:
    """Least of all the records themselves."""
    before = many.read_bytes()
    said = cli("predict", classifier, "--data", many, "--out", many)
    assert said.code == 2
    assert "many.jsonl: is there already" in said.err
    assert many.read_bytes() == before
    out = tmp_path / "said.jsonl"
    out.write_text("mine\n")
    with pytest.raises(UsageError, match="is there already"):
        pretune.predict(classifier, data=many, out=out)
    assert out.read_text() == "mine\n"
    assert cli("predict", classifier, "--data", many, "--out", out, "--overwrite").code == 0
    assert len(read(out)) == 68
    assert sorted(path.name for path in tmp_path.iterdir()) == ["many.jsonl", "said.jsonl"]


class Notes(NullReporter):
    """A reporter that keeps what it is told."""

    def __init__(self) -> None:
        self.text = ""

    def say(self, text: str) -> None:
        self.text += text + "\n"


def test_small_batches_say_the_same(classifier: Path, many: Path, tmp_path: Path) -> None:
    pretune.predict(classifier, data=many, out=tmp_path / "one.jsonl", batch_size=1)
    pretune.predict(classifier, data=many, out=tmp_path / "together.jsonl")
    for one, other in zip(read(tmp_path / "one.jsonl"), read(tmp_path / "together.jsonl"), strict=True):
        assert one["id"] == other["id"]
        assert one["confidence"] == pytest.approx(other["confidence"], abs=1e-5)


def test_pairs_of_a_file_are_those_of_classify(classifier: Path, tmp_path: Path) -> None:
    data = tmp_path / "pairs.csv"
    data.write_text("text,text_pair\nThe captain.,士兵看见城堡。\nThe barn., \n", encoding="utf-8")
    summary = pretune.predict(classifier, data=data, out=tmp_path / "said.jsonl")
    assert (summary["records"], summary["bad"]) == (1, 1)  # a second text that is empty is no pair
    (said,) = read(tmp_path / "said.jsonl")
    (expected,) = pretune.load(classifier).classify(["The captain."], ["士兵看见城堡。"])
    assert (said["text_pair"], said["label"]) == ("士兵看见城堡。", expected.value)
    assert said["confidence"] == pytest.approx(expected.confidence, abs=1e-6)


def test_a_language_model_goes_on_too(
    llama: Path, bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data.jsonl"
    data.write_text("".join(f'{{"text": "The {n} [MASK]"}}\n' for n in range(20)), encoding="utf-8")
    for model, call in ((llama, "generate"), (bert, "fill")):
        whole, out = tmp_path / f"{call}-whole.jsonl", tmp_path / f"{call}.jsonl"
        writing = job.GenerationOptions(max_new_tokens=3)
        pretune.predict(model, data=data, out=whole, generation_options=writing)
        with monkeypatch.context() as patch:
            die_after(patch, call, 11)
            with pytest.raises(Killed):
                pretune.predict(model, data=data, out=out, generation_options=writing)
        assert len(read(tmp_path / f"{call}.jsonl.partial")) == job.GENERATION_CHUNK_SIZE
        pretune.predict(model, data=data, out=out, generation_options=writing)
        assert out.read_bytes() == whole.read_bytes()


def test_an_unknown_kind_of_output_is_named(classifier: Path, many: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"said\.xlsx: .*\.jsonl or \.csv"):
        pretune.predict(classifier, data=many, out=tmp_path / "said.xlsx")


def test_a_real_kill(classifier: Path, many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGKILL between two chunks, of a process that is slow enough to be met there."""
    monkeypatch.setattr(job, "CHUNK_SIZE", 20)
    out, partial = tmp_path / "said.jsonl", tmp_path / "said.jsonl.partial"
    script = (
        "import sys, time, torch, pretune\n"
        "from pretune.model.model import Model\n"
        "from pretune.workflows.predict import job\n"
        "job.CHUNK_SIZE, real = 20, Model.predict\n"
        "def slow(self, records, *words, **named):\n"
        "    time.sleep(0.5)\n"
        "    return real(self, records, *words, **named)\n"
        "Model.predict = slow\n"
        "pretune.predict(sys.argv[1], data=sys.argv[2], out=sys.argv[3])\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(classifier), str(many), str(out)])
    deadline = time.monotonic() + 60
    while not (partial.exists() and partial.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not out.exists()
    assert partial.stat().st_size
    for path in (out, tmp_path / "whole.jsonl"):
        pretune.predict(classifier, data=many, out=path)
    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_streams_in_and_out(
    classifier: Path, many: Path, tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    pretune.predict(classifier, data=many, out=tmp_path / "said.jsonl")
    with many.open("rb") as file:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(file.read())))
    pretune.predict(classifier, data="-", out="-")
    assert capsysbinary.readouterr().out == (tmp_path / "said.jsonl").read_bytes()
