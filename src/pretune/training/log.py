"""The run's log: ``metrics.jsonl`` line by line, and the same curves for TensorBoard."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from pretune.training.health import Findings, rounded
from pretune.types import Score


class MetricsLog:
    """Appends rows; can be cut back to where a checkpoint found it, so that a resume repeats nothing.

    Fields named ``seconds`` are wall-clock; all others are the same whenever the run is repeated.
    """

    def __init__(
        self, path: Path, tensorboard: Path | None, *, position: int = 0, step: int = 0, tokens: int = 0
    ) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab"):
            pass
        if path.stat().st_size > position:
            os.truncate(path, position)
        self._file = path.open("a", encoding="utf-8")
        self._tokens = tokens
        self._board = SummaryWriter(str(tensorboard), purge_step=step + 1) if tensorboard else None

    def position(self) -> int:
        """Bytes written so far, all of them on their way to the disk."""
        self._file.flush()
        return self._file.tell()

    def step(self, step: int, values: dict[str, Any]) -> None:
        """One optimiser step."""
        self._write({"kind": "step", "step": step, **values})
        if self._board:
            for name in ("loss", "learning_rate", "gradient_norm"):
                self._board.add_scalar(f"train/{name}", values[name], step)
            speed = (values["tokens"] - self._tokens) / max(1e-9, values["seconds"])
            self._board.add_scalar("train/tokens_per_second", speed, step)
        self._tokens = values["tokens"]

    def health(self, step: int, findings: Findings) -> None:
        """What a step showed within the network."""
        self._write({"kind": "health", "step": step, **rounded(findings)})
        if self._board:
            for kind, found in findings.items():
                for name, value in found.items():
                    self._board.add_scalar(f"{kind}/{name}", value, step)

    def evaluation(
        self, step: int, scores: list[Score], seconds: float, levels: Mapping[str, float] | None = None
    ) -> None:
        """One evaluation on held-out data, with the losses of simpler models on the same targets."""
        rows = {score.name: score.value for score in scores}
        row = {"kind": "evaluation", "step": step, "scores": rows, "direction": scores[0].direction}
        beside = {"levels": dict(levels)} if levels else {}
        self._write(row | beside | {"seconds": round(seconds, 3)})
        if self._board:
            for name, value in (rows | dict(levels or {})).items():
                self._board.add_scalar(f"validation/{name}", value, step)

    def close(self) -> None:
        """Flush and close."""
        self._file.close()
        if self._board:
            self._board.close()

    def _write(self, row: dict[str, Any]) -> None:
        clean = {k: (None if isinstance(v, float) and not math.isfinite(v) else v) for k, v in row.items()}
        self._file.write(json.dumps(clean) + "\n")
        self._file.flush()


def read_log(path: Path) -> list[dict[str, Any]]:
    """The rows of a ``metrics.jsonl``; a half-written last line is left out."""
    rows = []
    if path.exists():
        for line in path.read_text(encoding="utf-8").split("\n"):
            try:
                rows.append(json.loads(line))
            except ValueError:
                break
    return rows
