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
    constant_output,
    constant_prediction,
    never_predicted,
)
from pretune.registry import find
from pretune.report.diagnostics import ANNEALED, Finding, Rows, Status
from pretune.text.tokenizer import Tokenizer
from pretune.types import Record
from pretune.workflows.pretrain.samples import Sample

FEW_STEPS = 50
"""Below it a run has hardly begun to learn, whatever else is wrong."""
HIGH, LOW = 1.5, 0.2
"""Shares of the usual learning rate of a model beyond which its own is most likely the cause."""
FACTOR = 3.0
"""By which a learning rate is to be raised or lowered."""
RARE = 0.9
"""Share of one true value from which on the others are rare."""
NOTEWORTHY = 0.05
"""Share of the records in a class that is never predicted, from which on that is a fault of the model."""
SHOWN = 5
"""Classes that a sentence names."""


@dataclass(frozen=True)
class Origin:
    """How a model was trained, as far as the cause of a constant prediction depends on it."""

    usual_rate: float | None = None
    """The peak learning rate that suits the model, where that is known."""
    threshold: float | str | None = None
    """Of a task with several labels."""


@dataclass(frozen=True)
class Final:
    """A trained model's last predictions, as far as verdicts depend on them."""

    findings: tuple[Finding, ...]
    learnt: bool
    """Does it score above what needs no text: the most frequent answer, or a unigram model?"""
    origin: Origin


def of_predictions(
    task: str,
    predicted: Sequence[Any],
    true: Sequence[Any],
    records: Sequence[Record],
    scored_on: str = "",
) -> tuple[Finding, ...]:
    """What the predicted values of a task's records show, gravest first.

    ``scored_on``: ``test`` or ``validation``, where that is known.
    """
    found = []
    constant = constant_prediction(predicted, true)
    if constant is not None:
        found.append(_constant(constant, _shown(constant.value), "text", scored_on))
    kind = find("tasks", task)
    classes = [kind.classes(record) for record in records]
    absent = never_predicted(map(kind.labels_of, predicted), classes)
    if absent:
        names = ", ".join(f"{_cut(repr(c.label))} ({100 * c.share:.3g} %)" for c in absent[:SHOWN])
        status: Status = "bad" if absent[0].share >= NOTEWORTHY else "neutral"
        figures: dict[str, float | int | str] = {
            "count": len(absent), "classes": len(set(chain.from_iterable(classes))), "n": len(records),
            "label": absent[0].label, "support": absent[0].support, "share": absent[0].share,
            "names": names + (" ..." if len(absent) > SHOWN else ""), "scored_on": scored_on,
        }  # fmt: skip
        found.append(Finding("class_never_predicted", status, figures))
    return tuple(found)


def of_samples(samples: Sequence[Sample], tokenizer: Tokenizer) -> tuple[Finding, ...]:
    """What the samples of a language model show: one word for every gap, nothing, or one token repeated."""
    gaps = [s for s in samples if s.alternatives]
    filled = constant_prediction([s.output.strip() for s in gaps], [s.truth for s in gaps])
    if filled is not None and filled.count == filled.n:
        return (_constant(filled, repr(filled.value), "gap", ""),)
    outputs = [s.output for s in samples if not s.alternatives]
    written = constant_output([tokenizer.encode(output).ids.tolist() for output in outputs])
    if written is None:
        return ()
    shown = ", ".join(repr(tokenizer.decode([token])) for token in written.value[:SHOWN])
    return (_constant(written, shown, "repetition" if written.value else "empty", ""),)


def with_cause(
    findings: Iterable[Finding], curves: Sequence[Finding], rows: Rows, origin: Origin
) -> tuple[Finding, ...]:
    """The findings, a constant prediction with its most likely cause."""
    return tuple(
        replace(f, figures={**f.figures, **_cause(f.figures, curves, rows, origin)})
        if f.kind == "constant_prediction"
        else f
        for f in findings
    )


def _cause(
    figures: Mapping[str, Any], curves: Sequence[Finding], rows: Rows, origin: Origin
) -> dict[str, float | int | str]:
    rates = [float(row["learning_rate"]) for row in rows if row["kind"] == "step"]
    rate = max(rates, default=0.0)
    effective = sum(r >= ANNEALED * rate for r in rates) if rate else 0
    known: dict[str, float | int | str] = {"steps": len(rates), "effective": effective, "rate": rate}
    if effective < FEW_STEPS:
        return {"cause": "few_steps" if len(rates) < FEW_STEPS else "few_effective", **known}
    shown, usual = {finding.kind for finding in curves}, origin.usual_rate or rate
    if {"diverged", "rate_too_high"} & shown:
        return {"cause": "rate_high", "advised": min(usual, rate / FACTOR), **known}
    if "far_too_low" in shown:
        return {"cause": "rate_low", "advised": max(usual, 10 * rate), **known}
    if not LOW * usual < rate < HIGH * usual:
        return {"cause": "rate_high" if rate > usual else "rate_low", "advised": usual, **known}
    if origin.threshold is not None and figures["empty"]:
        return {"cause": "threshold", "threshold": origin.threshold, **known}
    if figures["largest"] >= RARE:
        return {"cause": "imbalance", **known}
    return {"cause": "unlearnt" if figures["of"] == "text" else "unlearnt_text", **known}


def _constant(found: ConstantPrediction, value: str, of: str, scored_on: str) -> Finding:
    figures: dict[str, float | int | str] = {
        "of": of, "value": _cut(value), "count": found.count, "n": found.n, "others": found.others,
        "largest": found.largest, "empty": int(found.value == ()), "scored_on": scored_on,
    }  # fmt: skip
    return Finding("constant_prediction", "bad", figures)


def _shown(value: Any) -> str:
    """A predicted value in a sentence; no label as a dash."""
    return ", ".join(map(repr, value)) or "–" if isinstance(value, tuple) else repr(value)


def _cut(text: str, longest: int = 60) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"
