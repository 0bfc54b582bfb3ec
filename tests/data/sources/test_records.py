"""Good records are read whatever their neighbours; bad ones are named by file, line and reason."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import pytest

from pretune.data.cleaning.exact_duplicates import ExactDuplicates
from pretune.data.sources import input_file
from pretune.data.sources.readers import plain
from pretune.data.sources.records import RecordLog, read_records
from pretune.errors import DataError


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def read(*paths: Path, columns: tuple[str, ...] = ("text",)) -> tuple[list[dict], RecordLog]:
    log = RecordLog()
    return [dict(record.fields) for record in read_records(paths, columns=columns, log=log)], log


def test_a_folder_is_read_sorted_with_what_is_below(tmp_path: Path) -> None:
    write(tmp_path / "b.jsonl", '\ufeff{"text": "two", "n": 1}\n\n{"text": "三"}')
    write(tmp_path / "a" / "x.txt", "\ufeffone\n")
    write(tmp_path / "c.csv", 'text,label\r\n"four, or\nmore",x\r\nfive,y\r\n')
    for name in (".hidden.txt", "image.png", ".git/x.txt", "empty.txt"):
        write(tmp_path / name, "" if "empty" in name else "no")
    records, log = read(tmp_path)
    assert [r["text"] for r in records] == ["one\n", "two", "三", "four, or\nmore", "five"]
    assert (records[1]["n"], records[4]["label"]) == (1, "y")
    assert (log.num_good, log.num_files, len(log.skipped_files)) == (5, 3, 4)
    assert log.skipped_files[0] == f"{tmp_path / '.git'}: hidden"
    log.raise_if_too_many_bad()
    assert log.summary() == "5 records from 3 files; 4 other files left out\n  not read: 1 .png"


def test_a_record_says_where_it_came_from(tmp_path: Path) -> None:
    file = write(tmp_path / "x.csv", "text\na\nb\n")
    log = RecordLog()
    assert [r.location for r in read_records([file, file], log=log)] == [f"{file}:2", f"{file}:3"]


def test_a_long_text_comes_in_pieces_that_are_the_text(tmp_path: Path) -> None:
    for content in ("渡船在日出之前离开了港口。" * 100_000, "A line.\n" * 300_000, "龘" * 800_000):
        pieces = [r["text"] for r in read(write(tmp_path / "x.txt", content))[0]]
        assert "".join(pieces) == content
        assert len(pieces) > 1
        assert max(len(piece.encode()) for piece in pieces) < 2 * plain.PIECE_BYTES + 8


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.txt", b"good \xd6\xd0", r"x\.txt: byte 5 is no UTF-8; convert it"),
        ("x.txt", b"\x00\x01", r"x\.txt: byte 0 is zero"),
        ("x.csv", b"text\n\xd6\xd0\n", r"x\.csv:2: byte 0 of the line is no UTF-8"),
        ("x.csv", b"txt,label\na,b\n", r"no column 'text'; there are: txt, label; did you mean 'txt'"),
        ("x.jsonl", b'{"wording": "a"}\n', r"no column 'text'; there are: wording"),
        ("x.jsonl", b"\x00\x01\n", r"x\.jsonl: byte 0 is zero: not a UTF-8 text file"),
        ("x.txt", b"", "the file is empty"),
        ("x.doc", b"a", r"\.doc: a file must be one of \.bio, .*\.csv, \.htm, .*\.txt"),
        ("f/x.doc", b"a", r"the folder holds no"),
    ],
)
def test_an_unusable_file_is_an_error_with_its_place(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    file = write(tmp_path / name, content)
    with pytest.raises(DataError, match=message):
        read(file.parent if "/" in name else file)[1].raise_if_too_many_bad()


def test_a_missing_path_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: no such file or folder"):
        read(tmp_path / "nowhere")


def test_bad_records_are_skipped_by_name(tmp_path: Path) -> None:
    bad = [
        b"{",
        b"[1]",
        b'{"a": 1}',
        b'{"text": 3}',
        b'{"text": " "}',
        b'{"text": "\xd6"}',
        b'{"text": null}',
    ]
    file = write(tmp_path / "x.jsonl", b"\n".join([b'{"text": "good"}', *bad]))
    records, log = read(file)
    assert len(records) == 1
    assert log.num_bad == len(bad)
    reasons = [example.split(": ", 1)[1] for example in log.examples]
    assert reasons[1:5] == [
        "expected an object, found list",
        "'text' is missing",
        "'text' is int, not text",
        "'text' is empty",
    ]
    assert reasons[5].startswith("byte 10 of the line is no UTF-8")
    assert log.examples[0].startswith(f"{file}:2: no JSON")
    log.raise_if_too_many_bad()  # ten bad ones are forgiven


def test_too_many_bad_records_are_fatal(tmp_path: Path) -> None:
    lines = [json.dumps({"text": "good"})] * 500 + ["{"] * 11
    _, log = read(write(tmp_path / "x.jsonl", "\n".join(lines)))
    with pytest.raises(DataError, match=r"11 of 511 records cannot be used:\n.*:501: no JSON"):
        log.raise_if_too_many_bad()
    _, log = read(write(tmp_path / "y.jsonl", "{\n"))
    with pytest.raises(DataError, match="1 of 1"):
        log.raise_if_too_many_bad()
    _, log = read(write(tmp_path / "z.txt", " \n"))
    with pytest.raises(DataError, match="no records"):
        log.raise_if_too_many_bad()


def test_a_row_with_too_many_values_is_bad(tmp_path: Path) -> None:
    records, log = read(write(tmp_path / "x.csv", "text,label\na,b\nc,d,e\nf\n"), columns=("text", "label"))
    assert records == [{"text": "a", "label": "b"}]
    assert log.num_bad == 2


def test_a_line_beyond_the_limit_is_never_held_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(input_file, "MAX_LINE_BYTES", 1 << 20)
    file = tmp_path / "x.jsonl"
    with file.open("wb") as out:
        out.write(b'{"text": "a"}\n{"text": "')
        for _ in range(40):
            out.write(b"x" * (1 << 20))
        out.write(b'"}\n{"text": "b"}\n')
    tracemalloc.start()
    records, log = read(file)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [r["text"] for r in records] == ["a", "b"]
    assert log.examples == [f"{file}:2: longer than 1 MiB"]
    assert peak < 8 << 20


def test_duplicates_are_seen_whatever_their_white_space() -> None:
    seen = ExactDuplicates()
    assert [seen.is_duplicate(text) for text in ("a b", "a  b\n", "A b", "\ud800", "a b")] == [
        False, True, False, False, True,
    ]  # fmt: skip
    assert len(seen) == 3
