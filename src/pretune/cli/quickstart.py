"""``pretune quickstart``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from pretune.cli.shared import Json, emit

NAME = "quickstart"
HELP = """From raw text to a tested model in five minutes, on text that pretune ships (English and Chinese).

Pretrains a small BERT and a small Llama, fine-tunes a classifier for each language from the pretrained
and from a random BERT, compares all with baselines, and writes a report. Nothing is downloaded.

Example:

\b
  pretune quickstart
"""


def run(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the run.")] = Path("runs/quickstart"),
    minutes: Annotated[float, typer.Option(min=0.1, help="Time for all of it.")] = 5.0,
    json: Json = False,
) -> None:
    """Run it and print what came out."""
    started = time.monotonic()
    from pretune.workflows.quickstart import quickstart as workflow

    result = workflow.quickstart(out=out, minutes=minutes, start_time=started, quiet=json)
    emit(result.summary, json, workflow.summary_lines(result))
