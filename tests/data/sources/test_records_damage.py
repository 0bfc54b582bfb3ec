"""A damaged file is named and counted, what is good in it and beside it is read."""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import re
import tempfile
import tracemalloc
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow
import pytest
import zstandard
from pyarrow import parquet

from pretune.data.sources import compression, input_file
from pretune.data.sources.records import RecordLog, read_records
from pretune.errors import DataError

LINES = "".join(
    json.dumps({"text": f"{number} {random.Random(number).randbytes(60).hex()}"}) + "\n"
    for number in range(4000)
).encode()


def read(*paths: Path | str, columns: tuple[str, ...] = ("text",)) -> tuple[list[str], RecordLog]:
    log = RecordLog()
    texts = [str(record.fields["text"]) for record in read_records(paths, columns=columns, log=log)]
    return texts, log


def table(rows: int = 3000, column: str = "text") -> bytes:
    out = io.BytesIO()
    texts = [f"{row} {random.Random(row).randbytes(40).hex()}" for row in range(rows)]
    parquet.write_table(
        pyarrow.table({column: texts}), out, row_group_size=1000, compression="none",
        use_dictionary=False, write_page_checksum=True,
    )  # fmt: skip
    return out.getvalue()


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return out.getvalue()


def cut(content: bytes) -> bytes:
    return content[: len(content) * 2 // 3]


def flipped(content: bytes, at: float) -> bytes:
    place = int(len(content) * at)
    return content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :]


ZST = zstandard.ZstdCompressor(write_checksum=True)
SENTENCE = "The ferry left the harbour before sunrise. "

