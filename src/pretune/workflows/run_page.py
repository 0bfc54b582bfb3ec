"""The page of each kind of run: which findings, curves, scores and samples it shows, in which order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, cast

import yaml

from pretune.config import Settings
from pretune.evaluation.mistakes import Mistake
from pretune.objectives import parse_objective
from pretune.report import mixture
from pretune.report import page as p
from pretune.report.phrases import phrase
from pretune.report.words import translations
from pretune.workflows.evaluate import Evaluation
from pretune.workflows.findings import (
    baseline_finding,
    comparison_finding,
    curve_findings,
    loss_finding,
    overlap_finding,
    severe_findings,
    severe_findings_of_run,
    should_advise,
    sort_by_severity,
    start_from_finding,
    teacher_finding,
)
from pretune.workflows.pretrain.samples import Sample
from pretune.workflows.quickstart.comparison import ClassifierComparison

Language = Literal["en", "zh"]
Summary = Mapping[str, Any]
Rows = Sequence[Mapping[str, Any]]
SMALL_MODEL_PARAMETERS = 20_000_000
"""Parameters below which a model writes grammar before sense."""


def check_language(language: str) -> Language:
    """The language, if pages can be written in it.

    Raises:
        ConfigError: they cannot.
    """
    translations(language)
    return cast(Language, language)


def write_pretraining_page(
    path: Path,
    settings: Settings,
    summary: Summary,
    rows: Rows,
    samples: Sequence[Sample],
    environment: Summary,
    *,
    language: str,
) -> Path:
    """The page of a pretraining run."""
    text = translations(language)
    name = str(summary["family"])
    sections = (
        p.Verdict(
            text["verdict"],
            sort_by_severity(
                (
                    *severe_findings(summary),
                    *start_from_finding(language, summary),
                    *teacher_finding(language, summary),
                    *(
                        loss_finding(language, *of, with_advice=should_advise(summary))
                        for of in mixture.component_summaries(summary).items()
                    ),
                    *(item for item in curve_findings(summary) if item not in severe_findings(summary)),
                )
            ),
        ),
        loss_curve(language, {name: rows}, summary, text["is_loss_normal"]),
        *mixture.components_table(language, summary),
        sample_section(language, samples, summary["parameters"]),
        p.Facts(text["settings"], _flatten_settings(settings)),
        *_environment_sections(language, environment),
    )
    subtitle = phrase(
        language, "pretraining_subtitle",
        parameters=f"{summary['parameters']:,}", tokens=f"{summary['tokens']:,}",
        time=_format_duration(summary["seconds"], language), objective=mixture.objective_names(summary),
    )  # fmt: skip
    title = phrase(language, "pretraining_title", family=name)
    return p.write(
        p.Page(title, subtitle, check_language(language), sections, _footer(language, environment)), path
    )


def write_finetuning_page(
    path: Path,
    settings: Settings,
    summary: Summary,
    rows: Rows,
    evaluation: Evaluation,
    findings: Sequence[p.VerdictItem],
    environment: Summary,
    *,
    language: str,
) -> Path:
    """The page of a fine-tuning run."""
    text = translations(language)
    words = {metric.name: metric.word(language) for metric in evaluation.metrics}
    severe = severe_findings(summary)
    items = [*severe, *findings, *teacher_finding(language, summary)]
    if summary["split"] == "validation":
        items.append(p.VerdictItem("neutral", phrase(language, "scored_on_validation")))
    if evaluation.overlap is not None:
        items.append(
            overlap_finding(
                language, evaluation.overlap, evaluation.num_overlap_checked, len(evaluation.records)
            )
        )
    items += [item for item in curve_findings(summary) if item not in severe]
    steps = [row for row in rows if row["type"] == "step"]
    checks = [row for row in rows if row["type"] == "evaluation"]
    sections = (
        p.Verdict(text["verdict"], sort_by_severity(items)),
        p.Scores(f"{text['scores']}: {text[summary['split']]}", _score_rows(language, evaluation),
                 evaluation.metric.word(language),
                 phrase(language, "scores_note_one", n=len(evaluation.records))),
        mistake_section(language, evaluation.mistakes),
        p.Curve(text["loss"], (_mean_series(text["training"], steps),), (), text["steps"], "nats"),
        p.Table(text["validation_scores"], (text["steps"], *(words.get(n, n) for n in checks[0]["scores"])),
                tuple((f"{c['step']:,}", *(f"{v:.3f}" for v in c["scores"].values())) for c in checks)),
        p.Table(text["by_length"].format(metric=evaluation.metric.word(language)),
                (text["length"], "n", text["value"]),
                _slice_rows(evaluation)),
        p.Facts(text["settings"],
                (*_flatten_settings(settings), (text["signature"], evaluation.scores[0].signature))),
        *_environment_sections(language, environment),
    )  # fmt: skip
    subtitle = phrase(
        language, "finetuning_subtitle" if summary["labels"] else "finetuning_subtitle_without_labels",
        n=f"{summary['num_train']:,}", labels=len(summary["labels"]),
        time=_format_duration(summary["seconds"], language),
    )  # fmt: skip
    title = evaluation.task.phrases[language].title
    return p.write(
        p.Page(title, subtitle, check_language(language), sections, _footer(language, environment)), path
    )


def write_quickstart_page(
    path: Path,
    summary: Summary,
    runs: Mapping[str, Summary],
    logs: Mapping[str, Rows],
    classification: Mapping[str, ClassifierComparison],
    samples: Mapping[str, Sequence[Sample]],
    environment: Summary,
    *,
    language: str,
) -> Path:
    """The page of the quickstart: two pretrained models, a classifier a language, what they write."""
    text = translations(language)
    names = {"en": text["english"], "zh": text["chinese"]}
    sections: list[p.Section] = [
        p.Verdict(text["verdict"], _quickstart_findings(language, runs, classification, names))
    ]
    for name, run in runs.items():
        heading = f"{text['is_loss_normal']} {run['family']} ({name})"
        sections.append(loss_curve(language, {str(run["family"]): logs[name]}, run, heading))
    for key, found in classification.items():
        note = phrase(
            language,
            "scores_note_seeds",
            seeds=len(found.accuracies["random"]),
            n=found.test,
            train=found.train,
        )
        note = f"{note} {phrase(language, 'intervals_note')}"
        heading = f"{text['scores']}: {names[key]}"
        sections.append(p.Scores(heading, _classifier_rows(language, found), text["accuracy"], note))
    for name, found_samples in samples.items():
        section = sample_section(language, found_samples, runs[name]["parameters"])
        sections.append(replace(section, heading=f"{section.heading}: {runs[name]['family']}"))
    for key, found in classification.items():
        sections.append(mistake_section(language, found.mistakes, f"{text['mistakes']}: {names[key]}"))
    sections.append(
        p.Text(
            phrase(language, "next_heading"),
            tuple(phrase(language, "next_steps", **NEXT_COMMANDS).splitlines()),
        )
    )
    subtitle = phrase(language, "quickstart_subtitle", time=_format_duration(summary["seconds"], language))
    page = p.Page(
        phrase(language, "quickstart_title"), subtitle, check_language(language),
        (*sections, *_environment_sections(language, environment)), _footer(language, environment),
    )  # fmt: skip
    return p.write(page, path)


NEXT_COMMANDS = {
    "pretrain": "pretune pretrain YOUR_FOLDER --budget 30min",
    "finetune": "pretune finetune RUN --train train.jsonl --test test.jsonl",
    "predict": 'pretune predict RUN --text "..."',
}


START_LABELS = {"random": "random_init", "pretrained": "pretrained"}
"""What a classifier starts from, as pages call it."""


def _quickstart_findings(
    language: str,
    runs: Mapping[str, Summary],
    classification: Mapping[str, ClassifierComparison],
    names: Mapping[str, str],
) -> tuple[p.VerdictItem, ...]:
    items: list[p.VerdictItem] = []
    for name, run in runs.items():
        items += severe_findings_of_run(language, f"{run['family']} ({name})", run["verdicts"])
    for key, found in classification.items():
        for start, rows in found.accuracies.items():
            verdict_rows = next((row["verdicts"] for row in rows if row["verdicts"]), ())
            items += severe_findings_of_run(
                language, f"{names[key]}, {translations(language)[START_LABELS[start]]}", verdict_rows
            )
    for name, run in runs.items():
        items.append(loss_finding(language, f"{run['family']} ({name})", run, with_advice=should_advise(run)))
    keys = ("pretraining_helped", "pretraining_hurt", "pretraining_unclear")
    for key, found in classification.items():
        means = {start: f"{found.mean_accuracy(start):.3f}" for start in found.accuracies}
        items.append(comparison_finding(language, keys, found.difference, names[key], **means))
        score = found.baseline_scores["tfidf"].value
        value = found.mean_accuracy("pretrained")
        items.append(
            baseline_finding(
                language,
                names[key],
                found.baseline_differences["tfidf"],
                value,
                translations(language)["tfidf"],
                score,
                metric=translations(language)["accuracy"],
                num_train=found.train,
            )
        )
    return sort_by_severity(items)


def _classifier_rows(language: str, comparison: ClassifierComparison) -> tuple[p.ScoreRow, ...]:
    text = translations(language)
    rows = []
    for name, score in comparison.baseline_scores.items():
        low, high = score.interval or (None, None)
        rows.append(p.ScoreRow(text[name], score.value, low, high, "baseline"))
    for name, key in START_LABELS.items():
        points = tuple(row["accuracy"] for row in comparison.accuracies[name])
        role: Literal["ours", "reference"] = "ours" if name == "pretrained" else "reference"
        low, high = comparison.intervals[name]
        rows.append(
            p.ScoreRow(text[key], comparison.mean_accuracy(name), low, high, role, seed_values=points)
        )
    return tuple(rows)


# -- sections ---------------------------------------------------------------------------------------


def loss_curve(language: str, runs: Mapping[str, Rows], summary: Summary, heading: str) -> p.Curve:
    """Held-out (solid) and training loss of runs over tokens, with the n-gram baselines as lines."""
    text = translations(language)
    series: list[p.Series] = []
    for name, rows in runs.items():
        steps = [row for row in rows if row["type"] == "step"]
        tokens = {row["step"]: row["tokens"] for row in rows if row["type"] in ("step", "skipped")}
        checks = [row for row in rows if row["type"] == "evaluation"]
        xs = tuple(float(tokens[c["step"]]) for c in checks)
        series += mixture.held_out_series(f"{name}, {text['validation']}", xs, checks)
        series.append(_mean_series(f"{name}, {text['training']}", steps, dashed=True, x="tokens"))
    levels = mixture.reference_losses(language, summary)
    hidden = parse_objective(str(summary["objective"])).evaluates_hidden_only
    note = phrase(language, "curve_note") + (phrase(language, "curve_note_hidden") if hidden else "")
    return p.Curve(heading, tuple(series), levels, text["tokens"], text["nats_per_token"], note)


def sample_section(language: str, samples: Sequence[Sample], parameters: int) -> p.Samples:
    """Filled masks and continued sentences, of a model of so many parameters."""
    note = phrase(language, "samples_note")
    note += phrase(language, "samples_note_small") if parameters < SMALL_MODEL_PARAMETERS else ""
    rows = tuple(
        p.SampleRow(
            s.prompt,
            s.output,
            phrase(language, s.reference_phrase, word=s.reference) if s.reference else "",
            s.alternatives,
            s.suffix,
        )
        for s in samples
    )
    return p.Samples(translations(language)["samples"], rows, note)


def mistake_section(language: str, mistakes: Sequence[Mistake], heading: str | None = None) -> p.Mistakes:
    """The most confident mistakes."""
    rows = tuple(p.MistakeRow(m.text, str(m.predicted), str(m.reference), m.confidence) for m in mistakes)
    return p.Mistakes(heading or translations(language)["mistakes"], rows, phrase(language, "mistakes_note"))


def _score_rows(language: str, evaluation: Evaluation) -> tuple[p.ScoreRow, ...]:
    text = translations(language)
    rows = []
    for baseline, scores in evaluation.baselines.values():
        low, high = scores[0].interval or (None, None)
        rows.append(p.ScoreRow(baseline.word(language), scores[0].value, low, high, "baseline"))
    score = evaluation.scores[0]
    low, high = score.interval or (None, None)
    rows.append(p.ScoreRow(text["ours"], score.value, low, high, "ours"))
    return tuple(rows)


def _slice_rows(evaluation: Evaluation) -> tuple[tuple[str, ...], ...]:
    return tuple((f"{s.shortest}-{s.longest}", str(s.n), f"{s.value:.3f}") for s in evaluation.slices)


def _environment_sections(language: str, environment: Summary) -> tuple[p.Section, ...]:
    text = translations(language)
    facts = tuple((k, str(v)) for k, v in environment.items() if k not in ("packages", "command"))
    packages = tuple((k, str(v)) for k, v in environment["packages"].items())
    return (
        p.Facts(text["environment"], facts + packages),
        p.Command(text["repeat"], str(environment["command"])),
    )


def _footer(language: str, environment: Summary) -> tuple[tuple[str, str], ...]:
    text = translations(language)
    return ((text["made_by"], environment["packages"]["pretune"]), (text["date"], environment["time"]))


def _mean_series(
    name: str, steps: Rows, *, dashed: bool = False, x: str = "step", max_points: int = 200
) -> p.Series:
    """The training loss as means over equal stretches, so that it can be read."""
    size = max(1, len(steps) // max_points)
    stretches = [steps[i : i + size] for i in range(0, len(steps), size)]
    mean: Callable[[Rows, str], float] = lambda rows, key: sum(r[key] for r in rows) / len(rows)  # noqa: E731
    return p.Series(
        name, tuple(mean(s, x) for s in stretches), tuple(mean(s, "loss") for s in stretches), dashed=dashed
    )


def _flatten_settings(settings: Settings) -> tuple[tuple[str, str], ...]:
    pairs: list[tuple[str, str]] = []

    def walk(value: Any, name: str) -> None:
        if isinstance(value, dict) and value:
            for key, item in value.items():
                walk(item, f"{name}.{key}" if name else key)
        elif value not in (None, {}, [], ()):
            shown = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True)
            pairs.append((name, shown.split("\n...")[0].strip()))

    walk(settings.model_dump(mode="json"), "")
    return tuple(pairs)


def _format_duration(seconds: float, language: str) -> str:
    if seconds >= 60:
        return phrase(language, "minutes", n=f"{seconds / 60:.1f}")
    return phrase(language, "seconds", n=f"{seconds:.0f}")
