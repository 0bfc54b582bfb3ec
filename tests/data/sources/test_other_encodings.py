"""An encoding that is not read unasked is named with the way out, and read where it is given."""

from __future__ import annotations

import json
import random
import zipfile
from pathlib import Path

import pytest

from pretune.data.sources.charsets import check_encoding, guess_encoding, is_ascii_compatible
from pretune.data.sources.read_options import ReadOptions
from pretune.data.sources.records import RecordLog, read_records
from pretune.errors import ConfigError, DataError

SAMPLES = {
    "cp1252": "It’s “fine”: the naïve café costs 5 € – or more. El niño comió piñas. ",
    "latin-1": "Le café fermé à côté du théâtre. Déjà vu, où êtes-vous, Noël à Besançon. ",
    "cp1250": "Příliš žluťoučký kůň úpěl ďábelské ódy. ",
    "cp1251": "Привет, мир. Это текст на русском языке. ",
    "koi8-r": "Привет, мир. Это текст на русском языке. ",
    "cp1253": "Καλημέρα κόσμε, αυτό είναι ελληνικό κείμενο. ",
    "shift_jis": "これは日本語のテキストです。漢字とかなが混ざっている。",
    "euc-kr": "안녕하세요 이것은 한국어 텍스트입니다. ",
}


def read(path: Path, encoding: str | None = None) -> tuple[list[str], RecordLog]:
    log = RecordLog()
    records = read_records([path], read_options=ReadOptions(encoding=encoding), log=log)
    texts = [str(record.fields["text"]) for record in records]
    log.raise_if_too_many_bad()
    return texts, log


@pytest.mark.parametrize("encoding", SAMPLES)
def test_an_encoding_is_named_and_then_read(encoding: str, tmp_path: Path) -> None:
    text, file = SAMPLES[encoding] * 5, tmp_path / "x.txt"
    file.write_bytes(text.encode(encoding))
    guess = "cp1252" if encoding == "latin-1" else encoding
    with pytest.raises(
        DataError, match=rf"x\.txt: byte \d+ is no UTF-8; convert it from .*--encoding {guess}$"
    ):
        read(file)
    texts, log = read(file, guess)
    assert texts == [text]
    assert log.notes == [f"{file}: read as {guess.upper()}"]


@pytest.mark.parametrize(
    "encoding", ["utf-16-le", "utf-32-be", "cp037", "utf-7", "hz", "iso2022_jp", "gb18030", "big5"]
)
def test_any_codec_is_taken(encoding: str, tmp_path: Path) -> None:
    text = "Hello, ferry.\n" * 9 if encoding in ("cp037", "utf-7", "iso2022_jp") else "船到了，hello。\n" * 9
    file = tmp_path / "x.txt"
    file.write_bytes(text.encode(encoding))
    assert read(file, encoding)[0] == [text]


def test_of_a_folder_in_two_encodings_each_file_is_read_in_its_own(tmp_path: Path) -> None:
    for name, encoding in (
        ("a.txt", "cp1252"),
        ("b.txt", "utf-8"),
        ("c.txt", "utf-8-sig"),
        ("d.txt", "utf-16"),
    ):
        (tmp_path / name).write_bytes(SAMPLES["latin-1"].encode(encoding))
    assert read(tmp_path, "cp1252")[0] == [SAMPLES["latin-1"]] * 4


@pytest.mark.parametrize("name", ["base64", "rot13", "nothing", "", "idna", "undefined", "a\0b", "x" * 1000])
def test_what_is_no_encoding_of_text_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="Python reads no text in it; there are cp1252") as raised:
        check_encoding(name)
    assert len(str(raised.value)) < 300


def test_codecs_in_which_ascii_stands_for_itself() -> None:
    assert all(map(is_ascii_compatible, ("cp1252", "gb18030", "shift_jis", "koi8-r", "utf-8")))
    assert not any(map(is_ascii_compatible, ("utf-7", "hz", "iso2022_jp", "utf-16-le", "cp037")))


