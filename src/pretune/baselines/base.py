"""What a simpler method says, beside a model's predictions; without the libraries that it is made by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Baseline:
    """What a baseline says of the test texts."""

    predictions: tuple[Any, ...]
    """One value a text, as a task's predictions have them."""
    description: str
    """How it was made, for signatures and reports."""
