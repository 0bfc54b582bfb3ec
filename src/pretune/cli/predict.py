"""``pretune predict``."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated

import typer

from pretune.cli.shared import (
    ContextColumn,
    Encoding,
    IdColumn,
    Json,
    Overwrite,
    QuestionColumn,
    TextColumn,
    TextPairColumn,
    TokensColumn,
    column_map,
    emit,
    json_line,
)

NAME = "predict"


class OnBad(enum.StrEnum):
    """What becomes of rows that cannot be used."""

    skip = "skip"
    keep = "keep"


HELP = """Say what a model says: label texts, fill masks, or continue a text, whichever its head does.

Examples (models and texts are there after `pretune quickstart`):

\b
  pretune predict runs/quickstart/classify-en-pretrained-0 --text "And the king sent messengers to the city."
  pretune predict runs/quickstart/classify-zh-pretrained-0 --data runs/quickstart/texts/topic_zh/test.jsonl --out said.jsonl
  pretune predict runs/quickstart/classify-zh-pretrained-0 --data - --out - < runs/quickstart/texts/topic_zh/test.jsonl
  pretune predict runs/quickstart/masked --text "In the beginning God created the [MASK] and the earth."
"""


def run(
    model: Annotated[Path, typer.Argument(help="A run, a model folder, or a Hugging Face folder.")],
    texts: Annotated[list[str] | None, typer.Argument(metavar="[TEXT]...", help="Texts to answer.")] = None,
    text: Annotated[list[str] | None, typer.Option(help="A text to answer; may be repeated.")] = None,
    text_pair: Annotated[
        list[str] | None, typer.Option(help="The second text of each, where the model reads pairs.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="A file of records with a text each; - reads stdin.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Where the answers to --data go: .jsonl, .csv, or - for stdout."),
    ] = None,
    on_bad: Annotated[
        OnBad, typer.Option(help="Rows that cannot be used: leave them out, or keep an error in their place.")
    ] = OnBad.skip,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Rows read at once; default: as many as fit.")
    ] = None,
    max_new_tokens: Annotated[
        int | None, typer.Option(min=1, help="Of a continuation; default: the model's own, or 50.")
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option(
            min=0, help="Of a continuation; 0: the likeliest token; default: the model's own, or 0.8."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of a continuation.")] = 0,
    overwrite: Overwrite = False,
    text_column: TextColumn = None,
    text_pair_column: TextPairColumn = None,
    id_column: IdColumn = None,
    tokens_column: TokensColumn = None,
    question_column: QuestionColumn = None,
    context_column: ContextColumn = None,
    encoding: Encoding = None,
    json: Json = False,
) -> None:
    """Parse, predict, print."""
    given = [*(texts or []), *(text or [])]
    if (data is None) == (not given):
        raise typer.BadParameter("give either texts (TEXT or --text) or a file of them (--data)")
    if text_pair and len(text_pair) != len(given):
        raise typer.BadParameter(f"{len(given)} texts, but {len(text_pair)} --text-pair: give one for each")
    if data is not None and out is None:
        raise typer.BadParameter("--data needs --out, the file that the answers go to")
    from pretune.runtime.progress import default_reporter
    from pretune.workflows.predict import predict as workflow

    writing = workflow.GenerationOptions(max_new_tokens=max_new_tokens, temperature=temperature, seed=seed)
    if data is not None and out is not None:
        summary = workflow.predict(
            model, data=data, out=out, on_bad=on_bad.value, batch_size=batch_size, generation_options=writing,
            columns=column_map(text=text_column, text_pair=text_pair_column, id=id_column, tokens=tokens_column, question=question_column, context=context_column), encoding=encoding,
            overwrite=overwrite, reporter=default_reporter(json),
        )  # fmt: skip
        if str(out) != "-":  # there the answers are all that stdout holds
            emit(summary, json, [f"{summary['records']:,} records answered in {out}"])
        return
    reporter = default_reporter(json)
    for answer in workflow.predict_texts(
        model, given, pairs=text_pair, generation_options=writing, reporter=reporter
    ):
        typer.echo(json_line(answer))
