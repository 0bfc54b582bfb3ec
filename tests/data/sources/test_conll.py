"""CoNLL files: sentences of words with tags, as the field writes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from pretune.data.sources.columns import Field
from pretune.data.sources.records import RecordLog, read_records
from pretune.errors import DataError
from pretune.types import Record

FIELDS = (Field("tokens", is_text=False), Field("tags", is_text=False, is_label=True))


def read(path: Path, content: str, log: RecordLog | None = None) -> list[Record]:
    path.write_text(content, encoding="utf-8")
    return list(read_records([path], columns=FIELDS, log=log or RecordLog()))


def test_sentences_of_conll_2003(tmp_path: Path) -> None:
    content = (
        "-DOCSTART- -X- -X- O\n\nEU NNP B-NP B-ORG\nrejects VBZ B-VP O\n\n\n江泽民 NR B-NP B-PER\n在 P O O\n"
        "北京 NR B-NP B-LOC"
    )
    first, second = read(tmp_path / "a.conll", content)
    assert first.fields == {"tokens": ["EU", "rejects"], "tags": ["B-ORG", "O"]}
    assert first.line == 3
    assert second.fields == {"tokens": ["江泽民", "在", "北京"], "tags": ["B-PER", "O", "B-LOC"]}


def test_tabs_separate_words_that_hold_spaces_and_comments_are_no_words(tmp_path: Path) -> None:
    content = "# text = New York is # 1\nNew York\tB-LOC\nis\tO\n#\tO\n1\tO\n"
    [record] = read(tmp_path / "a.bio", content)
    assert record.fields == {"tokens": ["New York", "is", "#", "1"], "tags": ["B-LOC", "O", "O", "O"]}


def test_a_sentence_of_uneven_lines_is_named(tmp_path: Path) -> None:
    log = RecordLog()
    good = "".join(f"word{n} O\n\n" for n in range(30))
    records = read(tmp_path / "a.conll", f"a O\nb\n\n{good}", log)
    assert len(records) == 30
    assert log.examples == [f"{tmp_path / 'a.conll'}:1: lines of 1 and of 2 columns in a sentence"]


def test_words_without_tags_lack_the_column(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="tags"):
        read(tmp_path / "a.conll", "a\nb\n")
