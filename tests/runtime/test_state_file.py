"""State files: what was written comes back, and nothing else does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pretune.errors import CheckpointError
from pretune.runtime import state_file

VALUES = {"steps": 12, "rate": 0.1, "names": ["a", "中"], "nested": {"7": [None, True]}}


class Form(state_file.StateSchema):
    """A form for the tests."""

    steps: int
    names: list[str]


def test_what_was_written_comes_back(tmp_path: Path) -> None:
    state_file.write(tmp_path / "a.json", VALUES)
    assert state_file.read(tmp_path / "a.json", "do that", Form) == VALUES
    assert state_file.read(tmp_path / "b.json", "do that") is None


@given(at=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_no_flipped_bit_is_believed(at: int, bit: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("state") / "a.json"
    state_file.write(path, VALUES)
    content = bytearray(path.read_bytes())
    content[at % len(content)] ^= 1 << bit
    path.write_bytes(content)
    found, said = None, f"{path}: damaged, do that"
    try:
        found = state_file.read(path, "do that")
    except CheckpointError as error:
        said = str(error)
    assert found in (None, VALUES)  # the same, where white space was changed
    assert said.startswith(f"{path}: damaged")
    assert said.endswith("do that")


@pytest.mark.parametrize("content", ["", "{", "[]", "5", '{"steps": 1}', "[" * 100_000])
def test_what_is_no_state_file_is_named(content: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(content)
    with pytest.raises(CheckpointError, match=r"a\.json: damaged: .*; do that"):
        state_file.read(path, "do that")


@pytest.mark.parametrize("values", [{"steps": "x" * 10_000}, {"steps": 1.5}, {"names": 5}, {"names": [1]}])
def test_another_form_is_named_with_its_key(values: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    state_file.write(path, VALUES | values)
    with pytest.raises(CheckpointError, match=f"a.json: damaged: {next(iter(values))}") as caught:
        state_file.read(path, "do that", Form)
    assert len(str(caught.value)) < 500 + len(str(path))


def test_it_is_readable_json(tmp_path: Path) -> None:
    state_file.write(tmp_path / "a.json", VALUES)
    assert json.loads((tmp_path / "a.json").read_text())["nested"] == VALUES["nested"]
