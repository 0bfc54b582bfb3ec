"""What the verbs share: how settings are gathered from a file, options and ``key=value``, and printed."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

Config = Annotated[Path | None, typer.Option("--config", "-c", help="A YAML file of settings.")]
Out = Annotated[
    Path | None, typer.Option("--out", "-o", help="Folder of the run; default runs/<verb>-<hash>.")
]
Changes = Annotated[
    Path | None,
    typer.Option("--changes", help="plan.json of a run: repeat its steps and changes in mid-run."),
]
Json = Annotated[
    bool, typer.Option("--json", help="One JSON object on stdout; nothing on stderr but errors.")
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace the file --out where it is there already.")
]
Language = Annotated[str | None, typer.Option("--language", help="Of the report: en or zh.")]
Encoding = Annotated[
    str | None,
    typer.Option(help="Of files that are not UTF-8: cp1252, gb18030 ...; default: it is recognised."),
]
TextColumn = Annotated[str | None, typer.Option(help="The column of the text, if it is not called text.")]
TextPairColumn = Annotated[str | None, typer.Option(help="Of the second text of a pair: text_pair.")]
LabelColumn = Annotated[str | None, typer.Option(help="Of the label: label.")]
LabelsColumn = Annotated[str | None, typer.Option(help="Of several labels a text: labels.")]
IdColumn = Annotated[str | None, typer.Option(help="Of the id: id.")]
TokensColumn = Annotated[str | None, typer.Option(help="Of the words that are tagged: tokens.")]
TagsColumn = Annotated[str | None, typer.Option(help="Of their tags: tags.")]
QuestionColumn = Annotated[str | None, typer.Option(help="Of the question: question.")]
ContextColumn = Annotated[str | None, typer.Option(help="Of the text that answers it: context.")]
AnswersColumn = Annotated[str | None, typer.Option(help="Of the true answers: answers.")]
SourceColumn = Annotated[str | None, typer.Option(help="Of the source of sequence_to_sequence: source.")]
TargetColumn = Annotated[str | None, typer.Option(help="Of the target of sequence_to_sequence: target.")]
PrintConfig = Annotated[bool, typer.Option("--print-config", help="Print the resolved settings and stop.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Check settings and inputs, say what would be done, and stop.")
]


def merge_settings(
    config: Path | None, options: Mapping[str, Any], assignments: Sequence[str]
) -> dict[str, Any]:
    """Settings of a YAML file, with options laid over them, and ``key=value`` over both."""
    from pretune.config import apply_overrides, read_yaml

    values = read_yaml(config) if config else {}
    for key, value in options.items():
        if value in (None, (), [], {}):
            continue
        existing = values.get(key)
        values[key] = (
            {**existing, **value} if isinstance(existing, dict) and isinstance(value, dict) else value
        )
    return apply_overrides(values, assignments)


def column_map(**options: str | None) -> dict[str, str]:
    """Field to column, of the options that were given."""
    return {field: column for field, column in options.items() if column is not None}


def split_arguments(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Positional words as (paths, key=value assignments); an existing path is a path whatever its name."""
    paths = [word for word in words if "=" not in word or Path(word).exists()]
    return paths, [word for word in words if word not in paths]


def complete_names(package: str) -> Callable[[str], list[str]]:
    """What the shell completes to: the names in a room (families, say) that begin as typed."""

    def complete(incomplete: str) -> list[str]:
        from pretune.registry import list_names

        return [name for name in list_names(package) if name.startswith(incomplete)]

    return complete


def sanitize_texts(texts: Sequence[str] | None) -> list[str]:
    """Texts from the command line; bytes that are no UTF-8 become question marks."""
    return [word.encode("utf-8", "replace").decode() for word in texts or ()]


def emit(summary: Mapping[str, Any], as_json: bool, lines: Sequence[str]) -> None:
    """The outcome on stdout: one JSON object, or lines for a person."""
    typer.echo(json_line(summary) if as_json else "\n".join(lines))


def json_line(value: Any) -> str:
    """A value as JSON in the characters that stdout can write; where it lacks one, all as JSON's escapes."""
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return json.dumps(value)
    return text


def closing_lines(summary: Mapping[str, Any], command: str) -> list[str]:
    """What to do next, of a run: ``command``, or, where it came with warnings, these and nothing else."""
    warnings = [f"warning: {warning['text']}" for warning in summary.get("warnings", ())]
    return warnings or [f"next:   pretune {command}"]


def severe_lines(verdicts: Sequence[Mapping[str, Any]]) -> list[str]:
    """What is wrong, to be said before any score."""
    return [f"! {verdict['text']}" for verdict in verdicts if verdict["status"] == "bad"]


MAX_CLASSES_SHOWN, MAX_LABEL_WIDTH = 5, 24
"""Classes that a table shows, and characters of a label."""


def class_lines(summary: Mapping[str, Any]) -> list[str]:
    """The classes of the lowest F1, and what is most often taken for what; nothing without classes."""
    rows = {label: row for label, row in summary.get("by_class", {}).items() if row["support"]}
    worst = sorted(rows, key=lambda label: (rows[label]["f1"], -rows[label]["support"]))[:MAX_CLASSES_SHOWN]
    if not worst:
        return []
    width = max(len(short_label(label)) for label in worst)
    of = f" ({len(worst)} of {len(rows)})" if len(worst) < len(rows) else ""
    lines = [f"classes, the lowest F1 first{of}:"]
    for label in worst:
        row = rows[label]
        figures = ", ".join(f"{name} {row[key]:.3f}" for name, key in CLASS_METRICS)
        lines.append(f"  {short_label(label):{width}}  {figures}, {row['support']:,} records")
    return lines + _confusion_lines(summary.get("confusion_matrix"))


CLASS_METRICS = (("precision", "precision"), ("recall", "recall"), ("F1", "f1"))


def _confusion_lines(matrix: Mapping[str, Any] | None) -> list[str]:
    """What is most often taken for what, of one label a record."""
    if matrix is None or not isinstance(matrix["counts"][0][0], int):  # several labels: 2 x 2 each
        return []
    labels = matrix["labels"]
    wrong = [
        (count, labels[i], labels[k])
        for i, row in enumerate(matrix["counts"])
        for k, count in enumerate(row)
        if i != k and count
    ]
    wrong.sort(key=lambda found: -found[0])
    phrases = [
        f"{short_label(true)} taken for {short_label(other)} {n:,} times" for n, true, other in wrong[:3]
    ]
    return ["  " + ", ".join(phrases)] if phrases else []


def short_label(label: str) -> str:
    """A label on one line of bounded length, without what a terminal would act on."""
    line = " ".join("".join(c if c.isprintable() else " " for c in label).split())
    return line if len(line) <= MAX_LABEL_WIDTH else line[: MAX_LABEL_WIDTH - 1] + "…"


def format_score(score: Mapping[str, Any]) -> str:
    """``0.812 (0.790 to 0.834)``."""
    interval = score.get("interval")
    return f"{score['value']:.3f}" + (f" ({interval[0]:.3f} to {interval[1]:.3f})" if interval else "")
