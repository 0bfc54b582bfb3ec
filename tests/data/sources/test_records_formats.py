"""Every kind of file says the same in every packing and encoding."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pytest
import zstandard
from pyarrow import parquet

from pretune.data.sources.readers import html
from pretune.data.sources.records import RecordLog, read_records
from pretune.errors import DataError

TEXTS = (
    "The ferry left the harbour before sunrise, and nobody on the quay said a word.",
    "春天来了，花园里的花都开了。孩子们在草地上奔跑，老人坐在长椅上晒太阳。",
    "他们说，今年的天气比去年好得多，所以大家都很高兴；“是的，”她说。",
)
"""What holds in UTF-8, UTF-16 and GB18030."""
TRADITIONAL = tuple(
    text.translate(str.maketrans("来园里开们长晒阳说气岁乐兴", "來園裡開們長曬陽說氣歲樂興"))
    for text in TEXTS
)
LABELS = ("a", "b", "c")


def rows(texts: tuple[str, ...]) -> list[dict[str, str]]:
    return [{"text": text, "label": label} for text, label in zip(texts, LABELS, strict=True)]


def separated(texts: tuple[str, ...], delimiter: str) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, ["text", "label"], delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows(texts))
    return out.getvalue()


KINDS: dict[str, Callable[[tuple[str, ...]], str]] = {
    ".txt": "\n".join,
    ".md": lambda texts: "# Title\n\n" + "\n".join(texts),
    ".jsonl": lambda texts: "\n".join(json.dumps(row, ensure_ascii=False) for row in rows(texts)),
    ".ndjson": lambda texts: "\r\n".join(json.dumps(row, ensure_ascii=False) for row in rows(texts)),
    ".json": lambda texts: json.dumps(rows(texts), ensure_ascii=False, indent=1),
    ".csv": lambda texts: separated(texts, ","),
    ".tsv": lambda texts: separated(texts, "\t"),
}
PACKINGS: dict[str, Callable[[bytes, str], bytes]] = {
    "": lambda content, name: content,
    ".gz": lambda content, name: gzip.compress(content),
    ".zst": lambda content, name: zstandard.ZstdCompressor().compress(content),
    ".zip": lambda content, name: zipped({name: content}),
}
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "gb18030", "big5")


def zipped(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return out.getvalue()


def read(*paths: Path | str, columns: tuple[str, ...] = ("text",)) -> tuple[list[str], RecordLog]:
    log = RecordLog()
    texts = [str(record.fields["text"]) for record in read_records(paths, columns=columns, log=log)]
    log.raise_if_too_many_bad()
    assert log.bytes_read == log.bytes_total
    return texts, log


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_says_the_same_however_it_is_packed_and_encoded(
    kind: str, packing: str, encoding: str, tmp_path: Path
) -> None:
    texts = TRADITIONAL if encoding == "big5" else TEXTS
    content = KINDS[kind](texts)
    file = tmp_path / f"x{kind}{packing}"
    file.write_bytes(PACKINGS[packing](content.encode(encoding), f"x{kind}"))
    found, log = read(file)
    assert found == ([content] if kind in (".txt", ".md") else list(texts))
    assert (log.num_bad, log.num_files) == (0, 1)
    if encoding.startswith("utf-8"):
        assert (dict(log.encodings), log.notes) == ({"utf-8": 1}, [])
    else:
        assert dict(log.encodings) == {encoding: 1}
        assert log.notes == [f"{name_of(file, kind, packing)}: read as {encoding.upper()}"]


def name_of(file: Path, kind: str, packing: str) -> str:
    return f"{file}/x{kind}" if packing == ".zip" else str(file)


@pytest.mark.parametrize("packing", PACKINGS)
def test_parquet_is_read_with_its_other_columns(packing: str, tmp_path: Path) -> None:
    table = pyarrow.table({"text": TEXTS, "label": LABELS, "n": [1, 2, 3], "raw": [b"\xff"] * 3})
    out = io.BytesIO()
    parquet.write_table(table, out, row_group_size=2)
    file = tmp_path / f"x.parquet{packing}"
    file.write_bytes(PACKINGS[packing](out.getvalue(), "x.parquet"))
    log = RecordLog()
    records = list(read_records([file], columns=("text", "label"), log=log))
    assert [dict(r.fields) for r in records] == [
        {"text": t, "label": x, "n": n, "raw": b"\xff"}
        for n, (t, x) in enumerate(zip(TEXTS, LABELS, strict=True), 1)
    ]
    assert [r.line for r in records] == [1, 2, 3]


def test_parquet_texts_may_be_bytes_or_a_dictionary(tmp_path: Path) -> None:
    for n, column in enumerate((
        pyarrow.array([text.encode() for text in TEXTS], pyarrow.binary()),
        pyarrow.array(TEXTS).dictionary_encode(),
        pyarrow.array(TEXTS, pyarrow.large_string()),
    )):  # fmt: skip
        parquet.write_table(pyarrow.table({"text": column}), tmp_path / f"{n}.parquet")
    assert read(tmp_path)[0] == [*TEXTS] * 3


# -- values in columns ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "recognised"),
    [
        ("text;label\nA ferry, early;x\nA harbour;y\n", "values separated by a semicolon, double quotes"),
        ("text\tlabel\nA ferry, early\tx\nA harbour\ty\n", "values separated by a tab, double quotes"),
        ("sep=;\ntext;label\nA ferry, early;x\nA harbour;y\n", None),
        ("text|label\nA ferry, early|x\nA harbour|y\n", "values separated by a bar, double quotes"),
        ("text,label\n'A ferry, early',x\n'A harbour',y\n", "values separated by a comma, single quotes"),
        ("'text';'label'\n'A ferry, early';'x'\n'A harbour';'y'\n", "a semicolon, single quotes"),
        ("text,label\n'A ferry, early','x'\n'A harbour','y'\n", "a comma, single quotes"),
    ],
)
def test_other_delimiters_and_quotes_are_recognised(
    content: str, recognised: str | None, tmp_path: Path
) -> None:
    file = tmp_path / "x.csv"
    file.write_text(content)
    found, log = read(file, columns=("text", "label"))
    assert found == ["A ferry, early", "A harbour"]
    assert log.notes[0].endswith(recognised) if recognised else not log.notes


def test_tabs_with_loose_quotes_are_read_as_they_are(tmp_path: Path) -> None:
    file = tmp_path / "x.tsv"
    file.write_text('text\tlabel\n"Never," he said\tx\n12" of snow\ty\n"open\tz\n')
    assert read(file, columns=("text", "label"))[0] == ['"Never," he said', '12" of snow', '"open']


def test_apostrophes_and_quoted_line_ends_are_no_other_dialect(tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    file.write_text('text,label\n\'tis the season,x\n"don\'t; say ""no"",\nplease",y\n')
    found, log = read(file)
    assert found == ["'tis the season", 'don\'t; say "no",\nplease']
    assert not log.notes


def test_values_of_many_lines_are_one_record_each(tmp_path: Path) -> None:
    texts = ["\n".join(f'{number} "line" {line}, and' for line in range(300)) for number in range(5)]
    for columns in (("text",), ("text", "label")):
        file = tmp_path / "x.csv"
        with file.open("w", newline="", encoding="utf-8") as out:
            csv.writer(out).writerows([columns, *([text, "a"][: len(columns)] for text in texts)])
        found, log = read(file, columns=columns)
        assert found == texts
        assert (log.num_bad, log.notes) == (0, [])


def test_json_that_is_really_lines_is_read_as_lines(tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    file.write_text(KINDS[".jsonl"](TEXTS), encoding="utf-8")
    assert read(file)[0] == [*TEXTS]


@pytest.mark.parametrize("suffix", [".jsonl", ".ndjson", ".json"])
@pytest.mark.parametrize(
    "content",
    [
        json.dumps(rows(TEXTS)),
        json.dumps(rows(TEXTS), indent=2, ensure_ascii=False),
        "\n".join(json.dumps(row, indent=2) for row in rows(TEXTS)),
        ",\n".join(json.dumps(row, indent=2) for row in rows(TEXTS)),
        "".join(json.dumps(row) for row in rows(TEXTS)),
        "\n".join(json.dumps(row) for row in rows(TEXTS)),
    ],
    ids=["list", "printed list", "printed objects", "printed objects with commas", "one line", "lines"],
)
def test_json_is_read_however_its_objects_lie(content: str, suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f"x{suffix}"
    file.write_text(content, encoding="utf-8")
    found, log = read(file, columns=("text", "label"))
    assert found == [*TEXTS]
    assert log.num_bad == 0


def test_a_damaged_first_line_makes_no_other_kind_of_json(tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    for first in ('{"text": "cut', "{", '{"text": "a"} {"text": "b"}', "[1, 2]", '["a"]', '{"text": "a",'):
        file.write_text(first + "\n" + '{"text": "good"}\n' * 3)
        found, log = read(file)
        assert found == ["good"] * 3
        assert (log.num_bad, log.notes) == (1, [])


def test_a_long_json_list_is_read_object_by_object(tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    texts = [f"{number} " + "数" * (number % 50 * 200) for number in range(500)]
    file.write_text(json.dumps([{"text": text} for text in texts]), encoding="utf-8")
    assert file.stat().st_size > 4 << 20
    assert read(file)[0] == [text for text in texts if text.strip()]


# -- web pages ------------------------------------------------------------------------------------

PAGE = """<html><head><meta charset="{charset}"><title>{title}</title></head><body>
<nav><a href="/">Home</a><a href="/map">Map of the site</a></nav><article><h1>{title}</h1>{body}</article>
<footer>All rights reserved. Terms of use. Cookies.</footer></body></html>"""
CHINESE_BODY = "".join(f"<p>{TEXTS[1]}{TEXTS[2]}</p>" for _ in range(4))
ENGLISH_BODY = "".join(f"<p>{TEXTS[0]} A café opened at noon. {TEXTS[0]}</p>" for _ in range(4))


@pytest.mark.parametrize(
    ("declared", "encoding", "body"),
    [
        ("utf-8", "utf-8", CHINESE_BODY),
        ("gb2312", "gb18030", CHINESE_BODY),
        ("iso-8859-1", "cp1252", ENGLISH_BODY),
        ("utf-8", "gb18030", CHINESE_BODY),  # what it declares is not so
        ("no-such-charset", "utf-16", CHINESE_BODY),
    ],
)
@pytest.mark.parametrize("kind", [".html", ".htm.gz"])
def test_a_page_gives_its_title_and_main_text(
    declared: str, encoding: str, body: str, kind: str, tmp_path: Path
) -> None:
    page = PAGE.format(charset=declared, title="Ferries and gardens", body=body).encode(encoding)
    file = tmp_path / f"x{kind}"
    file.write_bytes(gzip.compress(page) if kind.endswith(".gz") else page)
    [text] = read(file)[0]
    assert text.startswith("Ferries and gardens\n")
    assert (TEXTS[1] if body is CHINESE_BODY else "A café opened at noon.") in text
    assert "rights reserved" not in text
    assert "Map of the site" not in text


def test_a_page_beyond_its_limits_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "x.html"
    file.write_text(PAGE.format(charset="utf-8", title="A", body=ENGLISH_BODY * 400), encoding="utf-8")
    monkeypatch.setattr(html, "MAX_PAGE_SECONDS", 0.01)
    with pytest.raises(DataError, match=r"x\.html: the page takes longer than 0\.01 seconds"):
        read(file)
    monkeypatch.setattr(html, "MAX_PAGE_BYTES", 1 << 10)
    with pytest.raises(DataError, match=r"x\.html: the page is larger than"):
        read(file)
    monkeypatch.undo()
    file.write_text("<html><body></body></html>")
    with pytest.raises(DataError, match=r"x\.html: the page holds no main text"):
        read(file)


# -- where files come from ------------------------------------------------------------------------


def test_patterns_are_expanded_sorted_and_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("b.txt", "a.txt", "deep/er/c.txt", "a.png", "[x].txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    monkeypatch.chdir(tmp_path)
    assert read("?.txt")[0] == ["a.txt", "b.txt"]
    assert read("a.*")[0] == ["a.txt"]
    assert read("**/*.txt")[0] == ["[x].txt", "a.txt", "b.txt", "deep/er/c.txt"]
    assert read("[x].txt", "a.txt", "./a.txt")[0] == ["[x].txt", "a.txt"]  # a name before a pattern
    with pytest.raises(DataError, match=r"\*\.doc: no .* file with text in it matches"):
        read("*.doc")


def test_of_a_folder_of_prepared_text_only_the_text_is_read(tmp_path: Path) -> None:
    (tmp_path / "text").mkdir()
    (tmp_path / "cleaned.json").write_text("{}")
    (tmp_path / "report.html").write_text("<p>no text of a corpus</p>")
    packed = zstandard.ZstdCompressor().compress(b'{"text": "kept"}\n')
    (tmp_path / "text" / "shard-00000.jsonl.zst").write_bytes(packed)
    found, log = read(tmp_path)
    assert (found, log.num_skipped) == (["kept"], 0)


def test_documents_beside_labelled_records_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("about the set")
    (tmp_path / "train.csv").write_text("text,label\na,b\n")
    found, log = read(tmp_path, columns=("text", "label"))
    assert (found, log.num_skipped, log.num_bad) == (["a"], 1, 0)


def test_an_archive_of_several_members_and_a_chinese_name(tmp_path: Path) -> None:
    file = tmp_path / "x.zip"
    members = {
        "b/two.txt": b"two", "a.jsonl": b'{"text": "one"}\n', "picture.png": b"", "__MACOSX/a.txt": b"no",
        ".hidden.txt": b"no",
    }  # fmt: skip
    file.write_bytes(zipped(members))
    found, log = read(file)
    assert (found, log.num_skipped, log.num_files) == (["one", "two"], 3, 2)
    # as Windows writes a Chinese name: the bytes of GBK, and no sign of the encoding
    name = "文本.txt".encode("gb18030")
    file.write_bytes(zipped({"n" * (len(name) - 4) + ".txt": b"three"}).replace(b"nnnn.txt", name))
    assert [r.location for r in read_records([file], log=RecordLog())] == [f"{file}/文本.txt"]


TWICE = """
from pretune.data.sources.records import *
for _ in range(2):
    log = RecordLog()
    print([(r.location, r.fields["text"]) for r in read_records(["-"], log=log)])
