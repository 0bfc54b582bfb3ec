"""What a metric is: numbers of each record that add up, and the value of their sums."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from pretune.types import FloatArray

Counts: TypeAlias = "Mapping[Hashable, float]"
"""Of one record: a number for each name; a name that is left out counts 0."""
Sums: TypeAlias = "Mapping[Hashable, FloatArray]"
"""Name to (R,) sums over the records of R sets of records; one that no record has may be missing."""


@dataclass(frozen=True)
class Metric:
    """A score of predictions against references, by its statistics of each record.

    From ``count`` and ``value`` follow the score, its interval, its value in a slice of the records and the
    comparison of two systems: see `metrics.statistics`.
    """

    name: str
    words: Mapping[str, str]
    """What it is called: ``{"en": "macro F1", "zh": "宏平均 F1"}``."""
    count: Callable[[Any, Any], Counts] | None = None
    """(prediction, reference) of one record to numbers that add up over records."""
    value: Callable[[Sums], FloatArray] | None = None
    """The sums to (R,) values."""
    direction: Literal["higher", "lower"] = "higher"
    settings: Mapping[str, str | int] = field(default_factory=dict)
    """What the value depends on besides, for the signature of a score."""
    over: Callable[[Sequence[Any], Sequence[Any]], float] | None = None
    """(predictions, references) of all records to the value, where no numbers add up (Spearman)."""

    def __post_init__(self) -> None:
        additive = self.count is not None and self.value is not None
        assert additive != (self.over is not None), f"{self.name}: give count and value, or over"

    def word(self, language: str) -> str:
        """What it is called in a language; its name where there is no word."""
        return self.words.get(language, self.name)
