"""What the curves of a run say: pure functions of the rows of its ``metrics.jsonl``, each with its numbers.

The training loss is read as means over equal stretches of steps, with their standard errors, since that of
one step is mostly noise. The thresholds are coarse on purpose: a verdict is a hint, and says how it knows.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

Rows = Sequence[Mapping[str, Any]]
Status = Literal["good", "bad", "neutral"]
Kind = Literal[
    "too_short", "diverged", "learnt_nothing", "far_too_low", "rate_too_high", "overfitted", "not_begun",
    "spikes", "rate_too_low", "still_improving", "plateau", "dead_units", "stopped_early",
    "stopped_early_low",
]  # fmt: skip

LEAST_STEPS, LEAST_CHECKS = 24, 4
"""Shorter curves are not judged."""
STRETCHES = 16
SURE = 4.0
"""Standard errors by which two means differ for sure."""
ROSE = 0.05
"""Share of its whole fall by which a loss must rise again to have diverged, at least."""
SPIKE_WINDOW, SPIKE = 25, 10.0
"""A loss this many times the usual deviation above the median of the steps before it is a spike."""
STILL = 0.04
"""Share of the whole fall of the held-out loss in the last quarter of the run; with more, it still falls."""
LEVEL = 0.005
"""Relative change of a held-out score that counts as none."""
SLOW = 0.6
"""A training loss that falls in the second half at this share of its rate in the first has barely begun."""
USUAL_RATIO = 5e-4
"""Size of an update beside the weights from which on a learning rate is not called too low."""
LOW_RATIO, HIGH_RATIO = 1e-4, 2e-2
"""Below the first an update does next to nothing; above the second it undoes what was learnt."""
BEGUN = 0.1
"""Share of the way from a unigram model's loss to a bigram model's; before it a model has learnt little more
than how often each token occurs."""
DEAD = 0.1
"""Share of silent units in a layer that is worth a word."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a curve shows; ``figures`` are the numbers that it is known by."""

    kind: Kind
    status: Status
    figures: Mapping[str, float | int | str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Stretch:
    """Equally many steps of the training loss."""

    first: int
    last: int
    mean: float
    error: float


def judge(rows: Rows) -> tuple[Finding, ...]:
    """Everything that can be said of a run, the gravest first."""
    losses = [(r["step"], r["loss"]) for r in rows if r["kind"] == "step" and _finite(r["loss"])]
    checks = [r for r in rows if r["kind"] == "evaluation" and _finite(next(iter(r["scores"].values())))]
    if len(losses) < LEAST_STEPS:
        return (Finding("too_short", "neutral", {"steps": len(losses), "least": LEAST_STEPS}),)
    looks = [look(losses, checks, rows) for look in LOOKS]
    found = [finding for finding in looks if finding is not None]
    moot = {kind for finding in found for kind in MOOT.get(finding.kind, ())}
    return tuple(sorted((f for f in found if f.kind not in moot), key=lambda f: ORDER[f.status]))


ORDER: dict[Status, int] = {"bad": 0, "neutral": 1, "good": 2}
MOOT: dict[Kind, tuple[Kind, ...]] = {
    "diverged": ("spikes", "overfitted", "not_begun", "rate_too_low", "still_improving", "plateau"),
    "learnt_nothing": ("not_begun", "rate_too_low", "still_improving", "plateau"),
    "far_too_low": ("not_begun", "rate_too_low", "still_improving", "plateau"),
    "rate_too_high": (
        "learnt_nothing", "not_begun", "rate_too_low", "still_improving", "plateau", "overfitted",
    ),
    "overfitted": ("not_begun", "rate_too_low", "still_improving", "plateau"),
    "not_begun": ("still_improving", "plateau"),
}  # fmt: skip
"""What there is no point in saying once the first is said."""
Losses = Sequence[tuple[int, float]]
Look = Callable[[Losses, Rows, Rows], Finding | None]


def diverged(losses: Losses, checks: Rows, rows: Rows) -> Finding | None:
    """The training loss rose for good after its lowest stretch."""
    parts = stretches(losses)
    low = min(parts, key=lambda s: s.mean)
    end, fall = parts[-1], max(0.0, parts[0].mean - low.mean)
    rise = end.mean - low.mean
    if rise <= max(SURE * math.hypot(end.error, low.error), ROSE * fall, LEVEL * abs(low.mean)):
        return None
    return Finding(
        "diverged",
        "bad",
        {"low": low.mean, "at": low.last, "end": end.mean, "rate": _rate(rows), "step": end.last},
    )


def spikes(losses: Losses, checks: Rows, rows: Rows) -> Finding | None:
    """Single steps, or a few in a row, far above those before them."""
    found: list[tuple[int, float]] = []
    values = [loss for _, loss in losses]
    for i in range(SPIKE_WINDOW, len(values)):
        before = values[i - SPIKE_WINDOW : i]
        middle = statistics.median(before)
        usual = 1.4826 * statistics.median(abs(v - middle) for v in before)  # a normal's deviation
        jump = values[i] - middle
        apart = not found or losses[i][0] - found[-1][0] > SPIKE_WINDOW
        if apart and jump > max(SPIKE * usual, 0.05 * abs(middle)):
            found.append((losses[i][0], jump))
    if not found:
        return None
    step, jump = max(found, key=lambda pair: pair[1])
    return Finding(
        "spikes", "neutral", {"count": len(found), "step": step, "jump": jump, "rate": _rate(rows)}
    )


def overfitted(losses: Losses, checks: Rows, rows: Rows) -> Finding | None:
    """The held-out score got worse after its best while the training loss went on falling."""
    if len(checks) < LEAST_CHECKS:
        return None
    steps, values, sign = _held_out(checks)
    best = min(range(len(values)), key=lambda i: sign * values[i])
    worse = sign * (values[-1] - values[best])
    if best > len(values) - 3 or worse <= max(2 * LEVEL * abs(values[best]), 2 * _wobble(values)):
        return None
    around, end = _mean_near(losses, steps[best]), stretches(losses)[-1]
    if end.mean >= around.mean - 2 * math.hypot(end.error, around.error):
        return None
    name = next(iter(checks[0]["scores"]))
    return Finding("overfitted", "bad", {
        "name": name, "best": values[best], "at": steps[best], "end": values[-1], "step": steps[-1],
        "training_then": around.mean, "training_now": end.mean,
    })  # fmt: skip


def trend(losses: Losses, checks: Rows, rows: Rows) -> Finding | None:
    """Whether the held-out score was still getting better at the end, or had levelled off, and when."""
    if len(checks) < LEAST_CHECKS:
        return None
    steps, values, sign = _held_out(checks)
    begin = min(next(i for i, step in enumerate(steps) if step >= 0.7 * steps[-1]), len(values) - 2)
    late = sign * (values[begin] - values[-1])
    whole = sign * values[0] - min(sign * value for value in values)
    figures = {
        "name": next(iter(checks[0]["scores"])), "from": values[begin], "since": steps[begin],
        "end": values[-1], "step": steps[-1],
    }  # fmt: skip
    wobble, near = _wobble(values), LEVEL * abs(values[-1])
    if late > max(STILL * whole, near, wobble):
        return Finding("still_improving", "neutral", figures)
    away = [i for i, value in enumerate(values) if abs(value - values[-1]) > near + wobble]
    level = away[-1] + 1 if away else 0
    if level > len(values) - 3:
        return None
    figures |= {"since": steps[level], "from": values[level], "near": near + wobble}
    return Finding("plateau", "neutral", figures)


def rate_too_low(losses: Losses, checks: Rows, rows: Rows) -> Finding | None:
    """The loss falls as steadily late as early, and not by much: most learning curves bend at once."""
    parts = stretches(losses)
    middle = len(parts) // 2
    first = parts[0].mean - parts[middle].mean
    second = parts[middle].mean - parts[-1].mean
    sure, moved = SURE * math.hypot(parts[0].error, parts[-1].error), _moved(rows)
    if parts[0].mean - parts[-1].mean <= sure or second <= 0 or second < SLOW * first:
        return None
    if moved.get("ratio", 0.0) >= USUAL_RATIO:
        return None
    figures = {"first": first, "second": second, "rate": _rate(rows)}
    return Finding("rate_too_low", "neutral", figures | moved)


def learnt_nothing(losses: Losses, checks: Rows, rows: Rows) -> Finding | None:
    """The training loss at the end is where it began."""
    parts = stretches(losses)
    fall, sure = parts[0].mean - parts[-1].mean, SURE * math.hypot(parts[0].error, parts[-1].error)
    if abs(fall) > max(sure, LEVEL * abs(parts[0].mean)):
        return None
    moved = _moved(rows)
    kind: Kind = "far_too_low" if moved.get("ratio", 1.0) < LOW_RATIO else "learnt_nothing"
    figures = {"start": parts[0].mean, "end": parts[-1].mean, "rate": _rate(rows)}
    return Finding(kind, "bad", figures | moved)


def rate_too_high(losses: Losses, checks: Rows, rows: Rows) -> Finding | None:
    """The held-out loss has not passed a unigram model's, and updates were as large as weights bear."""
    level = checks[-1].get("levels", {}).get("unigram") if checks else None
    name = next(iter(checks[-1]["scores"])) if checks else ""
    largest = max((_middle(row) for row in rows if row["kind"] == "health"), default=0.0)
    if level is None or checks[-1]["scores"][name] < level or largest < HIGH_RATIO:
        return None
    figures = {"end": checks[-1]["scores"][name], "unigram": level, "rate": _rate(rows), "ratio": largest}
    return Finding("rate_too_high", "bad", figures)


def not_begun(losses: Losses, checks: Rows, rows: Rows) -> Finding | None:
    """The held-out loss never passed a unigram model's clearly: a level there is where learning begins."""
    levels = checks[-1].get("levels", {}) if checks else {}
    if not {"unigram", "bigram"} <= levels.keys():
        return None
    steps, values, _ = _held_out(checks)
    if min(values) < levels["unigram"] - BEGUN * (levels["unigram"] - levels["bigram"]):
        return None
    figures = {"name": next(iter(checks[0]["scores"])), "best": min(values), "step": steps[-1]}
    return Finding("not_begun", "bad", figures | {k: levels[k] for k in ("unigram", "bigram")})


def dead_units(losses: Losses, checks: Rows, rows: Rows) -> Finding | None:
    """Many feed-forward units of a layer say nothing at any place of a step."""
    health = [row for row in rows if row["kind"] == "health" and row.get("dead")]
    if not health:
        return None
    name, share = max(health[-1]["dead"].items(), key=lambda pair: pair[1])
    if share <= DEAD:
        return None
    return Finding("dead_units", "neutral", {"layer": name, "dead": share, "step": health[-1]["step"]})


LOOKS: tuple[Look, ...] = (
    diverged, learnt_nothing, rate_too_high, overfitted, not_begun, spikes, rate_too_low, trend, dead_units,
)  # fmt: skip


def stretches(losses: Losses, count: int = STRETCHES) -> list[Stretch]:
    """The training loss as means over at most ``count`` stretches of at least 4 steps."""
    count = max(1, min(count, len(losses) // 4))
    borders = [round(k * len(losses) / count) for k in range(count + 1)]
    return [_stretch(losses[a:b]) for a, b in pairwise(borders)]


def _stretch(part: Losses) -> Stretch:
    values = [loss for _, loss in part]
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    return Stretch(part[0][0], part[-1][0], statistics.fmean(values), error)


def _mean_near(losses: Losses, step: int) -> Stretch:
    """The training loss over the stretch of steps that ends at ``step``."""
    wide = max(4, len(losses) // STRETCHES)
    before = [pair for pair in losses if pair[0] <= step][-wide:]
    return _stretch(before or losses[:wide])


def _held_out(checks: Rows) -> tuple[list[int], list[float], int]:
    """Steps, values of the score that decides, and 1 where lower is better, else -1."""
    name = next(iter(checks[0]["scores"]))
    sign = -1 if checks[0].get("direction", "lower") == "higher" else 1
    return [c["step"] for c in checks], [float(c["scores"][name]) for c in checks], sign


def _wobble(values: Sequence[float]) -> float:
    """How much a score jumps from one evaluation to the next, beyond its trend."""
    bends = [abs(a - 2 * b + c) / 2 for a, b, c in zip(values, values[1:], values[2:], strict=False)]
    return statistics.median(bends) if bends else 0.0


def _rate(rows: Rows) -> float:
    """The highest learning rate that was reached."""
    return max(float(row["learning_rate"]) for row in rows if row["kind"] == "step")


def _moved(rows: Rows) -> dict[str, float]:
    """The median size of an update beside the weights, where it was measured."""
    ratios = [_middle(row) for row in rows if row["kind"] == "health" and row.get("update_ratio")]
    return {"ratio": statistics.median(ratios)} if ratios else {}


def _middle(health: Mapping[str, Any]) -> float:
    ratios = health.get("update_ratio", {}).values()
    return statistics.median(ratios) if ratios else 0.0


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
