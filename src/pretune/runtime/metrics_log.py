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
        offset: int = 0,
        step: int = 0,
        tokens: int = 0,
        expected_content: bytes | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        """``say`` is told where the curves for TensorBoard cannot be written; training goes on without.

        ``expected_content`` is what the log held up to ``offset``: where it no longer does, that is put
        back, and said.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.tensorboard, self._say = path, tensorboard, say
        if expected_content is not None:
            self._repair(expected_content)
        self._file = path.open("ab", buffering=0)  # what could not be written is not tried again on closing
        self._writer: SummaryWriter | None = None
        self.truncate(offset, step, tokens)

    def truncate(self, offset: int, step: int, tokens: int) -> None:
        """Forget what came after ``offset``, where ``step`` steps and ``tokens`` tokens were done."""
        if self.path.stat().st_size > offset:
            os.truncate(self.path, offset)
        self._logged_tokens = tokens
        self._close_writer()
        if self.tensorboard:
            try:
                self._writer = SummaryWriter(str(self.tensorboard), purge_step=step + 1)
            except OSError as error:
                self._disable_tensorboard(error)

    def _repair(self, expected_content: bytes) -> None:
        content = self.path.read_bytes()[: len(expected_content)] if self.path.is_file() else b""
        if content == expected_content:
            return
        try:
            self.path.write_bytes(expected_content)
        except OSError as error:
            raise CheckpointError(f"{self.path}: could not be written: {error}") from error
        reason = (
            "is damaged"
            if len(content) == len(expected_content)
            else "is gone"
            if not content
            else "is cut short"
        )
        if self._say is not None:
            self._say(f"{self.path}: {reason}; put back as the checkpoint keeps it")

    def content(self) -> bytes:
        """All that is written so far."""
        return self.path.read_bytes()

    def tell(self) -> int:
        """Bytes written so far, all of them on their way to the disk."""
        return self.path.stat().st_size

    def log_step(self, step: int, values: dict[str, Any]) -> None:
        """One optimiser step."""
        self._write_row({"type": "step", "step": step, **values})
        curves = {f"train/{name}": values[name] for name in ("loss", "learning_rate", "gradient_norm")}
        speed = (values["tokens"] - self._logged_tokens) / max(1e-9, values["seconds"])
        self._write_scalars(step, curves | {"train/tokens_per_second": speed})
        self._logged_tokens = values["tokens"]

    def log_skipped_step(self, step: int, tokens: int, reason: Mapping[str, Any]) -> None:
        """A step that changed nothing; ``reason`` is why, ``tokens`` are those read so far."""
        self._write_row({"type": "skipped", "step": step, "tokens": tokens, **reason})

    def log_activation_stats(self, step: int, stats: Mapping[str, Mapping[str, float]]) -> None:
        """What a step showed within the network."""
        self._write_row({"type": "activation_stats", "step": step, **_round(stats)})
        self._write_scalars(
            step, {f"{stat}/{name}": v for stat, groups in stats.items() for name, v in groups.items()}
        )

    def log_evaluation(
        self,
        step: int,
        scores: list[Score],
        seconds: float,
        reference_losses: Mapping[str, float] | None = None,
    ) -> None:
        """One evaluation on held-out data, with the losses of simpler models on the same targets.

        ``interval`` is that of the first score, where it has one.
        """
        rows = {score.name: score.value for score in scores}
        row = {"type": "evaluation", "step": step, "scores": rows, "direction": scores[0].direction}
        extra: dict[str, Any] = {"reference_losses": dict(reference_losses)} if reference_losses else {}
        if scores[0].interval is not None:
            extra["interval"] = list(scores[0].interval)
        self._write_row(row | extra | {"seconds": round(seconds, 3)})
        curves = rows | dict(reference_losses or {})
        self._write_scalars(step, {f"validation/{name}": value for name, value in curves.items()})

    def close(self) -> None:
        """Flush and close."""
        self._file.close()
        self._close_writer()

    def _write_scalars(self, step: int, values: Mapping[str, float]) -> None:
        if self._writer is None:
            return
        try:
            for name, value in values.items():
                self._writer.add_scalar(name, value, step)
        except OSError as error:
            self._disable_tensorboard(error)

    def _close_writer(self) -> None:
        if self._writer is None:
            return
        try:
            self._writer.close()
        except OSError as error:
            self._disable_tensorboard(error)
        self._writer = None

    def _disable_tensorboard(self, error: OSError) -> None:
        """Curves are a comfort, and ``metrics.jsonl`` has them all: no run ends for want of them."""
        self._writer = None
        if self._say is not None:
            self._say(
                f"{self.tensorboard}: cannot be written ({error}); going on without TensorBoard's curves"
            )

    def _write_row(self, row: dict[str, Any]) -> None:
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


class NullMetricsLog:
    """What the ranks write that do not lead: nothing."""

    def content(self) -> bytes:
        """Nothing is written."""
        return b""

    def tell(self) -> int:
        """Nothing is written."""
        return 0

    def truncate(self, offset: int, step: int, tokens: int) -> None:
        """There is nothing to forget."""

    def log_step(self, step: int, values: dict[str, Any]) -> None:
        """Write nothing."""

    def log_skipped_step(self, step: int, tokens: int, reason: Mapping[str, Any]) -> None:
        """Write nothing."""

    def log_activation_stats(self, step: int, stats: Mapping[str, Mapping[str, float]]) -> None:
        """Write nothing."""

    def log_evaluation(
        self,
        step: int,
        scores: list[Score],
        seconds: float,
        reference_losses: Mapping[str, float] | None = None,
    ) -> None:
        """Write nothing."""

    def close(self) -> None:
        """Nothing is open."""


Log = MetricsLog | NullMetricsLog


def _round(findings: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """To six significant digits."""
    return {group: {k: float(f"{v:.6g}") for k, v in values.items()} for group, values in findings.items()}
