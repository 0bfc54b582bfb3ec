"""One module chooses the device; nothing else asks for a GPU."""

from __future__ import annotations

import re
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src" / "pretune"


def test_nothing_but_runtime_device_asks_for_cuda() -> None:
    asks = re.compile(r"torch\.cuda|[\"']cuda")
    found = [
        str(path.relative_to(SOURCE))
        for path in sorted(SOURCE.rglob("*.py"))
        if asks.search(path.read_text(encoding="utf-8"))
    ]
    assert found == ["runtime/device.py"]
