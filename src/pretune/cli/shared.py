"""What the verbs share: how settings are gathered from a file, options and ``key=value``, and printed."""

from __future__ import annotations

import json
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
Language = Annotated[str | None, typer.Option("--language", help="Of the report: en or zh.")]
Encoding = Annotated[
    str | None,
    typer.Option(help="Of files that are not UTF-8: cp1252, gb18030 ...; default: it is recognised."),
]
TextColumn = Annotated[str | None, typer.Option(help="The column of the text, if it is not called text.")]
TextPairColumn = Annotated[str | None, typer.Option(help="Of the second text of a pair: text_pair.")]
LabelColumn = Annotated[str | None, typer.Option(help="Of the label: label.")]
LabelsColumn = Annotated[str | None, typer.Option(help="Of several labels a text: labels.")]
SourceColumn = Annotated[str | None, typer.Option(help="Of the source of sequence_to_sequence: source.")]
TargetColumn = Annotated[str | None, typer.Option(help="Of the target of sequence_to_sequence: target.")]
PrintConfig = Annotated[bool, typer.Option("--print-config", help="Print the resolved settings and stop.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Check settings and inputs, say what would be done, and stop.")
]


def gather(config: Path | None, options: Mapping[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """Settings of a YAML file, with options laid over them, and ``key=value`` over both."""
    from pretune.config import override, read

    values = read(config) if config else {}
    for key, value in options.items():
        if value in (None, (), [], {}):
            continue
        beside = values.get(key)
        values[key] = {**beside, **value} if isinstance(beside, dict) and isinstance(value, dict) else value
    return override(values, assignments)


def columns(**named: str | None) -> dict[str, str]:
    """Field to column, of the options that were given."""
    return {field: column for field, column in named.items() if column is not None}


def split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Positional words as (paths, key=value assignments); an existing path is a path whatever its name."""
    paths = [word for word in words if "=" not in word or Path(word).exists()]
    return paths, [word for word in words if word not in paths]


def names_of(room: str) -> Callable[[str], list[str]]:
    """What the shell completes to: the names in a room (families, say) that begin as typed."""

    def complete(incomplete: str) -> list[str]:
        from pretune.registry import names

        return [name for name in names(room) if name.startswith(incomplete)]

    return complete


def typed(words: Sequence[str] | None) -> list[str]:
    """Texts from the command line; bytes that are no UTF-8 become question marks."""
    return [word.encode("utf-8", "replace").decode() for word in words or ()]


def emit(summary: Mapping[str, Any], as_json: bool, lines: Sequence[str]) -> None:
    """The outcome on stdout: one JSON object, or lines for a person."""
    typer.echo(json.dumps(summary, ensure_ascii=False) if as_json else "\n".join(lines))


def closing_lines(summary: Mapping[str, Any], command: str) -> list[str]:
    """What to do next, of a run: ``command``, or, where it came with warnings, these and nothing else."""
    warnings = [f"warning: {warning['text']}" for warning in summary.get("warnings", ())]
    return warnings or [f"next:   pretune {command}"]


def figure(score: Mapping[str, Any]) -> str:
    """``0.812 (0.790 to 0.834)``."""
    interval = score.get("interval")
    return f"{score['value']:.3f}" + (f" ({interval[0]:.3f} to {interval[1]:.3f})" if interval else "")
