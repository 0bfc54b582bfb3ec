"""A table of trials that can be gone on with, and the search that fills it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Config = Mapping[str, Any]
Stages = Sequence[tuple[str, Sequence[Any]]]
"""A setting, and the values to try besides the best one so far."""


def key(config: Config) -> str:
    """A hash of a config, whatever the order of its keys."""
    text = json.dumps(config, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Table:
    """Results in a file, a JSON line each."""

    path: Path

    def results(self) -> dict[str, dict[str, Any]]:
        """Hash of the config -> the line; a line cut off by a kill is left out, and done again."""
        found: dict[str, dict[str, Any]] = {}
        if not self.path.exists():
            return found
        for line in self.path.read_text(encoding="utf-8").splitlines():
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                continue
            found[row["key"]] = row
        return found

    def add(self, config: Config, result: Mapping[str, Any]) -> None:
        """One more result; a broken last line is ended first."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        broken = self.path.exists() and self.path.stat().st_size and self.path.read_bytes()[-1:] != b"\n"
        with self.path.open("a", encoding="utf-8") as out:
            row = {"key": key(config), "config": dict(config), "result": dict(result)}
            out.write(("\n" if broken else "") + json.dumps(row, ensure_ascii=False) + "\n")


def next_trial(
    start: Config, stages: Stages, losses: Mapping[str, float], most: int
) -> tuple[Config | None, Config]:
    """(what to try next, or None at the end; the best so far), a setting at a time from the best before it.

    ``losses``: hash -> loss of what was tried; a failed trial counts as infinite.
    """
    best, tried = dict(start), 1
    if key(best) not in losses:
        return best, best
    for name, values in stages:
        for config in [{**best, name: value} for value in values if value != best[name]]:
            if tried >= most:
                return None, best
            if key(config) not in losses:
                return config, best
            tried += 1
            if losses[key(config)] < losses[key(best)]:
                best = config
    return None, best


def shortest(lengths: int, start: int, meets: Callable[[int], bool | None]) -> tuple[bool, int | None]:
    """(is the search over, the shortest of ``lengths`` rising lengths that meets the aim; None: none does).

    From ``start`` towards shorter ones while they meet it, or else towards longer ones until one does.
    ``meets`` says None where a run is not made yet and may not be made now.
    """
    at, first = start, meets(start)
    met, best = first, at if first else None
    step = -1 if first else 1
    while met is not None and met == first and 0 <= at + step < lengths:
        at += step
        met = meets(at)
        best = at if met else best
    return met is not None, best
