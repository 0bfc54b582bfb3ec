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

from pretune.training.budget import MIN_STEPS as MIN_STUDIED_STEPS

Rows = Sequence[Mapping[str, Any]]
Status = Literal["good", "bad", "neutral"]
FindingType = Literal[
    "constant_prediction", "class_never_predicted", "too_short", "diverged", "no_learning",
    "learning_rate_far_too_low", "learning_rate_too_high", "overfitted", "undertrained", "spikes",
    "learning_rate_too_low", "still_improving", "plateau", "dead_units", "stopped_early",
    "stopped_early_low",
]  # fmt: skip

MIN_STEPS, MIN_EVALUATIONS = 24, 4
"""Shorter curves are not judged."""
ANNEALED_LR, HIGH_LR = 0.1, 0.5
"""Shares of the peak: below the first a learning rate changes little more; from the second on it is high."""
MIN_STEPS_AT_PEAK = 64
"""Steps at a high learning rate from which on it can be judged."""
PLATEAU_STEPS, PLATEAU_EVALUATIONS = 0.15, 3
"""A level holds for this share of the steps, and so many evaluations, before the learning rate comes down."""
PLATEAU_EPOCHS = 0.5
"""Passes over the records before which no level is one, where the log counts them."""
CHANCE_ERRORS = 1.5
"""Standard errors of a score, over records, by which it may change from one evaluation to another by chance:
about two of the difference, since the records are the same."""
MAX_SCORE_ERROR = 0.05
"""Standard error of a score, as a share of it, from which on its records are too few to show a level."""
MIN_DETECTABLE_FALL = 0.1
"""Share of a training loss that a fall must be smaller than, for sure, to be none."""
SMALL_FALL = 0.25
"""Share of the training loss; one that fell by more has not been held back by its learning rate."""
NUM_SEGMENTS = 16
SIGNIFICANT_ERRORS = 4.0
"""Standard errors by which two means differ for sure."""
DIVERGED_RISE = 0.05
"""Share of its whole fall by which a loss must rise again to have diverged, at least."""
SPIKE_STEPS, SPIKE_DEVIATIONS = 25, 10.0
"""A loss this many times the usual deviation above the median of the steps before it is a spike."""
IMPROVING_FALL = 0.04
"""Share of the whole fall of the held-out loss in the last quarter of the run; with more, it still falls."""
LEVEL_TOLERANCE = 0.005
"""Relative change of a held-out score that counts as none."""
SLOW_START_RATIO = 0.6
"""A training loss that falls in the second half at this share of its rate in the first has barely begun."""
USUAL_UPDATE_RATIO = 5e-4
"""Size of an update beside the weights from which on a learning rate is not called too low."""
LOW_UPDATE_RATIO, HIGH_UPDATE_RATIO = 1e-4, 2e-2
"""Below the first an update does next to nothing; above the second it undoes what was learnt."""
UNDERTRAINED_GAIN = 0.1
"""Share of the way from a unigram model's loss to a bigram model's; before it a model has learnt little more
than how often each token occurs."""
DEAD_UNITS_SHARE = 0.1
"""Share of silent units in a layer that is worth a word."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a curve shows; ``evidence`` are the numbers that it is known by."""

    type: FindingType
    status: Status
    evidence: Mapping[str, float | int | str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LossSegment:
    """Equally many steps of the training loss."""

    first_step: int
    last_step: int
    mean: float
    standard_error: float


def diagnose(rows: Rows) -> tuple[Finding, ...]:
    """Everything that can be said of a run, the gravest first."""
    losses = [(r["step"], r["loss"]) for r in rows if r["type"] == "step" and _is_finite(r["loss"])]
    evaluations = [
        r for r in rows if r["type"] == "evaluation" and _is_finite(next(iter(r["scores"].values())))
    ]
    if len(losses) < MIN_STEPS:
        return (Finding("too_short", "neutral", {"steps": len(losses), "min_steps": MIN_STEPS}),)
    results = [detector(losses, evaluations, rows) for detector in DETECTORS]
    findings = [finding for finding in results if finding is not None]
    if len(losses) < MIN_STUDIED_STEPS and any(finding.type in LOW_LR_FINDINGS for finding in findings):
        # Of so short a run the steps are the cause, and no learning rate is blamed.
        findings = [finding for finding in findings if finding.type not in LOW_LR_FINDINGS]
        findings.append(
            Finding("too_short", "neutral", {"steps": len(losses), "min_steps": MIN_STUDIED_STEPS})
        )
    return sort_by_severity(findings)


def sort_by_severity(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """The findings without those that another one makes pointless, the gravest first."""
    all_findings = tuple(findings)
    suppressed = {type_ for finding in all_findings for type_ in SUPPRESSES.get(finding.type, ())}
    remaining = (finding for finding in all_findings if finding.type not in suppressed)
    return tuple(sorted(remaining, key=lambda f: (STATUS_ORDER[f.status], _priority(f.type))))


def _priority(finding_type: FindingType) -> int:
    return FIRST_FINDINGS.index(finding_type) if finding_type in FIRST_FINDINGS else len(FIRST_FINDINGS)


FIRST_FINDINGS: tuple[FindingType, ...] = ("constant_prediction", "too_short")
"""What stands above all else of its status."""
LOW_LR_FINDINGS: tuple[FindingType, ...] = (
    "no_learning",
    "learning_rate_far_too_low",
    "learning_rate_too_low",
)
STATUS_ORDER: dict[Status, int] = {"bad": 0, "neutral": 1, "good": 2}
SUPPRESSES: dict[FindingType, tuple[FindingType, ...]] = {
    "constant_prediction": (
        "no_learning", "learning_rate_far_too_low", "overfitted", "undertrained", "learning_rate_too_low",
        "still_improving", "plateau",
    ),
    "diverged": (
        "spikes", "overfitted", "undertrained", "learning_rate_too_low", "still_improving", "plateau",
    ),
    "no_learning": ("undertrained", "learning_rate_too_low", "still_improving", "plateau"),
    "learning_rate_far_too_low": ("undertrained", "learning_rate_too_low", "still_improving", "plateau"),
    "learning_rate_too_high": (
        "no_learning", "undertrained", "learning_rate_too_low", "still_improving", "plateau", "overfitted",
    ),
    "overfitted": ("undertrained", "learning_rate_too_low", "still_improving", "plateau"),
    "undertrained": ("still_improving", "plateau"),
}  # fmt: skip
"""What there is no point in saying once the first is said."""
Losses = Sequence[tuple[int, float]]
Detector = Callable[[Losses, Rows, Rows], Finding | None]


def detect_divergence(losses: Losses, evaluations: Rows, rows: Rows) -> Finding | None:
    """The training loss rose for good after its lowest stretch."""
    segments = split_losses(losses)
    low = min(segments, key=lambda s: s.mean)
    end, fall = segments[-1], max(0.0, segments[0].mean - low.mean)
    rise = end.mean - low.mean
    if rise <= max(
        SIGNIFICANT_ERRORS * math.hypot(end.standard_error, low.standard_error),
        DIVERGED_RISE * fall,
        LEVEL_TOLERANCE * abs(low.mean),
    ):
        return None
    return Finding(
        "diverged",
        "bad",
        {
            "low": low.mean,
            "at": low.last_step,
            "end": end.mean,
            "learning_rate": _peak_learning_rate(rows),
            "step": end.last_step,
        },
    )


def detect_spikes(losses: Losses, evaluations: Rows, rows: Rows) -> Finding | None:
    """Single steps, or a few in a row, far above those before them."""
    jumps: list[tuple[int, float]] = []
    values = [loss for _, loss in losses]
    for i in range(SPIKE_STEPS, len(values)):
        before = values[i - SPIKE_STEPS : i]
        middle = statistics.median(before)
        deviation = 1.4826 * statistics.median(abs(v - middle) for v in before)  # a normal's deviation
        jump = values[i] - middle
        separate = not jumps or losses[i][0] - jumps[-1][0] > SPIKE_STEPS
        if separate and jump > max(SPIKE_DEVIATIONS * deviation, 0.05 * abs(middle)):
            jumps.append((losses[i][0], jump))
    if not jumps:
        return None
    step, jump = max(jumps, key=lambda pair: pair[1])
    return Finding(
        "spikes",
        "neutral",
        {"count": len(jumps), "step": step, "jump": jump, "learning_rate": _peak_learning_rate(rows)},
    )


def detect_overfitting(losses: Losses, evaluations: Rows, rows: Rows) -> Finding | None:
    """The held-out score got worse after its best while the training loss went on falling.

    Records that were read once at most cannot have been learnt by heart.
    """
    if len(evaluations) < MIN_EVALUATIONS or _epochs(rows, 2.0) <= 1:
        return None
    steps, values, sign = _validation_curve(evaluations)
    best = min(range(len(values)), key=lambda i: sign * values[i])
    worse = sign * (values[-1] - values[best])
    chance = max(
        2 * LEVEL_TOLERANCE * abs(values[best]),
        2 * _fluctuation(values),
        CHANCE_ERRORS * _score_error(evaluations),
    )
    if best > len(values) - 3 or worse <= chance:
        return None
    around, end = _segment_before(losses, steps[best]), split_losses(losses)[-1]
    if end.mean >= around.mean - 2 * math.hypot(end.standard_error, around.standard_error):
        return None
    name = next(iter(evaluations[0]["scores"]))
    return Finding("overfitted", "bad", {
        "name": name, "best": values[best], "at": steps[best], "end": values[-1], "step": steps[-1],
        "training_at_best": around.mean, "training_at_end": end.mean,
    })  # fmt: skip


def detect_trend(losses: Losses, evaluations: Rows, rows: Rows) -> Finding | None:
    """Whether the held-out score was still getting better at the end, or had levelled off, and when."""
    if len(evaluations) < MIN_EVALUATIONS:
        return None
    steps, values, sign = _validation_curve(evaluations)
    begin = min(next(i for i, step in enumerate(steps) if step >= 0.7 * steps[-1]), len(values) - 2)
    late = sign * (values[begin] - values[-1])
    best = min(sign * value for value in values)
    evidence = {
        "name": next(iter(evaluations[0]["scores"])), "from": values[begin], "since": steps[begin],
        "end": values[-1], "step": steps[-1],
    }  # fmt: skip
    fluctuation, near, error = (
        _fluctuation(values),
        LEVEL_TOLERANCE * abs(values[-1]),
        _score_error(evaluations),
    )
    if late > max(IMPROVING_FALL * (sign * values[0] - best), near, fluctuation, CHANCE_ERRORS * error):
        # an end beside the best: a score that only swings back is not still improving
        return Finding("still_improving", "neutral", evidence) if sign * values[-1] <= best + near else None
    away = [i for i, value in enumerate(values) if abs(value - values[-1]) > near + fluctuation]
    level = away[-1] + 1 if away else 0
    if (
        level >= len(values)
        or error > MAX_SCORE_ERROR * abs(values[-1])
        or not _is_plateau(rows, evaluations, steps[level])
    ):
        return None
    evidence |= {"since": steps[level], "from": values[level], "tolerance": near + fluctuation}
    return Finding("plateau", "neutral", evidence)


def _is_plateau(rows: Rows, evaluations: Rows, since: int) -> bool:
    """Whether a level from ``since`` on is the model's: it held while the learning rate could change it."""
    rates, peak = _learning_rates(rows), _peak_learning_rate(rows)
    learning = [step for step, rate in rates.items() if rate >= ANNEALED_LR * peak]
    after = sum(step > since for step in learning)
    num_evaluations = sum(since <= check["step"] <= learning[-1] for check in evaluations)
    enough = after >= max(MIN_STEPS, PLATEAU_STEPS * len(rates)) and num_evaluations >= PLATEAU_EVALUATIONS
    return enough and _epochs(rows, PLATEAU_EPOCHS) >= PLATEAU_EPOCHS


def detect_low_lr(losses: Losses, evaluations: Rows, rows: Rows) -> Finding | None:
    """The loss falls as steadily late as early, and not by much: most learning curves bend at once.

    Only steps at a high learning rate are looked at: in warm-up and decay the schedule bends the curve.
    """
    rates, peak = _learning_rates(rows), _peak_learning_rate(rows)
    high = [pair for pair in losses if rates[pair[0]] >= HIGH_LR * peak]
    if len(high) < MIN_STEPS_AT_PEAK:
        return None
    segments = split_losses(high)
    middle = len(segments) // 2
    first = segments[0].mean - segments[middle].mean
    second = segments[middle].mean - segments[-1].mean
    sure, update_ratio = (
        SIGNIFICANT_ERRORS * math.hypot(segments[0].standard_error, segments[-1].standard_error),
        _update_ratio(rows),
    )
    fall = segments[0].mean - segments[-1].mean
    if (
        fall <= sure
        or fall > SMALL_FALL * abs(segments[0].mean)
        or second <= 0
        or second < SLOW_START_RATIO * first
    ):
        return None
    unseen = not update_ratio and any(
        row.get("update_ratio") for row in rows if row["type"] == "activation_stats"
    )
    if unseen or update_ratio.get("ratio", 0.0) >= USUAL_UPDATE_RATIO:
        return None
    evidence = {"first": first, "second": second, "learning_rate": peak}
    return Finding("learning_rate_too_low", "neutral", evidence | update_ratio)


def detect_no_learning(losses: Losses, evaluations: Rows, rows: Rows) -> Finding | None:
    """The training loss at the end is where it began, as far as its noise lets that be seen."""
    segments = split_losses(losses)
    fall, sure = (
        segments[0].mean - segments[-1].mean,
        SIGNIFICANT_ERRORS * math.hypot(segments[0].standard_error, segments[-1].standard_error),
    )
    start = abs(segments[0].mean)
    if abs(fall) > max(sure, LEVEL_TOLERANCE * start) or sure > MIN_DETECTABLE_FALL * start:
        return None
    update_ratio = _update_ratio(rows)
    finding_type: FindingType = (
        "learning_rate_far_too_low" if update_ratio.get("ratio", 1.0) < LOW_UPDATE_RATIO else "no_learning"
    )
    evidence = {
        "start": segments[0].mean,
        "end": segments[-1].mean,
        "learning_rate": _peak_learning_rate(rows),
    }
    return Finding(finding_type, "bad", evidence | update_ratio)


def detect_high_lr(losses: Losses, evaluations: Rows, rows: Rows) -> Finding | None:
    """The held-out loss has not passed a unigram model's, and updates were as large as weights bear."""
    unigram_loss = evaluations[-1].get("reference_losses", {}).get("unigram") if evaluations else None
    name = next(iter(evaluations[-1]["scores"])) if evaluations else ""
    largest = max(
        (_median_update_ratio(row) for row in rows if row["type"] == "activation_stats"), default=0.0
    )
    if unigram_loss is None or evaluations[-1]["scores"][name] < unigram_loss or largest < HIGH_UPDATE_RATIO:
        return None
    evidence = {
        "end": evaluations[-1]["scores"][name],
        "unigram": unigram_loss,
        "learning_rate": _peak_learning_rate(rows),
        "ratio": largest,
    }
    return Finding("learning_rate_too_high", "bad", evidence)


def detect_undertraining(losses: Losses, evaluations: Rows, rows: Rows) -> Finding | None:
    """The held-out loss never passed a unigram model's clearly: a level there is where learning begins."""
    reference_losses = evaluations[-1].get("reference_losses", {}) if evaluations else {}
    if not {"unigram", "bigram"} <= reference_losses.keys():
        return None
    steps, values, _ = _validation_curve(evaluations)
    if min(values) < reference_losses["unigram"] - UNDERTRAINED_GAIN * (
        reference_losses["unigram"] - reference_losses["bigram"]
    ):
        return None
    evidence = {
        "name": next(iter(evaluations[0]["scores"])), "best": min(values), "step": steps[-1],
        "learning_rate": _peak_learning_rate(rows),
    }  # fmt: skip
    return Finding("undertrained", "bad", evidence | {k: reference_losses[k] for k in ("unigram", "bigram")})


def detect_dead_units(losses: Losses, evaluations: Rows, rows: Rows) -> Finding | None:
    """Many feed-forward units of a layer say nothing at any place of a step."""
    health = [row for row in rows if row["type"] == "activation_stats" and row.get("dead_share")]
    if not health:
        return None
    name, share = max(health[-1]["dead_share"].items(), key=lambda pair: pair[1])
    if share <= DEAD_UNITS_SHARE:
        return None
    return Finding("dead_units", "neutral", {"layer": name, "dead_share": share, "step": health[-1]["step"]})


DETECTORS: tuple[Detector, ...] = (
    detect_divergence, detect_no_learning, detect_high_lr, detect_overfitting, detect_undertraining,
    detect_spikes, detect_low_lr, detect_trend, detect_dead_units,
)  # fmt: skip


def split_losses(losses: Losses, count: int = NUM_SEGMENTS) -> list[LossSegment]:
    """The training loss as means over at most ``count`` stretches of at least 4 steps.

    An error is no smaller than the usual one of all: of 4 values that are alike by chance it says little.
    """
    count = max(1, min(count, len(losses) // 4))
    borders = [round(k * len(losses) / count) for k in range(count + 1)]
    segments = [_summarize_losses(losses[a:b]) for a, b in pairwise(borders)]
    usual = statistics.median(part.standard_error for part in segments)
    return [replace(segment, standard_error=max(segment.standard_error, usual)) for segment in segments]


def _summarize_losses(losses: Losses) -> LossSegment:
    values = [loss for _, loss in losses]
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    return LossSegment(losses[0][0], losses[-1][0], statistics.fmean(values), error)


def _segment_before(losses: Losses, step: int) -> LossSegment:
    """The training loss over the stretch of steps that ends at ``step``."""
    wide = max(4, len(losses) // NUM_SEGMENTS)
    before = [pair for pair in losses if pair[0] <= step][-wide:]
    return _summarize_losses(before or losses[:wide])


def _validation_curve(evaluations: Rows) -> tuple[list[int], list[float], int]:
    """Steps, values of the score that decides, and 1 where lower is better, else -1."""
    name = next(iter(evaluations[0]["scores"]))
    sign = -1 if evaluations[0].get("direction", "lower") == "higher" else 1
    return [c["step"] for c in evaluations], [float(c["scores"][name]) for c in evaluations], sign


def _fluctuation(values: Sequence[float]) -> float:
    """How much a score jumps from one evaluation to the next, beyond its trend."""
    bends = [abs(a - 2 * b + c) / 2 for a, b, c in zip(values, values[1:], values[2:], strict=False)]
    return statistics.median(bends) if bends else 0.0


def _score_error(evaluations: Rows) -> float:
    """Standard error of the last score over the records that it was measured on; 0 where it is not known."""
    low_high = evaluations[-1].get("interval")
    return (low_high[1] - low_high[0]) / (2 * 1.96) if low_high else 0.0


def _epochs(rows: Rows, default: float) -> float:
    """How often the records were read; ``default`` where the log does not count it."""
    epochs = [row["epoch"] for row in rows if row["type"] == "step" and "epoch" in row]
    return float(epochs[-1]) if epochs else default


def _learning_rates(rows: Rows) -> dict[int, float]:
    """The learning rate of each step."""
    return {row["step"]: float(row["learning_rate"]) for row in rows if row["type"] == "step"}


def _peak_learning_rate(rows: Rows) -> float:
    """The highest learning rate that was reached."""
    return max(_learning_rates(rows).values())


def _update_ratio(rows: Rows) -> dict[str, float]:
    """The median size of an update beside the weights, where it was measured at a high learning rate."""
    rates, min_rate = _learning_rates(rows), HIGH_LR * _peak_learning_rate(rows)
    health = [row for row in rows if row["type"] == "activation_stats" and row.get("update_ratio")]
    ratios = [_median_update_ratio(row) for row in health if rates.get(row["step"], 0.0) >= min_rate]
    return {"ratio": statistics.median(ratios)} if ratios else {}


def _median_update_ratio(health: Mapping[str, Any]) -> float:
    ratios = health.get("update_ratio", {}).values()
    return statistics.median(ratios) if ratios else 0.0


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