DAMAGED: dict[str, tuple[str, bytes, str, int | None]] = {
    # what: (name, content, reason, good records kept of it at least; None: none at all)
    "cut gzip": ("x.jsonl.gz", cut(gzip.compress(LINES)), r"cut off: the gzip data end at byte [\d,]+", 2000),
    "gzip with a wrong sum": (
        "x.jsonl.gz", flipped(gzip.compress(LINES), 1 - 1e-6), "gzip data are broken", 0,
    ),
    "no gzip": ("x.jsonl.gz", LINES, "gzip data are broken before byte", None),
    "empty gzip": ("x.txt.gz", b"", "the file is empty", None),
    "cut Zstandard": ("x.jsonl.zst", cut(ZST.compress(LINES)), "cut off: the Zstandard data end", 1000),
    "broken Zstandard": ("x.jsonl.zst", flipped(ZST.compress(LINES), 0.6), "Zstandard data are broken", 0),
    "no Zstandard": ("x.txt.zst", LINES, "Zstandard data are broken", None),
    "cut zip": ("x.zip", cut(zipped({"a.txt": b"a", "b.jsonl": LINES})), "no zip archive, or cut off", 2000),
    "no zip": ("x.zip", LINES, "no zip archive, or cut off", None),
    "zip with a broken member": (
        "x.zip", flipped(zipped({"a.jsonl": LINES, "b.txt": b"good"}, zipfile.ZIP_STORED), 0.5),
        r"x\.zip/a\.jsonl: damaged after [\d,]+ bytes: Bad CRC-32", 1,
    ),
    "archive in an archive": (
        "x.zip", zipped({"in.zip": zipped({"a.txt": b"a"}), "b.txt.gz": gzip.compress(b"b"), "c.txt": b"c"}),
        r"x\.zip/b\.txt\.gz: packed within an archive", 1,
    ),
    "zip without text": ("x.zip", zipped({"a.png": b"a"}), r"the archive holds no \.bio, .*\.csv", None),
    "zip that leads out": (
        "x.zip", zipped({"../a.txt": b"a", "/b.txt": b"b", "c.txt": b"c"}),
        r"x\.zip/\.\./a\.txt: its name leads out of the archive", 1,
    ),
    "empty Parquet": ("x.parquet", b"", "the file is empty", None),
    "cut Parquet": ("x.parquet", cut(table()), "no Parquet, or cut off", None),
    "Parquet with a damaged row group": ("x.parquet", flipped(table(), 0.5), "row group 1 is damaged", 2000),
    "Parquet without texts": ("x.parquet", table(column="txt"), "no column 'text'.*did you mean 'txt'", None),
    "packed Parquet that is cut": ("x.parquet.gz", cut(gzip.compress(table())), "cut off: the gzip", None),
    "JSON list that is cut": (
        "x.json", b'[{"text": "one"},\n {"text": "two"},\n {"te', "no JSON from object 3", 2,
    ),
    "JSON list that is not closed": (
        "x.json", b'[{"text": "one"}, ', "the list is not closed after object 1", 1,
    ),
    "JSON object around the list": (
        "x.json", b'{\n "data": [{"text": "one"}]}', "no column 'text'.*'data' holds a list of objects", None,
    ),
    "empty JSON": ("x.json", b"", "the file is empty", None),
    "CSV without texts": (
        "x.csv", b"label;txt\na;b\n", "no column 'text'; there are: label, txt; did you mean 'txt'", None,
    ),
    "CSV with an open quote": (
        "x.csv", b'text,label\none,a\n"two,b\nthree,c\n"four, and",d\nfive,e\n', "x.csv:3: no CSV", 4
    ),
    "CSV with an open quote at the end": (
        "x.csv", b'text,label\none,a\n"two,b\nthree,c\n', "x.csv:3: no CSV: unexpected end of data", 2
    ),
    "text of another encoding": (
        "x.txt", "Müßig über Brücken. ".encode("latin-1") * 9, "byte 1 is no UTF-8", None,
    ),
    "binary text": ("x.txt", b"\x7fELF\2\1\1\0\0\0" * 50, "byte 7 is zero: not a UTF-8 text file", None),
    "picture named text": (
        "x.txt", b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 9, "is zero: not a UTF-8", None,
    ),
    "PDF named text": ("x.txt", b"%PDF-1.7 plain letters", "it begins as another kind", None),
    "table of a spreadsheet": ("x.csv", zipped({"a.xml": b"a"}), "not a UTF-8 text file", None),
    "lines with broken UTF-8": (
        "x.jsonl", LINES[:5000] + b'{"text": "caf\xc3 "}\n' + LINES, r"x\.jsonl:\d+: ", 3999
    ),
    "lines with zeros": (
        "x.jsonl", b'{"text": "one"}\n' + b"\0" * 100 + b"\n" + LINES, r"x\.jsonl:2: byte 0 of", 4001,
    ),
    "rows with broken UTF-8": (
        "x.csv", b"text\n" + b"good row\n" * 50 + b"caf\xc3 \n" + b"row\n", r"x\.csv:52: byte 3", 51,
    ),
    "page that is cut": (
        "x.html.gz", cut(gzip.compress(b"<html><body><p>" + LINES[:20000].replace(b"\n", b"</p><p>"))),
        "cut off", 1,
    ),
    "page without text": ("x.html", b"<html></html>", "the page holds no main text", None),
}  # fmt: skip


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_file_costs_nothing_but_itself(case: str, tmp_path: Path) -> None:
    name, content, reason, kept = DAMAGED[case]
    (tmp_path / "a.txt").write_text("before")
    (tmp_path / name).write_bytes(content)
    (tmp_path / "z.jsonl").write_text('{"text": "after"}\n')
    texts, log = read(tmp_path)
    assert texts[0] == "before"
    assert texts[-1] == "after"
    assert len(texts) - 2 >= (kept or 0)
    assert kept is not None or len(texts) == 2
    assert 1 <= log.num_bad <= 3
    named = "\n".join([*log.corrupt_files, *log.examples])
    assert str(tmp_path / name) in named
    assert re.search(reason, named), named
    log.raise_if_too_many_bad()
    assert all(sentence in log.summary() for sentence in (*log.corrupt_files, *log.examples))
    assert log.bytes_read == log.bytes_total == sum(p.stat().st_size for p in tmp_path.iterdir())


@pytest.mark.parametrize("case", [case for case, about in DAMAGED.items() if about[3] is None])
def test_the_only_file_that_cannot_be_read_is_an_error(case: str, tmp_path: Path) -> None:
    name, content, reason, _ = DAMAGED[case]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=rf"(?s){name}.*{reason}"):
        read(tmp_path / name)[1].raise_if_too_many_bad()


def test_more_damaged_files_than_a_share_are_fatal(tmp_path: Path) -> None:
    for number in range(12):
        (tmp_path / f"{number:02}.parquet").write_bytes(b"none")
    (tmp_path / "good.txt").write_text("good")
    texts, log = read(tmp_path)
    assert texts == ["good"]
    with pytest.raises(DataError, match=r"(?s)12 of 13 records.*00\.parquet: no Parquet.*and 2 more"):
        log.raise_if_too_many_bad()


# -- text with a few broken places ----------------------------------------------------------------


