"""What the page of a pretraining run shows of the parts of a mixture; without one, of the run as a whole."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pretune.report import page as p
from pretune.report.phrases import phrase
from pretune.report.words import translations

Summary = Mapping[str, Any]


def component_summaries(summary: Summary) -> dict[str, Summary]:
    """What is to be judged: each part by its family and name, or the run by its family."""
    family = str(summary["family"])
    components = summary.get("mixture", {})
    return {f"{family}, {name}": {**summary, **component} for name, component in components.items()} or {
        family: summary
    }


def objective_names(summary: Summary) -> str:
    """What the model was trained by: the objective, or those of the parts."""
    components = summary.get("mixture", {}).values()
    return ", ".join(dict.fromkeys(str(component["objective"]) for component in components)) or str(
        summary["objective"]
    )


def held_out_series(
    title: str, xs: tuple[float, ...], evaluations: Sequence[Mapping[str, Any]]
) -> Iterator[p.Series]:
    """The curve of the held-out loss, or of that of each part."""
    names = [
        name for name in (evaluations[0]["scores"] if evaluations else ()) if name.partition("/")[0] == "loss"
    ]
    for name in names:
        _, separator, component = name.partition("/")
        whose = f"{title}, {component}" if separator else title
        yield p.Series(whose, xs, tuple(check["scores"][name] for check in evaluations))


def reference_losses(language: str, summary: Summary) -> tuple[tuple[str, float], ...]:
    """The losses of the n-gram models, or of those of each part."""
    text, components = translations(language), summary.get("mixture", {})
    if not components:
        return ((text["unigram"], summary["unigram_loss"]), (text["bigram"], summary["bigram_loss"]))
    return tuple(
        (f"{text[model_name]}, {name}", component[f"{model_name}_loss"])
        for name, component in components.items()
        for model_name in ("unigram", "bigram")
    )


def components_table(language: str, summary: Summary) -> tuple[p.Table, ...]:
    """Each part of a mixture with its share, its text and its losses."""
    text, components = translations(language), summary.get("mixture", {})
    if not components:
        return ()
    heads = (*phrase(language, "mixture_columns").split("|"), text["loss"], text["unigram"], text["bigram"])
    rows = tuple(
        (
            name, f"{100 * component['share']:.3g} %",
            ", ".join(Path(source).name for source in component["corpus"]),
            *(f"{component[key]:.3f}" for key in ("loss", "unigram_loss", "bigram_loss")),
        )
        for name, component in components.items()
    )  # fmt: skip
    return (p.Table(phrase(language, "mixture_heading"), heads, rows, phrase(language, "mixture_note")),)
