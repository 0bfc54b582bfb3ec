"""What a run's predictions show before all else: one answer for every text, and classes never predicted.

The cause, and so what to change, is read from the run: its steps, what its curves show, the true values.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

from pretune.evaluation.constant_prediction import (
    ConstantPrediction,
    find_constant_output,
    find_constant_prediction,
    find_never_predicted,
)
from pretune.report.diagnostics import ANNEALED_LR, Finding, Rows, Status
from pretune.tasks.base import Task
from pretune.text.tokenizer import Tokenizer
from pretune.workflows.pretrain.samples import Sample

MIN_STEPS = 50
"""Below it a run has hardly begun to learn, whatever else is wrong."""
HIGH_RATE_RATIO, LOW_RATE_RATIO = 1.5, 0.2
"""Shares of the usual learning rate of a model beyond which its own is most likely the cause."""
RATE_FACTOR = 3.0
"""By which a learning rate is to be raised or lowered."""
DOMINANT_SHARE = 0.9
"""Share of one true value from which on the others are rare."""
MIN_NEVER_PREDICTED_SHARE = 0.05
"""Share of the records in a class that is never predicted, from which on that is a fault of the model."""
MAX_SHOWN = 5
"""Classes that a sentence names."""


@dataclass(frozen=True)
class DiagnosisContext:
    """How a model was trained, as far as the cause of a constant prediction depends on it."""

    recommended_learning_rate: float | None = None
    """The peak learning rate that suits the model, where that is known."""
    threshold: float | str | None = None
    """Of a task with several labels."""


@dataclass(frozen=True)
class FinalPredictions:
    """A trained model's last predictions, as far as verdicts depend on them."""

    findings: tuple[Finding, ...]
    beats_trivial_baseline: bool
    """Does it score above what needs no text: the most frequent answer, or a unigram model?"""
    context: DiagnosisContext


def diagnose_predictions(
    task: Task, predicted: Sequence[Any], references: Sequence[Any], split: str = ""
) -> tuple[Finding, ...]:
    """What the predicted values of a task's records show, gravest first.

    ``split``: ``test`` or ``validation``, where that is known.
    """
    found = []
    constant = find_constant_prediction(predicted, [task.as_value(reference) for reference in references])
    if constant is not None:
        found.append(_constant_finding(constant, _format_value(constant.value), "text", split))
    classes = [task.labels_of(reference) for reference in references]
    never_predicted_classes = find_never_predicted(map(task.labels_of, predicted), classes)
    if never_predicted_classes:
        names = ", ".join(
            f"{_truncate(repr(c.label))} ({100 * c.share:.3g} %)" for c in never_predicted_classes[:MAX_SHOWN]
        )
        status: Status = "bad" if never_predicted_classes[0].share >= MIN_NEVER_PREDICTED_SHARE else "neutral"
        figures: dict[str, float | int | str] = {
            "count": len(never_predicted_classes), "classes": len(set(chain.from_iterable(classes))),
            "n": len(references),
            "label": never_predicted_classes[0].label, "support": never_predicted_classes[0].support,
            "share": never_predicted_classes[0].share,
            "names": names + (" ..." if len(never_predicted_classes) > MAX_SHOWN else ""), "split": split,
        }  # fmt: skip
        found.append(Finding("class_never_predicted", status, figures))
    return tuple(found)


def diagnose_samples(samples: Sequence[Sample], tokenizer: Tokenizer) -> tuple[Finding, ...]:
    """What the samples of a language model show: one word for every gap, nothing, or one token repeated."""
    filled_samples = [s for s in samples if s.alternatives]
    filled = find_constant_prediction(
        [s.output.strip() for s in filled_samples], [s.reference for s in filled_samples]
    )
    if filled is not None and filled.count == filled.n:
        return (_constant_finding(filled, repr(filled.value), "gap", ""),)
    outputs = [s.output for s in samples if not s.alternatives]
    written = find_constant_output([tokenizer.encode(output).ids.tolist() for output in outputs])
    if written is None:
        return ()
    shown = ", ".join(repr(tokenizer.decode([token])) for token in written.value[:MAX_SHOWN])
    return (_constant_finding(written, shown, "repetition" if written.value else "empty", ""),)


def add_cause(
    findings: Iterable[Finding], curves: Sequence[Finding], rows: Rows, context: DiagnosisContext
) -> tuple[Finding, ...]:
    """The findings, a constant prediction with its most likely cause."""
    return tuple(
        replace(f, evidence={**f.evidence, **_likely_cause(f.evidence, curves, rows, context)})
        if f.type == "constant_prediction"
        else f
        for f in findings
    )


def _likely_cause(
    figures: Mapping[str, Any], curves: Sequence[Finding], rows: Rows, context: DiagnosisContext
) -> dict[str, float | int | str]:
    rates = [float(row["learning_rate"]) for row in rows if row["type"] == "step"]
    rate = max(rates, default=0.0)
    effective = sum(r >= ANNEALED_LR * rate for r in rates) if rate else 0
    known: dict[str, float | int | str] = {"steps": len(rates), "effective": effective, "learning_rate": rate}
    if effective < MIN_STEPS:
        return {"cause": "few_steps" if len(rates) < MIN_STEPS else "few_effective_steps", **known}
    curve_types, recommended = {finding.type for finding in curves}, context.recommended_learning_rate or rate
    if {"diverged", "learning_rate_too_high"} & curve_types:
        return {
            "cause": "learning_rate_high",
            "suggested_learning_rate": min(recommended, rate / RATE_FACTOR),
            **known,
        }
    if "learning_rate_far_too_low" in curve_types:
        return {"cause": "learning_rate_low", "suggested_learning_rate": max(recommended, 10 * rate), **known}
    if not LOW_RATE_RATIO * recommended < rate < HIGH_RATE_RATIO * recommended:
        return {
            "cause": "learning_rate_high" if rate > recommended else "learning_rate_low",
            "suggested_learning_rate": recommended,
            **known,
        }
    if context.threshold is not None and figures["empty"]:
        return {"cause": "threshold", "threshold": context.threshold, **known}
    if figures["largest_share"] >= DOMINANT_SHARE:
        return {"cause": "imbalance", **known}
    return {"cause": "not_learning" if figures["subject"] == "text" else "not_learning_text", **known}


def _constant_finding(prediction: ConstantPrediction, value: str, subject: str, split: str) -> Finding:
    figures: dict[str, float | int | str] = {
        "subject": subject, "value": _truncate(value), "count": prediction.count, "n": prediction.n,
        "other_share": prediction.other_share,
        "largest_share": prediction.largest_share, "empty": int(prediction.value == ()), "split": split,
    }  # fmt: skip
    return Finding("constant_prediction", "bad", figures)


def _format_value(value: Any) -> str:
    """A predicted value in a sentence; no label as a dash."""
    return ", ".join(map(repr, value)) or "–" if isinstance(value, tuple) else repr(value)


def _truncate(text: str, max_characters: int = 60) -> str:
    return text if len(text) <= max_characters else text[: max_characters - 1] + "…"
