"""What a cleaning step may answer: the text, perhaps changed, or that the document goes and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Drop:
    """The document goes."""

    reason: str
    """Name of the rule: what the report counts by."""
    detail: str = ""
    """What was measured, beside the limit."""


StepResult: TypeAlias = str | Drop
