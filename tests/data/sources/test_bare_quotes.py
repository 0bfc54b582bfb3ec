"""A quote that opens no value swallows no rows, wherever it stands; values with line ends stay whole."""

from __future__ import annotations

import csv
import random
import tracemalloc
from pathlib import Path

import pytest

from pretune.data.sources.readers import rows as rows_module
from pretune.data.sources.records import RecordLog, read_records


def read(path: Path, columns: tuple[str, ...] = ("text", "label")) -> tuple[list[tuple[str, ...]], RecordLog]:
    log = RecordLog()
    records = read_records([path], columns=columns, log=log)
    return [tuple(str(r.fields[c]) for c in columns) for r in records], log


def sentences(count: int) -> list[tuple[str, str]]:
    return [(f"Sentence number {n} of the text.", ("neg", "pos")[n % 2]) for n in range(count)]


def write(path: Path, rows: list[tuple[str, str]], delimiter: str) -> Path:
    lines = [f"text{delimiter}label", *(delimiter.join(row) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


QUOTED = {
    "opened and closed later": ('"A quote that opens here and never ends', 'and one that ends here"'),
    "opened twice": ('"Opened', '"and opened again'),
    "words in quotes": ('"Never" he said', 'a "word" in quotes'),
    "opened at the end of the file": ('"Opened', "and no other"),
}


@pytest.mark.parametrize("delimiter", ["\t", ",", ";", "|"])
@pytest.mark.parametrize("place", [3, 150, 213, 900])
@pytest.mark.parametrize("case", QUOTED)
def test_a_bare_quote_costs_no_row(case: str, place: int, delimiter: str, tmp_path: Path) -> None:
    rows = sentences(1000)
    for at, text in zip((place, place + 9), QUOTED[case], strict=True):
        rows[at] = (text, rows[at][1])
    found, log = read(write(tmp_path / ("x.tsv" if delimiter == "\t" else "x.csv"), rows, delimiter))
    if case == "words in quotes" and delimiter != "\t":
        assert len(found) >= 999  # `"Never" he said` is read as Python's csv reads it, or as it stands
        assert found[place + 9] == rows[place + 9]
    else:
        assert found == rows
    assert log.num_bad == 0


def test_of_a_table_with_numbers_the_numbers_tell(tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    lines = [f"{n},Sentence number {n} of the text." for n in range(500)]
    lines[300], lines[320] = '300,"Great movie', '320,they said: stop"'
    file.write_text("id,text\n" + "\n".join(lines))
    found, log = read(file, ("id", "text"))
    assert found == [tuple(line.split(",", 1)) for line in lines]
    assert "line 302: a quote that opens no value is read as it stands" in log.notes[0]


def test_where_nothing_tells_it_is_said(tmp_path: Path) -> None:
    draw = random.Random(0)
    file = tmp_path / "x.csv"
    lines = [f"Title {draw.random()},Body {draw.random()} of it" for _ in range(500)]
    lines[300], lines[320] = '"Great movie,body', 'another body of it",body'
    file.write_text("title,text\n" + "\n".join(lines))
    _, log = read(file, ("title", "text"))
    assert "line 302: a value in quotes goes on for 21 lines that could all be rows" in log.notes[0]


VALUES = {
    "lines": "One line,\nand another, of several\n\nand a last",
    "many lines": "\n".join(f"{n}, and on" for n in range(3000)),
    "quotes": 'He said "no",\nshe said "yes, or so"\n"both"',
    "rows of another table": "a,neg\nb,pos\nc,neg,",
    "poem": "Roses are red,\nviolets are blue,\nsugar is sweet,\nand so are you",
}


@pytest.mark.parametrize("delimiter", ["\t", ",", ";"])
@pytest.mark.parametrize("case", VALUES)
def test_a_value_of_several_lines_stays_whole(case: str, delimiter: str, tmp_path: Path) -> None:
    rows = sentences(600)
    for at in (2, 100, 250, 251, 599):
        rows[at] = (VALUES[case], rows[at][1])
    for columns in (("text", "label"), ("label", "text")):
        file = tmp_path / ("x.tsv" if delimiter == "\t" else "x.csv")
        with file.open("w", newline="", encoding="utf-8") as out:
            ordered = rows if columns[0] == "text" else [(label, text) for text, label in rows]
            csv.writer(out, delimiter=delimiter).writerows([columns, *ordered])
        found, log = read(file)
        assert found == rows
        assert log.num_bad == 0


def test_a_large_table_takes_bounded_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows_module, "MAX_ROW_LINES", 500)
    lines = [f"A sentence of the text, {n:>500}.\tneg\n" for n in range(12_000)]
    for at in (5000, 11_000):  # farther apart than a value may go on
        lines[at] = '"' + lines[at]
    file = tmp_path / "x.tsv"
    file.write_text("text\tlabel\n" + "".join(lines))
    log, count = RecordLog(), 0
    tracemalloc.start()
    for _ in read_records([file], columns=("text", "label"), log=log):
        count += 1
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (count, log.num_bad) == (12_000, 0)
    assert peak < 6 << 20  # the file has 6.4 MB, half of it behind the first quote


def test_a_space_after_each_delimiter_is_none_of_the_values(tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    file.write_text('text, label\nA ferry, neg\n"A harbour, early", pos\nA quay, "neg"\n')
    assert read(file)[0] == [("A ferry", "neg"), ("A harbour, early", "pos"), ("A quay", "neg")]


def test_a_table_with_cr_line_ends_is_read(tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    file.write_bytes(b"text,label\rA ferry,neg\rA harbour,pos\r")
    assert read(file)[0] == [("A ferry", "neg"), ("A harbour", "pos")]
    file.write_bytes("text,label\r渡船,neg\r".encode("utf-16"))
    assert read(file)[0] == [("渡船", "neg")]
    lines = tmp_path / "x.jsonl"
    lines.write_bytes(b'{"text": "a", "label": "b"}\r{"text": "c", "label": "d"}\r')
    assert read(lines)[0] == [("a", "b"), ("c", "d")]