def test_a_few_broken_characters_of_a_text_are_replaced_and_said(tmp_path: Path) -> None:
    file = tmp_path / "x.txt"
    good = "春眠不觉晓，处处闻啼鸟。夜来风雨声，花落知多少？\n" * 100
    content = good.encode()
    file.write_bytes(content[:2920] + b"\xff" + content[2920:5840] + b"\0" * 512 + content[5840:])
    [text], log = read(file)
    assert text.count("�") == 2  # a run of zeros is one hole
    assert text.replace("�", "") == good
    assert log.notes == [f"{file}: 2 broken characters replaced, the first at byte 2,920"]
    assert log.num_bad == 0
    file.write_bytes(content[:292] + b"\xff" + content[292:584] + b"\xff\xfe")
    with pytest.raises(DataError, match=r"byte 292 is no UTF-8.*3 broken characters in 203"):
        read(file)[1].raise_if_too_many_bad()


@pytest.mark.parametrize("encoding", ["gb18030", "utf-16"])
def test_a_few_broken_characters_of_another_encoding_are_replaced(encoding: str, tmp_path: Path) -> None:
    file = tmp_path / "x.txt"
    good = "春天来了，花园里的花都开了。孩子们在草地上奔跑，老人坐在长椅上晒太阳。\n" * 100
    file.write_bytes((good + "�" * 100).encode(encoding))  # what was written so is no damage
    assert read(file)[0] == [good + "�" * 100]
    before, after = good[:250].encode(encoding), good[250:].encode(encoding).removeprefix(b"\xff\xfe")
    broken = {"gb18030": b"\xff", "utf-16": b"\x00\xd8"}[encoding]
    file.write_bytes(before + broken + after)
    [text], log = read(file)
    assert text.count("�") == 1
    assert text.replace("�", "") == good
    assert log.notes[0] == f"{file}: read as {encoding.upper()}"


@pytest.mark.slow
def test_a_line_of_200_megabytes_is_named_in_bounded_memory(tmp_path: Path) -> None:
    for name, before, after in (
        ("x.jsonl", b'{"text": "', b'"}\n{"text": "b"}\n'),
        ("x.csv", b"text\n", b"\nb\n"),
    ):
        with (tmp_path / name).open("wb") as out:
            out.write(before)
            for _ in range(200):
                out.write(b"x" * (1 << 20))
            out.write(after)
    tracemalloc.start()
    texts, log = read(tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert texts == ["b", "b"]
    assert [line.rpartition("/")[2] for line in log.examples] == [
        "x.csv:2: longer than 64 MiB", "x.jsonl:1: longer than 64 MiB",
    ]  # fmt: skip
    assert peak < 3 * input_file.MAX_LINE_BYTES


def test_a_text_that_is_one_line_of_many_megabytes_comes_in_pieces(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_bytes(b"x" * (10 << 20))
    tracemalloc.start()
    log = RecordLog()
    total = sum(len(r.fields["text"]) for r in read_records([tmp_path], log=log))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total == 10 << 20
    assert peak < 12 << 20


def test_a_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compression, "_BOMB_BYTES", 1 << 20)
    zeros = b"a" * (8 << 20)
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(zeros))
    (tmp_path / "b.txt.zst").write_bytes(zstandard.ZstdCompressor().compress(zeros))
    (tmp_path / "c.zip").write_bytes(zipped({"c.txt": zeros}))
    _, log = read(tmp_path)
    assert [line.rpartition(": ")[2] for line in log.corrupt_files] == ["no text is packed so tightly"] * 3


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("seekable", [True, False])
def test_of_a_cut_archive_the_members_before_the_cut_are_read(
    method: int, seekable: bool, tmp_path: Path
) -> None:
    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return seekable

        def tell(self) -> int:
            return super().tell() if seekable else unsupported()

    def unsupported() -> int:
        raise io.UnsupportedOperation

    out = Pipe()
    with zipfile.ZipFile(out, "w", method) as archive:  # into a pipe, sizes follow the data
        for name, content in (("b.txt", b"two"), ("a/", b""), ("a/c.txt", b"three"), ("d.jsonl", LINES)):
            archive.writestr(name, content)
    (tmp_path / "x.zip").write_bytes(cut(out.getvalue()))
    if not seekable and method == zipfile.ZIP_STORED:  # nothing says where a member ends
        with pytest.raises(DataError, match=r"x\.zip: no zip archive, or cut off"):
            read(tmp_path / "x.zip")
        return
    texts, log = read(tmp_path / "x.zip")
    assert texts[:2] == ["two", "three"]
    assert len(texts) > 2000
    assert [line.partition(": ")[0] for line in log.corrupt_files][-1] == str(tmp_path / "x.zip")
    assert log.num_bad <= 2


