"""What the page of a pretraining run shows of the parts of a mixture; without one, of the run as a whole."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pretune.report import page as p
from pretune.report.phrases import say
from pretune.report.words import words

Summary = Mapping[str, Any]


def summaries(summary: Summary) -> dict[str, Summary]:
    """What is to be judged: each part by its family and name, or the run by its family."""
    family = str(summary["family"])
    parts = summary.get("mixture", {})
    return {f"{family}, {name}": {**summary, **part} for name, part in parts.items()} or {family: summary}


def objectives(summary: Summary) -> str:
    """What the model was trained by: the objective, or those of the parts."""
    parts = summary.get("mixture", {}).values()
    return ", ".join(dict.fromkeys(str(part["objective"]) for part in parts)) or str(summary["objective"])


def held_out_losses(
    title: str, xs: tuple[float, ...], checks: Sequence[Mapping[str, Any]]
) -> Iterator[p.Series]:
    """The curve of the held-out loss, or of that of each part."""
    names = [name for name in (checks[0]["scores"] if checks else ()) if name.partition("/")[0] == "loss"]
    for name in names:
        _, of_part, part = name.partition("/")
        whose = f"{title}, {part}" if of_part else title
        yield p.Series(whose, xs, tuple(check["scores"][name] for check in checks))


def levels(language: str, summary: Summary) -> tuple[tuple[str, float], ...]:
    """The losses of the n-gram models, or of those of each part."""
    text, parts = words(language), summary.get("mixture", {})
    if not parts:
        return ((text["unigram"], summary["unigram"]), (text["bigram"], summary["bigram"]))
    return tuple(
        (f"{text[kind]}, {name}", part[kind])
        for name, part in parts.items()
        for kind in ("unigram", "bigram")
    )


def parts_table(language: str, summary: Summary) -> tuple[p.Table, ...]:
    """Each part of a mixture with its share, its text and its losses."""
    text, parts = words(language), summary.get("mixture", {})
    if not parts:
        return ()
    heads = (*say(language, "mixture_columns").split("|"), text["loss"], text["unigram"], text["bigram"])
    rows = tuple(
        (
            name, f"{100 * part['share']:.3g} %", ", ".join(Path(source).name for source in part["corpus"]),
            *(f"{part[key]:.3f}" for key in ("loss", "unigram", "bigram")),
        )
        for name, part in parts.items()
    )  # fmt: skip
    return (p.Table(say(language, "mixture_heading"), heads, rows, say(language, "mixture_note")),)
