"""``pretune finetune``."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from pretune.cli.shared import (
    AnswersColumn,
    Changes,
    Config,
    ContextColumn,
    DryRun,
    Encoding,
    IdColumn,
    Json,
    LabelColumn,
    LabelsColumn,
    Language,
    Out,
    PrintConfig,
    QuestionColumn,
    TagsColumn,
    TextColumn,
    TextPairColumn,
    TokensColumn,
    class_lines,
    closing_lines,
    column_map,
    complete_names,
    emit,
    format_score,
    merge_settings,
    severe_lines,
    split_arguments,
)

NAME = "finetune"
HELP = """Fine-tune a model on labelled texts, and test it beside its baselines.

MODEL: a run, a model folder, or a Hugging Face folder. Records: .jsonl or .csv with text and label,
or other columns, which --text-column and --label-column name.

Example (model and texts are there after `pretune quickstart`):

\b
  pretune finetune runs/quickstart/masked --train runs/quickstart/texts/topic_en/train.jsonl \\
    --validation runs/quickstart/texts/topic_en/validation.jsonl --test runs/quickstart/texts/topic_en/test.jsonl
"""


# Long for its options, which typer reads one a parameter; what it does is the few lines at its end.
def run(
    words: Annotated[list[str] | None, typer.Argument(metavar="MODEL [KEY=VALUE...]")] = None,
    train: Annotated[
        list[str] | None, typer.Option(help="Labelled records to learn from; may be repeated.")
    ] = None,
    validation: Annotated[
        list[str] | None, typer.Option(help="Chooses the checkpoint; default: a tenth of --train.")
    ] = None,
    test: Annotated[list[str] | None, typer.Option(help="Scored once, at the end.")] = None,
    task: Annotated[
        str | None,
        typer.Option(
            help="classification (the default), multi_label_classification ...",
            autocompletion=complete_names("tasks"),
        ),
    ] = None,
    budget: Annotated[str | None, typer.Option(help="'4 epochs', 10min, '500 steps'.")] = None,
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
    encoding: Encoding = None,
    config: Config = None,
    out: Out = None,
    changes: Changes = None,
    language: Language = None,
    print_config: PrintConfig = False,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Parse, fine-tune, print."""
    started = time.monotonic()
    paths, assignments = split_arguments(words or [])
    if len(paths) > 1:
        raise typer.BadParameter(f"one model, please; got {', '.join(paths)}")
    options = {
        "task": task, "model": paths[0] if paths else None, "train": train, "validation": validation, "test": test,
        "budget": budget, "language": language, "encoding": encoding,
        "columns": column_map(
            text=text_column, text_pair=text_pair_column, label=label_column, labels=labels_column, id=id_column, tokens=tokens_column, tags=tags_column, question=question_column, context=context_column, answers=answers_column),
    }  # fmt: skip
    values = merge_settings(config, options, assignments)

    from pretune import config as settings_module
    from pretune.runtime.progress import default_reporter
    from pretune.workflows.finetune import finetune as workflow

    settings = workflow.resolve(values, {})
    if print_config:
        typer.echo(settings_module.to_yaml(settings), nl=False)
        return
    if dry_run:
        emit(
            check := workflow.dry_run(settings, default_reporter(quiet=json)),
            json,
            [f"{key}: {value}" for key, value in check.items()],
        )
        return
    result = workflow.finetune(
        settings=settings, out=out, changes=changes, reporter=default_reporter(quiet=json), start_time=started
    )
    s = result.summary
    emit(
        {**s, "folder": str(result.folder)},
        json,
        [
            *severe_lines(s["verdicts"]),
            f"on {s['n']:,} {s['split']} records:",
            *(f"  {name:10} {format_score(score)}" for name, score in s["scores"].items()),
            *(
                f"  {name:10} {format_score(row[first])} {first} (baseline)"
                for first in list(s["scores"])[:1]
                for name, row in s["baselines"].items()
            ),
            *class_lines(s),
            f"model:  {result.model}",
            f"report: {result.report}",
            *closing_lines(s, f'predict {result.folder} --text "..."'),
        ],
    )
