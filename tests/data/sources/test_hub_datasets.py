"""Data sets of the ``datasets`` library: by name, configuration and split, or a clear way out."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pretune.data.sources.records import RecordLog, read_records
from pretune.errors import DataError

ROWS = [{"text": "one", "label": 1}, {"text": "", "label": 0}, {"text": "三", "label": 0}]


class Rows(list[dict[str, Any]]):
    """Rows that fail behind the last where they are told to."""

    fails = False

    def __iter__(self) -> Iterator[dict[str, Any]]:
        yield from super().__iter__()
        if self.fails:
            raise ConnectionError("the hub went away\nwith a long story")


class FakeError(Exception):
    pass


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A stand-in that keeps what it was asked for."""
    asked: list[Any] = []

    def load_dataset(name: str, config: str | None, streaming: bool) -> dict[str, Rows]:
        asked.append((name, config, streaming))
        if name == "nobody/nothing":
            raise FakeError("no such set on the hub")
        return {"train": Rows(ROWS), "test": Rows(ROWS[:1])}

    fake = SimpleNamespace(
        load_dataset=load_dataset, exceptions=SimpleNamespace(DatasetsError=FakeError), asked=asked,
        get_dataset_config_names=lambda name: ["zh", "en"],
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "datasets", fake)
    return fake


def read(name: str, columns: tuple[str, ...] = ("text",)) -> tuple[list[str], RecordLog]:
    log = RecordLog()
    return [r.fields["text"] for r in read_records([name], columns=columns, log=log)], log


@pytest.mark.parametrize(
    ("name", "config", "texts"),
    [
        ("datasets:some/set", None, ["one", "三"]),
        ("datasets:some/set:test", None, ["one"]),
        ("datasets:some/set:zh", "zh", ["one", "三"]),
        ("datasets:some/set:zh:test", "zh", ["one"]),
    ],
)
def test_a_name_says_set_configuration_and_split(
    name: str, config: str | None, texts: list[str], library: SimpleNamespace
) -> None:
    found, log = read(name, ("text", "label"))
    assert found == texts
    assert library.asked == [("some/set", config, True)]
    if len(texts) == 2:
        assert log.examples == [f"{name}:2: 'text' is empty"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("datasets:some/set:zh:nope", "no split 'nope'; there are: train, test"),
        ("datasets:some/set:nope", "no split 'nope'; there are: train, test"),
        ("datasets:", "write datasets:NAME"),
        ("datasets:a:b:c:d", "write datasets:NAME"),
        ("datasets:nobody/nothing", "cannot be loaded: no such set on the hub"),
    ],
)
def test_what_is_not_there_is_named(name: str, message: str, library: SimpleNamespace) -> None:
    with pytest.raises(DataError, match=f"{name}: {message}"):
        read(name)


def test_a_missing_column_is_named(library: SimpleNamespace) -> None:
    with pytest.raises(DataError, match="no column 'lable'; there are: text, label; did you mean 'label'"):
        read("datasets:some/set", ("text", "lable"))


def test_what_came_before_a_lost_connection_is_kept(
    library: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Rows, "fails", True)
    found, log = read("datasets:some/set")
    assert found == ["one", "三"]
    assert log.corrupt_files == ["datasets:some/set: cannot be read on after row 3: the hub went away"]


def test_without_the_library_the_way_out_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"datasets:some/set: needs .*pip install 'pretune\[datasets\]'"):
        read("datasets:some/set")


def test_folders_that_the_library_saved_are_read(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    one = datasets.Dataset.from_list([row for row in ROWS if row["text"]])
    one.save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"train": one, "test": one.select([0])}).save_to_disk(tmp_path / "two")
    assert read(f"datasets:{tmp_path / 'one'}", ("text", "label"))[0] == ["one", "三"]
    assert read(f"datasets:{tmp_path / 'two'}")[0] == ["one", "三"]
    assert read(f"datasets:{tmp_path / 'two'}:test")[0] == ["one"]
