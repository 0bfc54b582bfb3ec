"""A prepared text that is not what was written is an error wherever it is read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import pretune
from pretune.data.sources.record_log import RecordLog
from pretune.data.sources.records import read_records
from pretune.errors import CheckpointError


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    raw = tmp_path / "raw.jsonl"
    raw.write_text(
        "".join(json.dumps({"text": f"The castle stood for {n} years."}) + "\n" for n in range(50))
    )
    return pretune.prepare_data(sources=raw, out=tmp_path / "out", cleaning={"rules": "off"}).folder


def read(folder: Path) -> int:
    log = RecordLog()
    return len(list(read_records([folder], log=log)))


@pytest.mark.parametrize("damage", ["flipped", "cut", "gone", "not named"])
def test_a_damaged_part_is_named_with_the_way_out(damage: str, prepared: Path) -> None:
    assert read(prepared) == read(prepared / "text") == 50
    part = prepared / "text" / "shard-00000.jsonl.zst"
    content = part.read_bytes()
    if damage == "gone":
        part.unlink()
    elif damage == "not named":
        path = prepared / "cleaned.json"
        path.write_text(path.read_text().replace("shard-00000", "shard-00001"))
    else:
        middle = len(content) // 2
        flipped = content[:middle] + bytes([content[middle] ^ 4]) + content[middle + 1 :]
        part.write_bytes(flipped if damage == "flipped" else content[:-3])
    name = r"cleaned\.json" if damage == "not named" else r"shard-00000\.jsonl\.zst"
    with pytest.raises(CheckpointError, match=rf"{name}.*prepare the text again"):
        read(prepared)


def test_a_text_that_is_the_users_own_now_is_read(prepared: Path) -> None:
    (prepared / "text" / "more.jsonl").write_text('{"text": "one more"}\n')
    assert read(prepared) == 51
    (prepared / "text" / "shard-00000.jsonl.zst").unlink()
    (prepared / "cleaned.json").unlink()
    assert read(prepared / "text") == 1
