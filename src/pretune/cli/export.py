"""``pretune export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pretune.cli.shared import Json, emit

NAME = "export"
HELP = """Write a model as a folder for other programs, and check that it says the same there.

The folder is loaded back by pretune, and by stock transformers where that is installed; the largest difference of
their logits on English and Chinese texts is printed. A difference beyond rounding is an error, and keeps nothing.

Example (the model is there after `pretune quickstart`):

\b
  pretune export runs/quickstart/causal --out exported/causal
"""


def run(
    model: Annotated[Path, typer.Argument(help="A run, a model folder, or a Hugging Face folder.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder to write; it must be new.")],
    format: Annotated[str, typer.Option(help="hugging-face, so far the only one.")] = "hugging-face",
    text: Annotated[list[str] | None, typer.Option(help="Compare on this text; may be repeated.")] = None,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite", help="Replace files of the same names in a folder that is there; others stay."
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Parse, export, print."""
    from pretune.runtime.progress import default_reporter
    from pretune.workflows import export as workflow

    summary = workflow.export(
        model, out=out, format=format, texts=tuple(text or ()), overwrite=overwrite,
        reporter=default_reporter(json),
    )  # fmt: skip
    compared = [
        f"  {reader:13} logits differ by {difference:.2g} at most, on {summary['texts']} texts"
        for reader, difference in summary["differences"].items()
    ]
    size = f"{summary['parameters']:,} parameters, {summary['bytes'] / 2**20:,.1f} MiB"
    emit(summary, json, [f"{out}: {summary['head']}, {size}", *compared])
