"""What pages say first: whether a loss is normal, what beats what, what curves and predictions show."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from pretune.metrics.statistics import PairedDifference
from pretune.report import page as p
from pretune.report.diagnostics import FIRST_FINDINGS, Finding
from pretune.report.phrases import phrase, teacher_values
from pretune.report.sections import Status
from pretune.report.words import translations
from pretune.workflows.evaluate import Evaluation
from pretune.workflows.verdicts import describe_finding

Summary = Mapping[str, Any]

UNIGRAM_MARGIN = 0.3
"""Nats by which a masked model must be below a unigram model of the same text to have learnt something."""
FEW_LABELS = 1000
"""Training records below which a simple classifier is hard to beat."""
BIDIRECTIONAL_OBJECTIVES = ("masked_lm", "permutation_lm", "span_corruption", "denoising")
"""They see both neighbours of what they predict."""


def loss_finding(language: str, name: str, summary: Summary, *, with_advice: bool = True) -> p.VerdictItem:
    """Is this loss normal? Against the n-gram models of the same text.

    ``with_advice``: say what to do about it, where the curves do not know better.
    """
    loss, unigram, bigram = summary["loss"], summary["unigram_loss"], summary["bigram_loss"]
    if str(summary["objective"]).split("+")[0] in BIDIRECTIONAL_OBJECTIVES:  # the bigram is no measure of it
        key = "beats_unigram" if loss < unigram - UNIGRAM_MARGIN else "beats_nothing"
        status = "good" if key == "beats_unigram" else "bad"
    else:
        key = "beats_bigram" if loss < bigram else "beats_unigram" if loss < unigram else "beats_nothing"
        status = "good" if key == "beats_bigram" else "bad"
    figures = {k: f"{v:.2f}" for k, v in (("loss", loss), ("unigram", unigram), ("bigram", bigram))}
    advice = phrase(language, "train_longer") if with_advice and key == "beats_nothing" else ""
    return p.VerdictItem(cast(Status, status), phrase(language, key, name=name, **figures) + advice)


def start_from_finding(language: str, summary: Summary) -> Iterator[p.VerdictItem]:
    """What continued pretraining gave, against the model that it started from."""
    if "initial_scores" not in summary:
        return
    start, loss, before = Path(summary["start_from"]).name, summary["loss"], summary["initial_scores"]["loss"]
    if summary["new_heads"]:
        yield p.VerdictItem("neutral", phrase(language, "started_with_new_head", start=start))
        return
    key, status = ("went_down", "good") if loss < before else ("did_not_go_down", "bad")
    figures = {"loss": f"{loss:.3f}", "before": f"{before:.3f}"}
    advice = phrase(language, "lower_rate") if status == "bad" and should_advise(summary) else ""
    yield p.VerdictItem(cast(Status, status), phrase(language, key, start=start, **figures) + advice)


def should_advise(summary: Summary) -> bool:
    """Whether no verdict on curves and predictions names a cause, against which other advice would stand."""
    return not any(row["status"] == "bad" for row in summary.get("verdicts", ()))


def teacher_finding(language: str, summary: Summary) -> Iterator[p.VerdictItem]:
    """Whom a distilled model learnt from."""
    if "teacher" in summary:
        yield p.VerdictItem("neutral", phrase(language, "taught", **teacher_values(summary["teacher"])))


def curve_findings(summary: Summary) -> tuple[p.VerdictItem, ...]:
    """What the run's curves say, as its summary holds it."""
    return tuple(p.VerdictItem(row["status"], row["text"]) for row in summary.get("verdicts", ()))


def severe_findings(summary: Summary) -> tuple[p.VerdictItem, ...]:
    """Those of them that stand above all else: what makes a model useless, with its cause."""
    rows = [
        row for row in summary.get("verdicts", ()) if row["status"] == "bad" and row["type"] in FIRST_FINDINGS
    ]
    return tuple(p.VerdictItem(row["status"], row["text"]) for row in rows)


