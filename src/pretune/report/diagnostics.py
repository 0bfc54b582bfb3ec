"""What the curves of a run say: pure functions of the rows of its ``metrics.jsonl``, each with its numbers.

The training loss is read as means over equal stretches of steps, with their standard errors, since that of
one step is mostly noise. The thresholds are coarse on purpose: a verdict is a hint, and says how it knows.
None is given from less than it needs: steps at a learning rate that could change something, evaluations
among them, passes over the records, and so many records that the score does not change by chance.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Literal

from pretune.training.budget import LEAST_STEPS as FEW_STEPS

Rows = Sequence[Mapping[str, Any]]
Status = Literal["good", "bad", "neutral"]
Kind = Literal[
    "constant_prediction", "class_never_predicted",
    "too_short", "diverged", "learnt_nothing", "far_too_low", "rate_too_high", "overfitted", "not_begun",
    "spikes", "rate_too_low", "still_improving", "plateau", "dead_units", "stopped_early",
    "stopped_early_low",
]  # fmt: skip

LEAST_STEPS, LEAST_CHECKS = 24, 4
"""Shorter curves are not judged."""
ANNEALED, HALF = 0.1, 0.5
"""Shares of the peak: below the first a learning rate changes little more; from the second on it is high."""
LEAST_AT_PEAK = 64
"""Steps at a high learning rate from which on it can be judged."""
SPAN, LEAST_LEVEL = 0.15, 3
"""A level holds for this share of the steps, and so many evaluations, before the learning rate comes down."""
READ = 0.5
"""Passes over the records before which no level is one, where the log counts them."""
BY_CHANCE = 1.5
"""Standard errors of a score, over records, by which it may change from one evaluation to another by chance:
about two of the difference, since the records are the same."""
COARSE = 0.05
"""Standard error of a score, as a share of it, from which on its records are too few to show a level."""
MUST_MOVE = 0.1
"""Share of a training loss that a fall must be smaller than, for sure, to be none."""
LITTLE = 0.25
"""Share of the training loss; one that fell by more has not been held back by its learning rate."""
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
    if len(losses) < FEW_STEPS and any(finding.kind in OF_THE_RATE for finding in found):
        # Of so short a run the steps are the cause, and no learning rate is blamed.
        found = [finding for finding in found if finding.kind not in OF_THE_RATE]
        found.append(Finding("too_short", "neutral", {"steps": len(losses), "least": FEW_STEPS}))
    return by_gravity(found)


def by_gravity(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """The findings without those that another one makes pointless, the gravest first."""
    found = tuple(findings)
    moot = {kind for finding in found for kind in MOOT.get(finding.kind, ())}
    kept = (finding for finding in found if finding.kind not in moot)
    return tuple(sorted(kept, key=lambda f: (ORDER[f.status], _place(f.kind))))


def _place(kind: Kind) -> int:
    return FIRST.index(kind) if kind in FIRST else len(FIRST)


FIRST: tuple[Kind, ...] = ("constant_prediction", "too_short")
"""What stands above all else of its status."""
OF_THE_RATE: tuple[Kind, ...] = ("learnt_nothing", "far_too_low", "rate_too_low")
ORDER: dict[Status, int] = {"bad": 0, "neutral": 1, "good": 2}
MOOT: dict[Kind, tuple[Kind, ...]] = {
    "constant_prediction": (
        "learnt_nothing", "far_too_low", "overfitted", "not_begun", "rate_too_low", "still_improving",
        "plateau",
    ),
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
    """The held-out score got worse after its best while the training loss went on falling.

    Records that were read once at most cannot have been learnt by heart.
    """
    if len(checks) < LEAST_CHECKS or _passes(rows, 2.0) <= 1:
        return None
    steps, values, sign = _held_out(checks)
    best = min(range(len(values)), key=lambda i: sign * values[i])
    worse = sign * (values[-1] - values[best])
    chance = max(2 * LEVEL * abs(values[best]), 2 * _wobble(values), BY_CHANCE * _error(checks))
    if best > len(values) - 3 or worse <= chance:
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
    best = min(sign * value for value in values)
    figures = {
        "name": next(iter(checks[0]["scores"])), "from": values[begin], "since": steps[begin],
        "end": values[-1], "step": steps[-1],
    }  # fmt: skip
    wobble, near, error = _wobble(values), LEVEL * abs(values[-1]), _error(checks)
    if late > max(STILL * (sign * values[0] - best), near, wobble, BY_CHANCE * error):
        # an end beside the best: a score that only swings back is not still improving
        return Finding("still_improving", "neutral", figures) if sign * values[-1] <= best + near else None
    away = [i for i, value in enumerate(values) if abs(value - values[-1]) > near + wobble]
    level = away[-1] + 1 if away else 0
    if level >= len(values) or error > COARSE * abs(values[-1]) or not _holds(rows, checks, steps[level]):
        return None
    figures |= {"since": steps[level], "from": values[level], "near": near + wobble}
    return Finding("plateau", "neutral", figures)


def _holds(rows: Rows, checks: Rows, since: int) -> bool:
    """Whether a level from ``since`` on is the model's: it held while the learning rate could change it."""
    rates, peak = _rates(rows), _rate(rows)
    learning = [step for step, rate in rates.items() if rate >= ANNEALED * peak]
    after = sum(step > since for step in learning)
    judged = sum(since <= check["step"] <= learning[-1] for check in checks)
    enough = after >= max(LEAST_STEPS, SPAN * len(rates)) and judged >= LEAST_LEVEL
    return enough and _passes(rows, READ) >= READ


