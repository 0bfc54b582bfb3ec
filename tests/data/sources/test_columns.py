"""Fields are found in columns of other names: named, nearly so called, or by a usual name; that is said."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import typer

from pretune.cli.main import app
from pretune.data.sources.columns import (
    ALIASES,
    PAIR_ALIASES,
    Field,
    build_column_spec,
    check_column_names,
    column_option,
)
from pretune.data.sources.read_options import ReadOptions
from pretune.data.sources.records import RecordLog, read_records
from pretune.errors import ConfigError, DataError
from pretune.objectives import parse_objective
from pretune.registry import list_names
from pretune.tasks import find_task

CLASSIFIED = (Field("text"), Field("text_pair", required=False, is_text=False), Field("label", is_label=True))
LABELLED = (*CLASSIFIED[:2], Field("labels", is_text=False, is_label=True))
PAIRED = ("source", "target")


def read(
    path: Path, fields: tuple = CLASSIFIED, *, usual: dict[str, str] | None = None, **columns: str
) -> tuple[list[dict], RecordLog]:
    log = RecordLog()
    reading = ReadOptions(columns, usual=usual or {})
    found = [dict(r.fields) for r in read_records([path], columns=fields, read_options=reading, log=log)]
    log.raise_if_too_many_bad()
    return found, log


def table(path: Path, header: list[str], *rows: list[str], delimiter: str = ",") -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=delimiter).writerows([header, *rows])
    return path


@pytest.mark.parametrize(
    ("header", "fields", "found", "said"),
    [
        (["text", "label"], CLASSIFIED, {"text": "a", "label": "b"}, None),
        (["Text", "Label"], CLASSIFIED, {"text": "a", "label": "b"}, "read from column 'Text', label"),
        ([" text ", "LABEL"], CLASSIFIED, {"text": "a", "label": "b"}, "label is read from column 'LABEL'"),
        (["文本", "标签"], CLASSIFIED, {"text": "a", "label": "b"}, "'文本', label from '标签'"),
        (["内容", "类别"], CLASSIFIED, {"text": "a", "label": "b"}, "'内容', label from '类别'"),
        (["text", "label_name"], CLASSIFIED, {"text": "a", "label": "b"}, "read from column 'label_n"),
        (["text", "Label Name"], CLASSIFIED, {"text": "a", "label": "b"}, "column 'Label Name'"),
        (["review", "stars"], CLASSIFIED, {"text": "a", "label": "b"}, "'review', label from 'stars'"),
        (["sentence", "label"], CLASSIFIED, {"text": "a", "label": "b"}, "text is read from column 'sent"),
        (["text", "tags"], LABELLED, {"text": "a", "labels": "b"}, "labels is read from column 'tags'"),
        (["document", "summary"], PAIRED, {"source": "a", "target": "b"}, "'document', target from 's"),
        (["原文", "译文"], PAIRED, {"source": "a", "target": "b"}, "'原文', target from '译文'"),
    ],
)  # fmt: skip
def test_a_field_is_found_by_its_name_or_the_only_usual_one(
    header: list[str], fields: tuple, found: dict[str, str], said: str | None, tmp_path: Path
) -> None:
    for delimiter in ",;\t|":
        records, log = read(
            table(tmp_path / "x.csv", header, ["a", "b"], ["a", "b"], delimiter=delimiter), fields
        )
        assert records == [found, found]
        assert (said is None) == (not any("column" in note for note in log.notes))
        assert said is None or any(said in note for note in log.notes)
        assert log.has_notes == (said is not None or delimiter != ",")
    lines = tmp_path / "x.jsonl"
    lines.write_text(json.dumps(dict(zip(header, "ab", strict=True)), ensure_ascii=False))
    assert read(lines, fields)[0] == [found]


@pytest.mark.parametrize("pair", PAIR_ALIASES)
def test_the_two_texts_of_a_pair_are_found_together(pair: tuple[str, str], tmp_path: Path) -> None:
    records, log = read(table(tmp_path / "x.csv", [*pair, "label"], ["a", "b", "c"]))
    assert records == [{"text": "a", "text_pair": "b", "label": "c"}]
    assert log.notes == [
        f"{tmp_path / 'x.csv'}: text is read from column {pair[0]!r}, text_pair from {pair[1]!r}"
    ]


def test_other_columns_come_along_and_an_exact_name_wins(tmp_path: Path) -> None:
    file = table(tmp_path / "x.csv", ["id", "review", "text", "label", "stars"], ["1", "r", "t", "l", "5"])
    [record], log = read(file)
    assert record == {"id": "1", "review": "r", "text": "t", "label": "l", "stars": "5"}
    assert not log.notes
    [record], log = read(file, text="review", label="stars")
    assert (record["text"], record["label"], record["id"]) == ("r", "5", "1")
    assert not log.notes  # the user knows
    [record], log = read(file, usual={"text": "review", "label": "points"})
    assert (record["text"], record["label"]) == ("r", "l")
    assert log.notes == [f"{file}: text is read from column 'review'"]


@pytest.mark.parametrize(
    ("header", "columns", "message"),
    [
        (["Bewertung", "Sterne"], {}, r"no column 'text'; there are: Bewertung, Sterne; .*--text-column"),
        (["title", "content", "label"], {}, r"'text', and 'title' or 'content' could be it; .*--text-column"),
        (["text", "class", "rating"], {}, r"'label', and 'class' or 'rating' could be it.*--label-c"),
        (["premise", "hypothesis", "review", "label"], {}, r"'review' or '.*could be it"),
        (["Text", "TEXT", "label"], {}, r"'Text' or 'TEXT' could be it"),
        (["text", "label"], {"text": "revew"}, r"'revew', which --text-column .*there are: text, label"),
        (["review", "label"], {"text": "revew"}, r"did you mean 'review'"),
        ([f"column{n}" for n in range(99)], {}, r"column19 and 79 more"),
    ],
)  # fmt: skip
def test_none_or_several_columns_are_an_error_with_the_option(
    header: list[str], columns: dict[str, str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=message) as raised:
        read(table(tmp_path / "x.csv", header, ["a"] * len(header)), **columns)
    assert len(str(raised.value)) < 1500


def test_a_named_column_is_all_that_counts(tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    rows = [{"text": "old", "review": "new", "label": 1}, {"text": "old", "label": 2}]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    [record], log = read(file, text="review")
    assert (record["text"], record["label"]) == ("new", "1")
    assert log.examples == [f"{file}:2: 'review' (text) is missing"]


def test_aliases_are_of_fields_that_there_are_and_each_stands_once() -> None:
    fields = {field.name for task in list_names("tasks") for field in find_task(task).fields}
    fields |= set(parse_objective("sequence_to_sequence").columns)
    assert ALIASES.keys() <= fields
    for field, aliases in ALIASES.items():
        assert len(set(aliases)) == len(aliases)
        assert field not in aliases
    assert build_column_spec(CLASSIFIED, {}, {}).matches(["text", "label"])


def test_every_field_has_its_option(cli_options: dict[str, set[str]]) -> None:
    labelled = {column_option(f.name) for task in list_names("tasks") for f in find_task(task).fields}
    asked = {
        column_option(f.name)
        for task in list_names("tasks")
        for f in find_task(task).fields
        if not f.is_label
    }
    corpora = {
        column_option(c)
        for name in ("causal_lm", "sequence_to_sequence")
        for c in parse_objective(name).columns
    }
    assert labelled <= cli_options["finetune"]
    assert labelled | corpora <= cli_options["evaluate"]
    assert asked <= cli_options["predict"]
    assert corpora <= cli_options["pretrain"]
    for verb in ("score", "generate", "tokenizer train", "tokenizer inspect", "data prepare", "data inspect"):
        assert column_option("text") in cli_options[verb]
    readers = [verb for verb in cli_options if not verb.startswith(("export", "quickstart", "runs"))]
    assert all("--encoding" in cli_options[verb] for verb in readers)


@pytest.fixture
def cli_options() -> dict[str, set[str]]:
    """The options of each verb."""
    found: dict[str, set[str]] = {}
    for name, verb in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        below = getattr(verb, "commands", None)
        named = {name: verb} if below is None else {f"{name} {key}": value for key, value in below.items()}
        found |= {key: {o for p in one.params for o in p.opts} for key, one in named.items()}
    return found


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"txt": "a"}, r"columns\.txt = 'a': the fields are text"),
        ({"text": " "}, r"columns\.text is empty"),
        ({"text": "a", "label": "a"}, "'a' is named for two fields"),
    ],
)
def test_columns_of_no_field_are_refused(columns: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_column_names(columns, ("text", "label"), "finetune")


def test_an_object_that_lacks_a_field_does_not_decide_for_the_file(tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    rows = [{"text": "a"}, {"id": 1}, {"text": "b", "label": "y"}, {"text": "c"}]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    records, log = read(file)
    assert records == [{"text": "b", "label": "y"}]
    assert log.examples == [f"{file}:1: 'label' is missing", f"{file}:2: 'text' is missing",
                            f"{file}:4: 'label' is missing"]  # fmt: skip
    file.write_text("".join(json.dumps({"text": "a"}) + "\n" for _ in range(5000)))
    with pytest.raises(DataError, match="no column 'label'; there are: text; name it with --label-column"):
        read(file)
