"""A page that shows a run: one HTML file with its charts inside, which needs no network and no script."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jinja2

from pretune.errors import PretuneError
from pretune.report import charts
from pretune.report.sections import (
    Command,
    Curve,
    Facts,
    MistakeRow,
    Mistakes,
    SampleRow,
    Samples,
    ScoreRow,
    Scores,
    Section,
    Series,
    Table,
    Text,
    Verdict,
    VerdictItem,
)
from pretune.report.words import translations

__all__ = [
    "Command",
    "Curve",
    "Facts",
    "MistakeRow",
    "Mistakes",
    "Page",
    "SampleRow",
    "Samples",
    "ScoreRow",
    "Scores",
    "Section",
    "Series",
    "Table",
    "Text",
    "Verdict",
    "VerdictItem",
    "render",
    "write",
]

# What a model writes may hold control characters and halves of surrogate pairs: no HTML may.
UNPRINTABLE = dict.fromkeys(
    [*range(9), 11, 12, *range(14, 32), *range(127, 160), *range(0xD800, 0xE000)], "\N{REPLACEMENT CHARACTER}"
)


@dataclass(frozen=True, slots=True)
class Page:
    """A title, sections in the order in which they are shown, and the facts of its foot."""

    title: str
    subtitle: str
    language: Literal["en", "zh"]
    sections: tuple[Section, ...]
    footer: tuple[tuple[str, str], ...] = ()


def render(page: Page) -> str:
    """The page as HTML; the same page gives the same bytes.

    Raises:
        ConfigError: pretune has no words in the language of the page.
    """
    template = _template_environment().get_template("page.html")
    sections = [section for section in page.sections if not section.empty]
    return template.render(page=page, sections=sections, words=translations(page.language))


def is_pretune_page(path: Path) -> bool:
    """Is a file a page that pretune wrote, and may write again?"""
    try:
        with path.open("rb") as file:
            return b'<meta name="generator" content="pretune">' in file.read(1 << 12)
    except OSError:
        return False


def write(page: Page, path: Path | str) -> Path:
    """Render ``page`` into ``path``, which holds the old page or the whole new one at any time.

    Raises:
        PretuneError: the file cannot be written.
    """
    path = Path(path)
    text = render(page)
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise PretuneError(f"{path}: the report cannot be written: {error.strerror or error}") from None
    return path


def _template_environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("pretune.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_replace_unprintable,
    )
    environment.globals.update(
        axis=charts.build_axis,
        banded=charts.has_band,
        curve=charts.draw_curve,
        colours=charts.series_colours,
        finite=_filter_finite,
        zip=zip,
    )
    environment.filters.update(percent=_format_percent, share=_bar_width)
    return environment


def _replace_unprintable(value: Any) -> Any:
    return value.translate(UNPRINTABLE) if isinstance(value, str) else value


def _format_percent(value: float | None) -> str:
    """A probability as text."""
    if value is None or not math.isfinite(value):
        return "–"
    if 0.995 <= value < 1:
        return f"{min(99.9, 100 * value):.1f}%"  # never rounded up to certainty
    return f"{100 * value:.0f}%" if value >= 0.0995 else f"{100 * value:.1f}%"


def _bar_width(value: float | None) -> str:
    """A probability as the length of a bar."""
    finite = value is not None and math.isfinite(value)
    return f"{100 * min(max(value or 0.0, 0.0), 1.0):.1f}%" if finite else "0%"


def _filter_finite(values: Iterable[float]) -> list[float]:
    return [value for value in values if math.isfinite(value)]