@pytest.mark.parametrize("share", [0.001, 0.02, 0.3])
def test_a_table_in_another_encoding_is_one_bad_file(share: float, tmp_path: Path) -> None:
    draw = random.Random(0)
    rows = [
        f"{'Déjà vu à Noël' if draw.random() < share or n in (5, 9, 80) else 'Seen before'}: number {n},a\n"
        for n in range(400)
    ]
    (tmp_path / "x.csv").write_bytes(("text,label\n" + "".join(rows)).encode("cp1252"))
    (tmp_path / "y.jsonl").write_text('{"text": "good"}\n' * 200)
    texts, log = read(tmp_path)
    assert log.num_bad == 1
    assert "no UTF-8; convert it from CP1252" in log.corrupt_files[0]
    assert texts.count("good") == 200
    assert len(read(tmp_path, "cp1252")[0]) == 600


def test_a_small_table_in_another_encoding_is_refused_whole(tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    file.write_bytes("text;label\nSchöne Fähre;gut\nGood harbour;schlecht\n".encode("cp1252"))
    with pytest.raises(DataError, match=r"x\.csv: byte 14 is no UTF-8; convert it from CP1252"):
        read(file)


def test_one_broken_byte_is_damage_and_no_other_encoding(tmp_path: Path) -> None:
    lines = [json.dumps({"text": f"Number {n}."}).encode() for n in range(300)]
    lines[7] = lines[7].replace(b"Number", b"N\xfcmber")
    (tmp_path / "x.jsonl").write_bytes(b"\n".join(lines))
    texts, log = read(tmp_path / "x.jsonl")
    assert (len(texts), log.num_bad) == (299, 1)
    assert "x.jsonl:8: byte 11 of the line is no UTF-8" in log.examples[0]


# Short poems in traditional characters: by themselves some are told from no other encoding.
POEMS = (
    "寒雨連江夜入吳，平明送客楚山孤。", "葡萄美酒夜光杯，欲飲琵琶馬上催。", "黃鶴樓中吹玉笛", "烽火連三月",
    "朝辭白帝彩雲間，千里江陵一日還。", "羌笛何須怨楊柳", "銀燭秋光冷畫屏，輕羅小扇撲流螢。", "蜀道難",
    "錦瑟無端五十弦", "滄海月明珠有淚，藍田日暖玉生煙。",
)  # fmt: skip


def test_the_files_beside_a_short_text_tell_its_encoding(tmp_path: Path) -> None:
    alone = []
    for number, poem in enumerate(POEMS):
        (tmp_path / f"{number}").mkdir()
        file = tmp_path / f"{number}" / "x.txt"
        file.write_bytes(poem.encode("gb18030"))
        try:
            alone += read(file)[0]
        except DataError:
            continue
        (tmp_path / f"poem{number}.txt").write_bytes(poem.encode("gb18030"))
    assert 0 < len(alone) < len(POEMS)  # some could not be told
    for number, poem in enumerate(POEMS):
        (tmp_path / f"{number}" / "x.txt").unlink()
        (tmp_path / f"{number}").rmdir()
        (tmp_path / f"poem{number}.txt").write_bytes(poem.encode("gb18030"))
    texts, log = read(tmp_path)
    assert texts == [*POEMS]
    assert log.encodings == {"gb18030": len(POEMS)}
    with zipfile.ZipFile(tmp_path / "poems.zip", "w") as archive:
        for number, poem in enumerate(POEMS):
            archive.writestr(f"{number}.txt", poem.encode("gb18030"))
    assert read(tmp_path / "poems.zip")[0] == [*POEMS]
    (tmp_path / "poems.zip").unlink()
    # UTF-8 neighbours decide nothing, and a neighbour in GB18030 makes no French Chinese.
    (tmp_path / "z.txt").write_bytes(SAMPLES["latin-1"].encode("latin-1"))
    texts, log = read(tmp_path)
    assert (len(texts), log.num_bad) == (len(POEMS), 1)


def test_a_guess_of_little_is_none() -> None:
    assert guess_encoding(b'{"text": "\xd3\xef\xc1\xcf"}') is None
    assert guess_encoding(bytes(range(128, 256)) * 3) is None
