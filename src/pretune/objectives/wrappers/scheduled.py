"""Objectives that change in the course of a run: what they ask depends on how far it is."""

from __future__ import annotations

from typing import Protocol, Self, TypeVar, runtime_checkable

T = TypeVar("T")


@runtime_checkable
class Scheduled(Protocol):
    """An objective that is told how far the run is, and by nothing else: so a resume is exact."""

    def at_progress(self, progress: float) -> Self:
        """The objective as it is where the share ``progress`` of the run is done, 0 to 1."""


def at_progress(objective: T, progress: float) -> T:
    """``objective`` where the share ``progress`` of the run is done; most are the same all along."""
    return objective.at_progress(progress) if isinstance(objective, Scheduled) else objective