def rate_too_low(losses: Losses, checks: Rows, rows: Rows) -> Finding | None:
    """The loss falls as steadily late as early, and not by much: most learning curves bend at once.

    Only steps at a high learning rate are looked at: in warm-up and decay the schedule bends the curve.
    """
    rates, peak = _rates(rows), _rate(rows)
    high = [pair for pair in losses if rates[pair[0]] >= HALF * peak]
    if len(high) < LEAST_AT_PEAK:
        return None
    parts = stretches(high)
    middle = len(parts) // 2
    first = parts[0].mean - parts[middle].mean
    second = parts[middle].mean - parts[-1].mean
    sure, moved = SURE * math.hypot(parts[0].error, parts[-1].error), _moved(rows)
    fall = parts[0].mean - parts[-1].mean
    if fall <= sure or fall > LITTLE * abs(parts[0].mean) or second <= 0 or second < SLOW * first:
        return None
    unseen = not moved and any(row.get("update_ratio") for row in rows if row["kind"] == "health")
    if unseen or moved.get("ratio", 0.0) >= USUAL_RATIO:
        return None
    figures = {"first": first, "second": second, "rate": peak}
    return Finding("rate_too_low", "neutral", figures | moved)


def learnt_nothing(losses: Losses, checks: Rows, rows: Rows) -> Finding | None:
    """The training loss at the end is where it began, as far as its noise lets that be seen."""
    parts = stretches(losses)
    fall, sure = parts[0].mean - parts[-1].mean, SURE * math.hypot(parts[0].error, parts[-1].error)
    start = abs(parts[0].mean)
    if abs(fall) > max(sure, LEVEL * start) or sure > MUST_MOVE * start:
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
    figures = {
        "name": next(iter(checks[0]["scores"])), "best": min(values), "step": steps[-1], "rate": _rate(rows),
    }  # fmt: skip
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
    """The training loss as means over at most ``count`` stretches of at least 4 steps.

    An error is no smaller than the usual one of all: of 4 values that are alike by chance it says little.
    """
    count = max(1, min(count, len(losses) // 4))
    borders = [round(k * len(losses) / count) for k in range(count + 1)]
    parts = [_stretch(losses[a:b]) for a, b in pairwise(borders)]
    usual = statistics.median(part.error for part in parts)
    return [replace(part, error=max(part.error, usual)) for part in parts]


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


def _error(checks: Rows) -> float:
    """Standard error of the last score over the records that it was measured on; 0 where it is not known."""
    low_high = checks[-1].get("interval")
    return (low_high[1] - low_high[0]) / (2 * 1.96) if low_high else 0.0


def _passes(rows: Rows, unknown: float) -> float:
    """How often the records were read; ``unknown`` where the log does not count it."""
    counted = [row["epoch"] for row in rows if row["kind"] == "step" and "epoch" in row]
    return float(counted[-1]) if counted else unknown


def _rates(rows: Rows) -> dict[int, float]:
    """The learning rate of each step."""
    return {row["step"]: float(row["learning_rate"]) for row in rows if row["kind"] == "step"}


def _rate(rows: Rows) -> float:
    """The highest learning rate that was reached."""
    return max(_rates(rows).values())


def _moved(rows: Rows) -> dict[str, float]:
    """The median size of an update beside the weights, where it was measured at a high learning rate."""
    rates, least = _rates(rows), HALF * _rate(rows)
    health = [row for row in rows if row["kind"] == "health" and row.get("update_ratio")]
    ratios = [_middle(row) for row in health if rates.get(row["step"], 0.0) >= least]
    return {"ratio": statistics.median(ratios)} if ratios else {}


def _middle(health: Mapping[str, Any]) -> float:
    ratios = health.get("update_ratio", {}).values()
    return statistics.median(ratios) if ratios else 0.0


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