def severe_findings_of_run(
    language: str, name: str, rows: Iterable[Mapping[str, Any]]
) -> Iterator[p.VerdictItem]:
    """What makes a model useless, of the verdicts in a run's summary, said anew in ``language``."""
    for row in rows:
        if row["status"] == "bad" and row["type"] in FIRST_FINDINGS:
            finding = Finding(row["type"], row["status"], row["evidence"])
            yield p.VerdictItem(finding.status, f"{name}: {describe_finding(language, finding)}")


def sort_by_severity(items: Iterable[p.VerdictItem]) -> tuple[p.VerdictItem, ...]:
    """What is bad before all else; otherwise in their order."""
    return tuple(sorted(items, key=lambda item: item.status != "bad"))


def comparison_finding(
    language: str, keys: tuple[str, str, str], difference: PairedDifference, name: str, **values: object
) -> p.VerdictItem:
    """A paired difference in words: ``keys`` are the phrases for above, below and cannot be told."""
    low, high = difference.interval
    above, below, level = keys
    key, status = (above, "good") if low > 0 else (below, "bad") if high < 0 else (level, "neutral")
    gap = f"{100 * difference.mean:+.1f}" if key == level else f"{100 * abs(difference.mean):.1f}"
    figures = {"difference": gap, "low": _format_points(low), "high": _format_points(high)}
    text = phrase(language, key, name=name, n=difference.n, **figures, **values)
    return p.VerdictItem(cast(Status, status), text)


def metric_name(language: str, metric: str) -> str:
    """What a metric is called on a page; its own name where there is no word for it."""
    return translations(language).get(metric, metric)


def baseline_finding(
    language: str,
    name: str,
    difference: PairedDifference,
    value: float,
    baseline: str,
    baseline_value: float,
    *,
    metric: str,
    num_train: int,
    with_advice: bool = True,
) -> p.VerdictItem:
    """Whether a model, of so many training records, beats a baseline on the same texts.

    ``with_advice``: say what to do about it, where no graver fault stands above.
    """
    keys = ("beats_baseline", "below_baseline", "level_with_baseline")
    item = comparison_finding(
        language, keys, difference, name,
        value=f"{value:.3f}", baseline=baseline, other=f"{baseline_value:.3f}",
        metric=metric,
    )  # fmt: skip
    if item.status != "bad" or not with_advice:
        return item
    key = "few_labels" if num_train < FEW_LABELS else "many_labels"
    return replace(item, text=item.text + phrase(language, key, train=f"{num_train:,}"))


def overlap_finding(language: str, overlap: int, num_checked: int, n: int) -> p.VerdictItem:
    """Whether the model has read its test texts before, of those long enough to be judged."""
    key, status = ("overlap", "bad") if overlap else ("no_overlap", "good" if num_checked == n else "neutral")
    return p.VerdictItem(cast(Status, status), phrase(language, key, count=overlap, judged=num_checked, n=n))


def baseline_findings(
    language: str, evaluation: Evaluation, summary: Mapping[str, Any]
) -> list[p.VerdictItem]:
    """Whether the model beats each baseline, by its deciding metric: a paired bootstrap over the records."""
    ours = evaluation.scores[0].value
    severe = {row["type"] for row in summary["verdicts"] if row["status"] == "bad"}
    found = []
    for name, (baseline, scores) in evaluation.baselines.items():
        if name == "majority" and "constant_prediction" in severe:
            continue  # it says the same, and would name no cause
        difference = evaluation.compare(baseline.predictions)
        found.append(
            baseline_finding(
                language, translations(language)["ours"], difference, ours, baseline.word(language),
                scores[0].value, metric=evaluation.metric.word(language),
                num_train=summary["num_train"], with_advice=not severe & set(FIRST_FINDINGS),
            )
        )  # fmt: skip
    return found


def _format_points(value: float) -> str:
    return f"{100 * value:+.1f}"
