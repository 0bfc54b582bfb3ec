"""What a page may show, as data: each section says of itself whether it is empty."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias

Status = Literal["good", "bad", "neutral"]
ScoreRole = Literal["baseline", "ours", "reference"]


@dataclass(frozen=True, slots=True)
class VerdictItem:
    """One finding in plain words."""

    status: Status
    text: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """The findings; the first section of a page."""

    section_type: ClassVar[str] = "verdict"
    heading: str
    items: tuple[VerdictItem, ...]
    note: str = ""

    @property
    def empty(self) -> bool:
        return not self.items


@dataclass(frozen=True, slots=True)
class Series:
    """One line of a curve; ``x`` and ``y`` have the same length, points that are not finite are left out."""

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    dashed: bool = False
    """A dashed line has the colour of the solid one before it (training beside validation)."""

    @property
    def points(self) -> tuple[tuple[float, float], ...]:
        pairs = zip(self.x, self.y, strict=True)
        return tuple((x, y) for x, y in pairs if math.isfinite(x) and math.isfinite(y))


@dataclass(frozen=True, slots=True)
class Curve:
    """Losses over steps, with the baselines that they must pass as horizontal lines."""

    section_type: ClassVar[str] = "curve"
    heading: str
    series: tuple[Series, ...]
    reference_lines: tuple[tuple[str, float], ...] = ()
    x_label: str = ""
    y_label: str = ""
    note: str = ""

    @property
    def empty(self) -> bool:
        return not any(series.points for series in self.series)

    @property
    def finite_reference_lines(self) -> tuple[tuple[str, float], ...]:
        return tuple((name, value) for name, value in self.reference_lines if math.isfinite(value))


@dataclass(frozen=True, slots=True)
class ScoreRow:
    """A score with its interval and the value of each seed."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    role: ScoreRole = "ours"
    detail: str = ""
    seed_values: tuple[float, ...] = ()

    @property
    def interval(self) -> tuple[float, float] | None:
        """(low, high) where both are known."""
        if self.low is None or self.high is None or not math.isfinite(self.low + self.high):
            return None
        return self.low, self.high

    @property
    def values(self) -> tuple[float, ...]:
        """Every finite number that the row shows."""
        numbers = (self.value, *(self.interval or ()), *self.seed_values)
        return tuple(n for n in numbers if math.isfinite(n))


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores of one metric side by side on one axis."""

    section_type: ClassVar[str] = "scores"
    heading: str
    rows: tuple[ScoreRow, ...]
    unit: str = ""
    note: str = ""

    @property
    def empty(self) -> bool:
        return not self.rows


@dataclass(frozen=True, slots=True)
class MistakeRow:
    """A text that the model judged wrongly, and how sure it was (0 to 1)."""

    text: str
    predicted: str
    reference: str
    confidence: float | None = None


@dataclass(frozen=True, slots=True)
class Mistakes:
    """The most confident mistakes."""

    section_type: ClassVar[str] = "mistakes"
    heading: str
    rows: tuple[MistakeRow, ...]
    note: str = ""

    @property
    def empty(self) -> bool:
        return not self.rows


@dataclass(frozen=True, slots=True)
class SampleRow:
    """A prompt and what the model wrote after it or in a gap of it; the texts are joined as they are."""

    prompt: str
    output: str
    note: str = ""
    alternatives: tuple[tuple[str, float], ...] = ()
    """(token, probability), best first, drawn as bars."""
    suffix: str = ""
    """What follows the gap that ``output`` fills."""


@dataclass(frozen=True, slots=True)
class Samples:
    """Filled and continued sentences."""

    section_type: ClassVar[str] = "samples"
    heading: str
    rows: tuple[SampleRow, ...]
    note: str = ""

    @property
    def empty(self) -> bool:
        return not self.rows


@dataclass(frozen=True, slots=True)
class Facts:
    """Names and values: the environment, the settings."""

    section_type: ClassVar[str] = "facts"
    heading: str
    pairs: tuple[tuple[str, str], ...]
    note: str = ""

    @property
    def empty(self) -> bool:
        return not self.pairs


@dataclass(frozen=True, slots=True)
class Command:
    """The command that repeats what the page shows."""

    section_type: ClassVar[str] = "command"
    heading: str
    command: str
    note: str = ""

    @property
    def empty(self) -> bool:
        return not self.command.strip()


@dataclass(frozen=True, slots=True)
class Table:
    """A plain table; a column of figures is set flush right."""

    section_type: ClassVar[str] = "table"
    heading: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""

    @property
    def empty(self) -> bool:
        return not self.rows

    @property
    def numeric_columns(self) -> tuple[bool, ...]:
        """Whether each column holds figures only."""
        return tuple(all(_is_numeric(cell) for cell in column) for column in zip(*self.rows, strict=True))


@dataclass(frozen=True, slots=True)
class Text:
    """Paragraphs."""

    section_type: ClassVar[str] = "text"
    heading: str
    paragraphs: tuple[str, ...]
    note: str = ""

    @property
    def empty(self) -> bool:
        return not any(paragraph.strip() for paragraph in self.paragraphs)


Section: TypeAlias = Verdict | Curve | Scores | Mistakes | Samples | Facts | Command | Table | Text


def _is_numeric(cell: str) -> bool:
    return all(c.isdecimal() or c in "+-−–—.,%± []()×xeE" for c in cell)
