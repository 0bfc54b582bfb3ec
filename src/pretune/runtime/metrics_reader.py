"""``metrics.jsonl`` read back, without the libraries that write it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pretune.runtime import state_file

REPEAT_ADVICE = "make the run again in another folder, or begin from its model, which can be used as before"
"""What to do about a run of an earlier version."""


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of a ``metrics.jsonl``, up to the first line that is not whole.

    Raises:
        CheckpointError: an earlier version wrote it, with other names of keys.
    """
    rows: list[dict[str, Any]] = []
    for line in path.read_bytes().split(b"\n") if path.is_file() else ():
        try:
            row = json.loads(line.decode("utf-8"))
        except (ValueError, RecursionError):
            break
        if not isinstance(row, dict):
            break
        rows.append(row)
    if rows and "kind" in rows[0] and "type" not in rows[0]:
        raise state_file.renamed_error(path, "key 'kind' is called 'type' now", REPEAT_ADVICE)
    return rows
