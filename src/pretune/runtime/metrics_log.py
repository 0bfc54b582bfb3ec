"""The run's log: ``metrics.jsonl`` line by line, and the same curves for TensorBoard."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from pretune.errors import CheckpointError
from pretune.types import Score


class MetricsLog:
    """Appends rows; can be cut back to where a checkpoint found it, so that a resume repeats nothing.

    Fields named ``seconds`` are wall-clock; all others are the same whenever the run is repeated.
    """

    def __init__(
        self,
        path: Path,
        tensorboard: Path | None,
        *,
        position: int = 0,
        step: int = 0,
        tokens: int = 0,
        kept: bytes | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        """``say`` is told where the curves for TensorBoard cannot be written; training goes on without.

        ``kept`` is what the log held up to ``position``: where it no longer does, that is put back, and said.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.tensorboard, self._say = path, tensorboard, say
        if kept is not None:
            self._mend(kept)
        self._file = path.open("ab", buffering=0)  # what could not be written is not tried again on closing
        self._board: SummaryWriter | None = None
        self.back_to(position, step, tokens)

    def back_to(self, position: int, step: int, tokens: int) -> None:
        """Forget what came after ``position``, where ``step`` steps and ``tokens`` tokens were done."""
        if self.path.stat().st_size > position:
            os.truncate(self.path, position)
        self._tokens = tokens
        self._close_board()
        if self.tensorboard:
            try:
                self._board = SummaryWriter(str(self.tensorboard), purge_step=step + 1)
            except OSError as error:
                self._lose_board(error)

    def _mend(self, kept: bytes) -> None:
        there = self.path.read_bytes()[: len(kept)] if self.path.is_file() else b""
        if there == kept:
            return
        try:
            self.path.write_bytes(kept)
        except OSError as error:
            raise CheckpointError(f"{self.path}: could not be written: {error}") from error
        why = "is damaged" if len(there) == len(kept) else "is gone" if not there else "is cut short"
        if self._say is not None:
            self._say(f"{self.path}: {why}; put back as the checkpoint keeps it")

    def content(self) -> bytes:
        """All that is written so far."""
        return self.path.read_bytes()

    def position(self) -> int:
        """Bytes written so far, all of them on their way to the disk."""
        return self.path.stat().st_size

    def step(self, step: int, values: dict[str, Any]) -> None:
        """One optimiser step."""
        self._write({"kind": "step", "step": step, **values})
        curves = {f"train/{name}": values[name] for name in ("loss", "learning_rate", "gradient_norm")}
        speed = (values["tokens"] - self._tokens) / max(1e-9, values["seconds"])
        self._draw(step, curves | {"train/tokens_per_second": speed})
        self._tokens = values["tokens"]

    def skipped(self, step: int, tokens: int, found: Mapping[str, Any]) -> None:
        """A step that changed nothing; ``found`` is why, ``tokens`` are those read so far."""
        self._write({"kind": "skipped", "step": step, "tokens": tokens, **found})

    def health(self, step: int, findings: Mapping[str, Mapping[str, float]]) -> None:
        """What a step showed within the network."""
        self._write({"kind": "health", "step": step, **_round(findings)})
        self._draw(
            step, {f"{kind}/{name}": v for kind, found in findings.items() for name, v in found.items()}
        )

    def evaluation(
        self, step: int, scores: list[Score], seconds: float, levels: Mapping[str, float] | None = None
    ) -> None:
        """One evaluation on held-out data, with the losses of simpler models on the same targets.

        ``interval`` is that of the first score, where it has one.
        """
        rows = {score.name: score.value for score in scores}
        row = {"kind": "evaluation", "step": step, "scores": rows, "direction": scores[0].direction}
        beside: dict[str, Any] = {"levels": dict(levels)} if levels else {}
        if scores[0].interval is not None:
            beside["interval"] = list(scores[0].interval)
        self._write(row | beside | {"seconds": round(seconds, 3)})
        curves = rows | dict(levels or {})
        self._draw(step, {f"validation/{name}": value for name, value in curves.items()})

    def close(self) -> None:
        """Flush and close."""
        self._file.close()
        self._close_board()

    def _draw(self, step: int, values: Mapping[str, float]) -> None:
        if self._board is None:
            return
        try:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)
        except OSError as error:
            self._lose_board(error)

    def _close_board(self) -> None:
        if self._board is None:
            return
        try:
            self._board.close()
        except OSError as error:
            self._lose_board(error)
        self._board = None

    def _lose_board(self, error: OSError) -> None:
        """Curves are a comfort, and ``metrics.jsonl`` has them all: no run ends for want of them."""
        self._board = None
        if self._say is not None:
            self._say(
                f"{self.tensorboard}: cannot be written ({error}); going on without TensorBoard's curves"
            )

    def _write(self, row: dict[str, Any]) -> None:
        clean = {k: (None if isinstance(v, float) and not math.isfinite(v) else v) for k, v in row.items()}
        line = (json.dumps(clean) + "\n").encode()
        try:
            while line:
                line = line[self._file.write(line) :]
        except OSError as error:
            raise CheckpointError(
                f"{self.path}: could not be written: {error}; the checkpoints are untouched: make room and "
                "run the same command to go on"
            ) from error


class NoLog:
    """What the ranks write that do not lead: nothing."""

    def content(self) -> bytes:
        """Nothing is written."""
        return b""

    def position(self) -> int:
        """Nothing is written."""
        return 0

    def back_to(self, position: int, step: int, tokens: int) -> None:
        """There is nothing to forget."""

    def step(self, step: int, values: dict[str, Any]) -> None:
        """Write nothing."""

    def skipped(self, step: int, tokens: int, found: Mapping[str, Any]) -> None:
        """Write nothing."""

    def health(self, step: int, findings: Mapping[str, Mapping[str, float]]) -> None:
        """Write nothing."""

    def evaluation(
        self, step: int, scores: list[Score], seconds: float, levels: Mapping[str, float] | None = None
    ) -> None:
        """Write nothing."""

    def close(self) -> None:
        """Nothing is open."""


Log = MetricsLog | NoLog


def _round(findings: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """To six significant digits."""
    return {group: {k: float(f"{v:.6g}") for k, v in values.items()} for group, values in findings.items()}
