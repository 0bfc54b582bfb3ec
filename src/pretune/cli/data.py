"""``pretune data``: look at raw text, and clean it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from pretune.cli.shared import (
    Config,
    DryRun,
    Encoding,
    Json,
    Out,
    PrintConfig,
    TextColumn,
    column_map,
    emit,
    merge_settings,
    split_arguments,
)

NAME = "data"
HELP = """Look at raw text, and clean it for pretraining.

Examples (the texts are there after `pretune quickstart`):

\b
  pretune data inspect runs/quickstart/texts/pretrain_en.jsonl runs/quickstart/texts/pretrain_zh.jsonl
  pretune data prepare runs/quickstart/texts/pretrain_zh.jsonl --deduplicate near
  pretune data inspect runs/quickstart/texts/pretrain_en.jsonl --json
"""
app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

PREPARE_HELP = """Clean text into a folder that `pretune pretrain` reads.

SOURCES: files, folders and patterns of .txt, .md, .html, .jsonl, .json, .csv, .tsv or .parquet, packed as
.gz, .zst or .zip or not; key=value sets any setting. The same command goes on where a stopped one ended.

Examples (the texts are there after `pretune quickstart`):

\b
  pretune data prepare runs/quickstart/texts/pretrain_en.jsonl --out runs/clean
  pretune data prepare runs/quickstart/texts/pretrain_zh.jsonl --rules web --deduplicate near --redact email,phone
  pretune data prepare runs/quickstart/texts/pretrain_en.jsonl --decontaminate runs/quickstart/texts/topic_en/test.jsonl
"""
INSPECT_HELP = """Say what is in text, without writing anything.

SOURCES: as for `pretune data prepare`. Large text is read whole and judged on an even sample.

Examples (the texts are there after `pretune quickstart`):

\b
  pretune data inspect runs/quickstart/texts/pretrain_zh.jsonl
  pretune data inspect runs/quickstart/texts --json
"""


@app.command(help=PREPARE_HELP)
def prepare(
    words: Annotated[list[str] | None, typer.Argument(metavar="SOURCES... [KEY=VALUE...]")] = None,
    rules: Annotated[str | None, typer.Option(help="off, light or web; default light.")] = None,
    deduplicate: Annotated[str | None, typer.Option(help="off, exact or near; default exact.")] = None,
    languages: Annotated[str | None, typer.Option(help="Keep these only: en,zh.")] = None,
    redact: Annotated[str | None, typer.Option(help="Any of email,national_id,card,phone,ip.")] = None,
    decontaminate: Annotated[
        list[str] | None, typer.Option(help="Evaluation file: what stands in it is taken out.")
    ] = None,
    text_column: TextColumn = None,
    encoding: Encoding = None,
    config: Config = None,
    out: Out = None,
    processes: Annotated[
        int | None, typer.Option(min=1, help="Processes that clean; default: one a processor.")
    ] = None,
    print_config: PrintConfig = False,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Parse, prepare, print."""
    values = merge_cleaning_settings(
        words,
        config,
        {
            "rules": rules,
            "deduplicate": deduplicate,
            "languages": _split_commas(languages),
            "redact": _split_commas(redact),
            "decontaminate": decontaminate,
        },
        {"columns": column_map(text=text_column), "encoding": encoding},
    )

    from pretune import config as settings_module
    from pretune.runtime.progress import default_reporter
    from pretune.workflows.data import folder
    from pretune.workflows.data import prepare as workflow

    settings = folder.resolve(values, {})
    if print_config:
        typer.echo(settings_module.to_yaml(settings), nl=False)
        return
    if dry_run:
        emit(
            check := folder.dry_run(settings, default_reporter(quiet=json)),
            json,
            [f"{key}: {value}" for key, value in check.items()],
        )
        return
    result = workflow.prepare_data(
        settings, out=out, processes=processes or _cpu_count(), reporter=default_reporter(quiet=json)
    )
    s = result.summary
    emit(
        {**s, "folder": str(result.folder)},
        json,
        [
            f"{s['documents']:,} of {s['documents_in']:,} documents kept, "
            f"{s['bytes'] / 1e6:,.1f} of {s['bytes_in'] / 1e6:,.1f} MB",
            f"text:   {result.text}",
            f"report: {result.report}",
            f"next:   pretune pretrain {result.folder}",
        ],
    )


@app.command(help=INSPECT_HELP)
def inspect(
    words: Annotated[list[str] | None, typer.Argument(metavar="SOURCES...")] = None,
    sample: Annotated[float, typer.Option(min=0.1, help="Megabytes of text that are judged at most.")] = 32.0,
    text_column: TextColumn = None,
    encoding: Encoding = None,
    json: Json = False,
) -> None:
    """Read, measure, print."""
    from pretune.runtime.progress import default_reporter
    from pretune.workflows.data import inspect as workflow

    found = workflow.inspect_data(
        words or [], sample=sample, columns=column_map(text=text_column), encoding=encoding,
        reporter=default_reporter(quiet=json),
    )  # fmt: skip
    emit(found, json, workflow.inspection_lines(found))


def merge_cleaning_settings(
    words: list[str] | None, config: Path | None, options: Mapping[str, Any], top_level: Mapping[str, Any]
) -> dict[str, Any]:
    """Settings of a YAML file, with options laid over those of ``cleaning`` and ``top_level``, and ``key=value``."""
    paths, assignments = split_arguments(words or [])
    values = merge_settings(config, {"sources": paths, **top_level}, [])
    given = {key: value for key, value in options.items() if value}
    values["cleaning"] = {**(values.get("cleaning") or {}), **given}
    return merge_settings(None, values, assignments)


def _split_commas(text: str | None) -> list[str]:
    return [word.strip() for word in (text or "").split(",") if word.strip()]


def _cpu_count() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
