"""``pretune evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pretune.cli.shared import (
    AnswersColumn,
    ContextColumn,
    Encoding,
    IdColumn,
    Json,
    LabelColumn,
    LabelsColumn,
    Overwrite,
    QuestionColumn,
    SourceColumn,
    TagsColumn,
    TargetColumn,
    TextColumn,
    TextPairColumn,
    TokensColumn,
    class_lines,
    column_map,
    emit,
    format_score,
    severe_lines,
)

NAME = "evaluate"
HELP = """Score a model on data that it has not seen: a classifier on labelled records, a language model on text.

With --train, the records that a classifier learnt from, baselines stand beside its scores.

Examples (models and texts are there after `pretune quickstart`):

\b
  pretune evaluate runs/quickstart/causal --data runs/quickstart/texts/topic_zh/test.jsonl
  pretune evaluate runs/quickstart/classify-en-pretrained-0 --data runs/quickstart/texts/topic_en/test.jsonl \\
    --train runs/quickstart/texts/topic_en/train.jsonl
"""


def run(
    model: Annotated[Path, typer.Argument(help="A run, a model folder, or a Hugging Face folder.")],
    data: Annotated[Path, typer.Option(help="A file (or folder) of records or text.")],
    train: Annotated[Path | None, typer.Option(help="Training records, for the baselines.")] = None,
    task: Annotated[str | None, typer.Option(help="Checked against what the model can do.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write the scores here, as JSON.")] = None,
    overwrite: Overwrite = False,
    text_column: TextColumn = None,
    text_pair_column: TextPairColumn = None,
    label_column: LabelColumn = None,
    labels_column: LabelsColumn = None,
    id_column: IdColumn = None,
    tokens_column: TokensColumn = None,
    tags_column: TagsColumn = None,
    question_column: QuestionColumn = None,
    context_column: ContextColumn = None,
    answers_column: AnswersColumn = None,
    source_column: SourceColumn = None,
    target_column: TargetColumn = None,
    encoding: Encoding = None,
    json: Json = False,
) -> None:
    """Parse, evaluate, print."""
    from pretune.runtime.progress import default_reporter
    from pretune.workflows import evaluate as workflow

    named = column_map(
        text=text_column, text_pair=text_pair_column, label=label_column, labels=labels_column,
        source=source_column, target=target_column, id=id_column, tokens=tokens_column, tags=tags_column, question=question_column, context=context_column, answers=answers_column)  # fmt: skip
    summary = workflow.evaluate(
        model, data=data, task=task, train=train, columns=named, encoding=encoding, out=out,
        overwrite=overwrite, reporter=default_reporter(json),
    )  # fmt: skip
    lines = severe_lines(summary.get("verdicts", ()))
    lines += [
        f"{name:14} {format_score(score)}   {score['signature']}" for name, score in summary["scores"].items()
    ]
    first = next(iter(summary["scores"]))
    for name, row in summary.get("baselines", {}).items():
        lines.append(f"{name:14} {format_score(row[first])} {first}   {row['description']}")
    emit(summary, json, lines + class_lines(summary))