def test_an_encrypted_member_is_named(tmp_path: Path) -> None:
    content = bytearray(zipped({"a.txt": b"secret", "b.txt": b"open"}))
    content[6] |= 1  # the flag of the first member, in its own header and in the list at the end
    content[content.index(b"PK\1\2") + 8] |= 1
    (tmp_path / "x.zip").write_bytes(content)
    texts, log = read(tmp_path)
    assert texts == ["open"]
    assert log.corrupt_files == [f"{tmp_path / 'x.zip'}/a.txt: it is encrypted: unpack the archive first"]


# -- folders --------------------------------------------------------------------------------------


@contextmanager
def ordinary_user() -> Iterator[None]:
    """Permissions do not bind root."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


@pytest.fixture
def open_folder(tmp_path: Path) -> Path:
    """A folder that an ordinary user can reach."""
    for folder in (tmp_path, *tmp_path.parents):
        if Path(tempfile.gettempdir()) in folder.parents:
            folder.chmod(0o755)
    return tmp_path


def test_what_may_not_be_read_is_named(open_folder: Path) -> None:
    (open_folder / "a.txt").write_text("good")
    (open_folder / "b.txt").write_text("closed")
    (open_folder / "c.parquet").write_bytes(table(10))
    (open_folder / "d").mkdir()
    (open_folder / "d" / "x.txt").write_text("closed")
    for name in ("b.txt", "c.parquet", "d"):
        (open_folder / name).chmod(0)
    try:
        with ordinary_user():
            texts, log = read(open_folder)
            with pytest.raises(DataError, match=r"b\.txt: cannot be read: Permission denied"):
                read(open_folder / "b.txt")
            with pytest.raises(DataError, match=r"d: cannot be listed: Permission denied"):
                read(open_folder / "d")[1].raise_if_too_many_bad()
    finally:
        (open_folder / "d").chmod(0o755)
    assert texts == ["good"]
    assert [line.rpartition("/")[2] for line in log.corrupt_files] == [
        "d: cannot be listed: Permission denied", "b.txt: cannot be read: Permission denied",
        "c.parquet: cannot be read: Permission denied",
    ]  # fmt: skip


def test_links_are_followed_once_and_broken_ones_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("good")
    (tmp_path / "again.txt").symlink_to("a.txt")
    (tmp_path / "broken.txt").symlink_to("nowhere.txt")
    (tmp_path / "chase.txt").symlink_to("chase.txt")
    (tmp_path / "gone.png").symlink_to("nowhere.png")
    (tmp_path / "loop").symlink_to(".")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "up").symlink_to("..")
    os.mkfifo(tmp_path / "pipe.txt")
    texts, log = read(tmp_path)
    assert texts == ["good"]
    assert [line.rpartition("/")[2] for line in log.corrupt_files] == [
        "broken.txt: a broken link to nowhere.txt",
        "chase.txt: cannot be read: Too many levels of symbolic links",
    ]
    assert sorted(line.rpartition("/")[2].partition(":")[0] for line in log.skipped_files) == [
        "gone.png", "loop", "pipe.txt", "up",
    ]  # fmt: skip
    with pytest.raises(DataError, match="a broken link to nowhere"):
        read(tmp_path / "broken.txt")


def test_a_file_that_vanishes_is_named(tmp_path: Path) -> None:
    for name in ("a.txt", "b.jsonl", "c.parquet", "d.zip", "e.html", "f.txt"):
        (tmp_path / name).write_text(name)
    log = RecordLog()
    records = read_records([tmp_path], log=log)
    first = next(records)
    for name in ("b.jsonl", "c.parquet", "d.zip", "e.html"):
        (tmp_path / name).unlink()
    assert [first.fields["text"], *(r.fields["text"] for r in records)] == ["a.txt", "f.txt"]
    assert len(log.corrupt_files) == 4
    assert all("No such file" in line for line in log.corrupt_files)


def test_a_fault_of_the_disk_ends_one_file_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.jsonl").write_bytes(LINES)
    (tmp_path / "b.txt").write_text("good")
    opened = Path.open

    class Failing(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() >= 200_000:
                raise OSError(5, "Input/output error")
            return super().read(100_000)

    def open_(path: Path, *how: str) -> object:
        return Failing(path.read_bytes()) if path.name == "a.jsonl" and how == ("rb",) else opened(path, *how)

    content = (tmp_path / "a.jsonl").read_bytes()
    monkeypatch.setattr(Path, "read_bytes", lambda path: content)
    monkeypatch.setattr(Path, "open", open_)
    texts, log = read(tmp_path)
    assert texts[-1] == "good"
    assert len(texts) == 1 + content[:200_000].count(b"\n")
    assert log.corrupt_files == [f"{tmp_path / 'a.jsonl'}: cannot be read: Input/output error"]
