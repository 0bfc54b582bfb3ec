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
Language = Annotated[str | None, typer.Option("--language", help="Of the report: en or zh.")]
PrintConfig = Annotated[bool, typer.Option("--print-config", help="Print the resolved settings and stop.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Check settings and inputs, say what would be done, and stop.")
]


def gather(config: Path | None, options: Mapping[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """Settings of a YAML file, with options laid over them, and ``key=value`` over both."""
    from pretune.config import override, read

    values = read(config) if config else {}
    values |= {key: value for key, value in options.items() if value not in (None, (), [])}
    return override(values, assignments)


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
    typer.echo(json_line(summary) if as_json else "\n".join(lines))


def json_line(value: Any) -> str:
    """A value as JSON in the characters that stdout can write; where it lacks one, all as JSON's escapes."""
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return json.dumps(value)
    return text


def figure(score: Mapping[str, Any]) -> str:
    """``0.812 (0.790 to 0.834)``."""
    interval = score.get("interval")
    return f"{score['value']:.3f}" + (f" ({interval[0]:.3f} to {interval[1]:.3f})" if interval else "")
