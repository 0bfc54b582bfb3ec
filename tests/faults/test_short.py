"""Each fault a few times; `make faults` has the full counts."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
FAULTS = {
    "kill -9", "disk full", "n-th write", "TensorBoard", "file of a model folder",
    "file of a checkpoint cut", "bit of a checkpoint",
    "SIGTERM in a step", "SIGINT in a save", "SIGTERM in an evaluation", "first batch of an evaluation",
    "stopped at any step", "second signal", "in preparation", "NaN gradient",
    "memory, injected", "memory, RLIMIT_AS",
    "stopped run damaged", "finished run damaged", "half-written, damaged", "data prepare damaged",
    "prepared text damaged", "two processes: pretrain", "two processes: finetune",
    "two processes: predict", "two processes: data prepare",
}  # fmt: skip


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """In processes of their own: they fork hundreds of children, which one with threads must not."""
    folder = tmp_path_factory.mktemp("faults")

    def part(number: int) -> list[dict[str, Any]]:
        place = folder / f"{number}.json"
        words = [sys.executable, HERE / "run.py", "--short", "--part", f"{number}/2", "--json", place]
        ended = subprocess.run(words, capture_output=True, text=True, check=False, timeout=300)
        assert place.exists(), ended.stderr
        found: list[dict[str, Any]] = json.loads(place.read_text())
        return found

    with ThreadPoolExecutor(2) as pool:
        return [row for found in pool.map(part, (1, 2)) for row in found]


@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.parametrize("fault", sorted(FAULTS))
def test_survives(fault: str, rows: list[dict[str, Any]]) -> None:
    found = [row for row in rows if fault in row["fault"]]
    assert found
    assert sum(row["tries"] for row in found) > 0
    assert [why for row in found for why in row["why"]] == []
    assert all(row["survived"] == row["tries"] for row in found)