print(*source_identities(["-"]))
"""


@pytest.mark.parametrize(
    ("content", "first"),
    [
        (b'{"text": "one"}\n{"text": "two"}\n', ("standard input:1", "one")),
        ('{"text": "春天来了，花园里的花都开了。"}\n'.encode("gb18030"), ("standard input:1", TEXTS[1][:14])),
        (b"plain\ntext\n", ("standard input", "plain\ntext\n")),
        (gzip.compress(b'{"text": "one"}\n'), ("standard input:1", "one")),
        (zstandard.ZstdCompressor().compress(b"plain"), ("standard input", "plain")),
        (zipped({"a.txt": b"inside"}), ("standard input/a.txt", "inside")),
    ],
    ids=["lines", "lines in GB18030", "text", "gzip", "Zstandard", "zip"],
)
def test_standard_input_is_read_again_and_again(
    content: bytes, first: tuple[str, str], tmp_path: Path
) -> None:
    said = subprocess.run(
        [sys.executable, "-c", TWICE],
        input=content,
        capture_output=True,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )
    lines = said.stdout.decode().splitlines()
    assert len(lines) == 3, said.stderr.decode()
    assert lines[0] == lines[1]
    assert repr(first) in lines[0]
    assert lines[2] != "-"
    assert not list(tmp_path.iterdir())  # what was kept is gone with the process
