"""Draws the charts of a page: matplotlib makes the lines and ticks, the page's own fonts the words."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from pretune.report.sections import Curve, Scores, Series

COLOURS = ("#1f5fa8", "#c2571a", "#2f7d5b", "#7a4fa0", "#a83253", "#5b6b7f")
GRID_COLOUR, MUTED_COLOUR = "#e6e8ec", "#667085"
RC_PARAMS: Any = {"svg.fonttype": "none", "svg.hashsalt": "pretune", "path.simplify": True}
MAX_LINE_POINTS = 800
"""A line of more points than this is drawn as means with a band."""
LATIN_WIDTH, CJK_WIDTH = 6.4, 12.0
"""Width of a letter of a label in pixels, enough to keep labels off the curves."""


@dataclass(frozen=True, slots=True)
class ChartLabel:
    """A word at a place of the drawing, in its pixels."""

    x: float
    y: float
    text: str
    anchor: str


@dataclass(frozen=True, slots=True)
class Drawing:
    """The inside of an SVG element of ``width`` x ``height`` pixels, and the words to set on it."""

    width: int
    height: int
    body: Markup
    text_labels: tuple[ChartLabel, ...]


@dataclass(frozen=True, slots=True)
class Axis:
    """A horizontal axis of per cents, so that a chart is as wide as its place."""

    low: float
    high: float
    ticks: tuple[float, ...]
    digits: int

    def to_percent(self, value: float) -> str:
        return f"{100 * (value - self.low) / (self.high - self.low):.2f}%"

    def format_tick(self, value: float) -> str:
        step = self.ticks[1] - self.ticks[0] if len(self.ticks) > 1 else 1.0
        return f"{value:.{max(0, math.ceil(-math.log10(step) - 1e-9))}f}"

    def format_value(self, value: float) -> str:
        return f"{value:.{self.digits}f}" if math.isfinite(value) else "–"


def build_axis(scores: Scores) -> Axis:
    """The axis that holds every value, interval and seed of ``scores``."""
    values = [value for row in scores.rows for value in row.values] or [0.0, 1.0]
    low, high = min(values), max(values)
    margin = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
    low, high = low - margin, high + margin
    ticks = MaxNLocator(nbins=5, steps=[1, 2, 5, 10]).tick_values(low, high)
    largest = max(abs(value) for value in values)
    return Axis(low=low, high=high, ticks=tuple(float(t) for t in ticks if low <= t <= high),
                digits=3 if largest <= 1 else 2 if largest < 10 else 1)  # fmt: skip


def has_band(section: Curve) -> bool:
    """Whether a line has so many points that it is drawn as means with a band."""
    return any(len(series.points) > MAX_LINE_POINTS for series in section.series)


def series_colours(series: Sequence[Series]) -> tuple[str, ...]:
    """A colour a series; a dashed one shares that of the solid one before it."""
    number, result = -1, []
    for one in series:
        number += not one.dashed or number < 0
        result.append(COLOURS[number % len(COLOURS)])
    return tuple(result)


def draw_curve(section: Curve, name: str, width: int, height: int) -> Drawing:
    """The curve at one size; ``name`` makes its ids unique on the page."""
    figure = Figure(figsize=(width / 72, height / 72), dpi=72)
    canvas = FigureCanvasSVG(figure)
    axes = figure.add_axes((44 / width, 44 / height, 1 - 56 / width, 1 - 76 / height))
    for _, value in section.finite_reference_lines:
        axes.axhline(value, color=MUTED_COLOUR, linewidth=1, dashes=(2, 3))
    for series, colour in zip(section.series, series_colours(section.series), strict=True):
        if series.points:
            _draw_line(axes, series, colour)
    integer_x = all(x == int(x) for series in section.series for x, _ in series.points)
    _style_axes(axes, is_narrow=width < 600, integer_x=integer_x)
    labels = (
        ChartLabel(0, 14, section.y_label, "start"),
        ChartLabel(width - 12, height - 6, section.x_label, "end"),
    )
    with matplotlib.rc_context(RC_PARAMS):
        body = _svg_body(canvas, name)
    return Drawing(width, height, body, labels + tuple(_reference_line_labels(section, axes, height)))


def _draw_line(axes: Axes, series: Series, colour: str) -> None:
    """The line and its end; of very many points the mean of each bucket, in a band from lowest to highest."""
    points = np.array(series.points)  # (points, 2)
    style = (0, (4, 2)) if series.dashed else "solid"
    width = 1.3 if series.dashed else 2
    if len(points) > MAX_LINE_POINTS:
        buckets = np.array_split(points, MAX_LINE_POINTS // 2)
        x, mean = np.array([bucket.mean(axis=0) for bucket in buckets]).T
        low, high = np.array([(bucket[:, 1].min(), bucket[:, 1].max()) for bucket in buckets]).T
        axes.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)
        axes.plot(x, mean, color=colour, linewidth=width, linestyle=style)
    else:
        axes.plot(points[:, 0], points[:, 1], color=colour, linewidth=width, linestyle=style)
    axes.plot(*points[-1:].T, color=colour, marker="o", markersize=3 if series.dashed else 5.5)


def _style_axes(axes: Axes, *, is_narrow: bool, integer_x: bool) -> None:
    axes.margins(x=0.015, y=0.07)
    axes.grid(axis="y", color=GRID_COLOUR, linewidth=1)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color("#b5bac3")
    axes.tick_params(length=0, labelsize=12, labelcolor=MUTED_COLOUR, pad=6)
    axes.xaxis.set_major_locator(
        MaxNLocator(nbins=4 if is_narrow else 7, steps=[1, 2, 5, 10], integer=integer_x)
    )
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
    largest = max(map(abs, axes.get_xlim()))
    size, letter = next((pair for pair in ((1e9, "B"), (1e6, "M")) if largest >= pair[0]), (1, ""))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x / size:,.7g}{letter if x else ''}"))


def _svg_body(canvas: FigureCanvasSVG, name: str) -> Markup:
    """The drawing without its frame; what would reach out into the page (ids, a style for all) is mended."""
    stream = io.StringIO()
    canvas.print_figure(stream, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    text = stream.getvalue()
    text = text[text.index(">", text.index("<svg")) + 1 : text.rindex("</svg>")]
    text = re.sub(r"<!--.*?-->|<style.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r'<g id="patch_1">.*?</g>', "", text, count=1, flags=re.DOTALL)  # the white ground
    text = text.replace("xlink:href", "href")
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", text)
    return Markup(re.sub(r"\s*\n\s*", "\n", text))  # figures only: no word of a user is in it


def _reference_line_labels(section: Curve, axes: Axes, height: int) -> Iterable[ChartLabel]:
    """A label on each level, at the end and side of its line where it hides least."""
    box = axes.get_window_extent()
    occupied = [
        tuple(axes.transData.transform(p)) for series in section.series for p in _interpolate(series.points)
    ]
    for _, value in section.finite_reference_lines:
        line = axes.transData.transform((0, value))[1]
        occupied += [(box.x0 + 20, line), (box.x1 - 20, line)]
    for name, value in section.finite_reference_lines:
        text = f"{name} {value:.2f}"
        wide = sum(CJK_WIDTH if ord(c) > 0x2E80 else LATIN_WIDTH for c in text)
        line = float(axes.transData.transform((0, value))[1])
        candidates = []
        for rank, (right, below) in enumerate(((True, False), (True, True), (False, False), (False, True))):
            left = box.x1 - wide if right else box.x0
            bottom = line - 17 if below else line + 2
            near = [y for x, y in occupied if left - 4 <= x <= left + wide + 4]
            hidden = sum(bottom <= y <= bottom + 15 and abs(y - line) > 0.5 for y in near)
            candidates.append((hidden, rank, left, bottom))
        _, _, left, bottom = min(candidates)
        occupied += [(left + wide * step / 8, bottom + 7) for step in range(9)]
        yield ChartLabel(round(left, 1), round(height - bottom - 3.5, 1), text, "start")


def _interpolate(points: Sequence[tuple[float, float]]) -> Iterable[tuple[float, float]]:
    """The points with 8 more between neighbours where there are few of them."""
    steps = 8 if len(points) < 200 else 1
    for (x0, y0), (x1, y1) in pairwise(points):
        for step in range(steps):
            yield x0 + (x1 - x0) * step / steps, y0 + (y1 - y0) * step / steps
    yield from points[-1:]
