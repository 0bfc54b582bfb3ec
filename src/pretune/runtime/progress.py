"""What a person sees while work goes on: a bar on a terminal, a line now and then elsewhere; on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

LINE_INTERVAL = 15.0
"""Seconds between lines where there is no terminal."""


@runtime_checkable
class Reporter(Protocol):
    """Whoever wants to know how far the work is."""

    def say(self, text: str) -> None:
        """A finding or a stage, once."""

    def start_progress(self, name: str, total: int) -> ProgressBar:
        """A stretch of ``total`` equal pieces begins."""


class ProgressBar(Protocol):
    """A stretch of work under way."""

    def update(self, done: int, detail: str = "", total: int | None = None) -> None:
        """So many pieces are done; ``total`` is how many there are, where that has changed."""

    def close(self) -> None:
        """It ended, or was stopped."""


class NullReporter:
    """Tells nobody; what Python callers and tests get unless they ask for more."""

    def say(self, text: str) -> None:
        """Say nothing."""

    def start_progress(self, name: str, total: int) -> NullReporter:
        """Begin work in silence."""
        return self

    def update(self, done: int, detail: str = "", total: int | None = None) -> None:
        """Go on in silence."""

    def close(self) -> None:
        """End in silence."""


@dataclass
class TerminalReporter:
    """Speaks on stderr. With a deadline, each line says how much time is left until it."""

    deadline: float | None = None
    """``time.monotonic()`` at which all is expected to be done."""
    console: Console = field(default_factory=lambda: Console(stderr=True, highlight=False, soft_wrap=True))

    def say(self, text: str) -> None:
        """Print a line."""
        self.console.print(self.format_time_left() + text, markup=False)

    def start_progress(self, name: str, total: int) -> ProgressBar:
        """A bar on a terminal, lines elsewhere."""
        if self.console.is_terminal:
            return _Bar(self, name, total)
        return _ProgressLines(self, name, total)

    def format_time_left(self) -> str:
        """``[2:41 left] ``, where there is a deadline."""
        if self.deadline is None:
            return ""
        return f"[{_format_seconds(max(0.0, self.deadline - time.monotonic()))} left] "


class _Bar:
    def __init__(self, terminal: TerminalReporter, name: str, total: int) -> None:
        columns = [
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[detail]}"),
        ]
        self._terminal, self._name = terminal, name
        self._progress = Progress(*columns, console=terminal.console, transient=True)
        self._task = self._progress.add_task(terminal.format_time_left() + name, total=total, detail="")
        self._progress.start()

    def update(self, done: int, detail: str = "", total: int | None = None) -> None:
        self._progress.update(
            self._task, completed=done, total=total, detail=detail,
            description=self._terminal.format_time_left() + self._name,
        )  # fmt: skip

    def close(self) -> None:
        self._progress.stop()


class _ProgressLines:
    def __init__(self, terminal: TerminalReporter, name: str, total: int) -> None:
        self._terminal, self._name, self._total = terminal, name, total
        self._start = self._last = time.monotonic()

    def update(self, done: int, detail: str = "", total: int | None = None) -> None:
        now = time.monotonic()
        self._total = max(done, self._total if total is None else total)
        if now - self._last < LINE_INTERVAL or done == 0:
            return
        self._last = now
        remaining = (now - self._start) / done * (self._total - done)
        share = f"{done}/{self._total}, {_format_seconds(remaining)} to go"
        self._terminal.say("  " + ", ".join(text for text in (f"{self._name}: {share}", detail) if text))

    def close(self) -> None:
        pass


@contextmanager
def track_progress(reporter: Reporter, name: str, total: int) -> Iterator[ProgressBar]:
    """A stretch of work that is closed however it ends."""
    bar = reporter.start_progress(name, total)
    try:
        yield bar
    finally:
        bar.close()


def _format_seconds(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def default_reporter(quiet: bool = False) -> Reporter:
    """A terminal's voice, or none."""
    return NullReporter() if quiet or sys.stderr is None else TerminalReporter()
