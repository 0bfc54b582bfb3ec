"""A terminal whose encoding lacks a character gets its escape; what is JSON stays JSON."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from pretune.cli import main
from pretune.cli.shared import emit

TEXT = "人民 naïve 😀"


def stream(encoding: str) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(), encoding=encoding, write_through=True)


def written(file: io.TextIOWrapper, encoding: str) -> str:
    buffer = file.buffer
    assert isinstance(buffer, io.BytesIO)
    return buffer.getvalue().decode(encoding)


@pytest.mark.parametrize("encoding", ["cp1252", "gbk", "utf-8"])
def test_every_text_can_be_printed(encoding: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    out, err = stream(encoding), stream(encoding)
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    monkeypatch.setattr(sys, "argv", ["pretune", "runs", "show", str(tmp_path / TEXT)])
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert ended.value.code == 2
    shown = written(err, encoding)
    assert "no run" in shown
    expected = TEXT.encode(encoding, "backslashreplace").decode(encoding)
    assert expected in shown.replace("\n", "")
    emit({}, False, [TEXT, "\ud800"])
    assert written(out, encoding).splitlines() == [expected, "\\ud800"]


@pytest.mark.parametrize("encoding", ["cp1252", "gbk", "utf-8"])
def test_json_is_json_in_every_encoding(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    out = stream(encoding)
    monkeypatch.setattr(sys, "stdout", out)
    for text in (TEXT, "plain", "人民"):
        emit({"text": text}, True, [])
    assert [json.loads(line)["text"] for line in written(out, encoding).splitlines()] == [
        TEXT,
        "plain",
        "人民",
    ]
    assert encoding != "utf-8" or "人民" in written(out, encoding)
