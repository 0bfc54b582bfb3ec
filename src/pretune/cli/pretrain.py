"""``pretune pretrain``."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pretune.cli.shared import (
    Changes,
    Config,
    DryRun,
    Encoding,
    Json,
    Language,
    Out,
    PrintConfig,
    SourceColumn,
    TargetColumn,
    TextColumn,
    closing_lines,
    column_map,
    complete_names,
    emit,
    merge_settings,
    severe_lines,
    split_arguments,
)

if TYPE_CHECKING:
    from pretune.workflows.run_lifecycle import RunResult

NAME = "pretrain"
HELP = """Pretrain a language model on raw text, from random weights or from a model that is there.

CORPUS: files, folders, patterns, - for standard input, or datasets:NAME; .txt .md .html .jsonl .json .csv .tsv
.parquet (records with a text field), each also packed as .gz .zst .zip; key=value sets any setting.

Examples (the texts are there after `pretune quickstart`):

\b
  pretune pretrain runs/quickstart/texts/pretrain_en.jsonl --budget 2min
  pretune pretrain runs/quickstart/texts/pretrain_zh.jsonl --family llama --budget "200 steps" training.seed=1
  pretune pretrain runs/quickstart/texts/pretrain_en.jsonl --from runs/quickstart/masked --budget 1min
"""


def run(
    words: Annotated[list[str] | None, typer.Argument(metavar="CORPUS... [KEY=VALUE...]")] = None,
    family: Annotated[
        str | None,
        typer.Option(
            help="bert, gpt2, llama, modernbert, t5, xlnet ...; default modernbert.",
            autocompletion=complete_names("families"),
        ),
    ] = None,
    start_from: Annotated[
        str | None,
        typer.Option("--from", help="A run or model folder to go on from; default: random weights."),
    ] = None,
    budget: Annotated[str | None, typer.Option(help="30min, '2000 steps', '5M tokens', '3 epochs'.")] = None,
    validation: Annotated[
        list[str] | None, typer.Option(help="Held-out text; default: a share of CORPUS.")
    ] = None,
    tokenizer: Annotated[
        str | None, typer.Option(help="tokenizer.json or a folder with one; default: train one.")
    ] = None,
    text_column: TextColumn = None,
    source_column: SourceColumn = None,
    target_column: TargetColumn = None,
    encoding: Encoding = None,
    config: Config = None,
    out: Out = None,
    changes: Changes = None,
    language: Language = None,
    print_config: PrintConfig = False,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Parse, pretrain, print."""
    started = time.monotonic()
    paths, assignments = split_arguments(words or [])
    options = {
        "corpus": paths,
        "start_from": start_from,
        "family": family,
        "budget": budget,
        "tokenizer": tokenizer,
        "validation": validation,
        "language": language,
        "columns": column_map(text=text_column, source=source_column, target=target_column),
        "encoding": encoding,
    }
    values = merge_settings(config, options, assignments)

    from pretune import config as settings_module
    from pretune.runtime.progress import default_reporter
    from pretune.workflows.pretrain import pretrain as workflow

    settings = workflow.resolve(values, {})
    if print_config:
        typer.echo(settings_module.to_yaml(settings), nl=False)
        return
    if dry_run:
        emit(check := workflow.dry_run(settings, default_reporter(quiet=json)), json, _dry_run_lines(check))
        return
    result = workflow.pretrain(
        settings, out=out, changes=changes, reporter=default_reporter(quiet=json), start_time=started
    )
    emit({**result.summary, "folder": str(result.folder)}, json, _result_lines(result))


def _dry_run_lines(check: Mapping[str, Any]) -> list[str]:
    """What a rehearsal found, a line each; a mixture's parts have a line of their own."""
    components = {
        name: ", ".join(f"{k} {v}" for k, v in component.items())
        for name, component in check.get("mixture", {}).items()
    }
    return [f"{key}: {value}" for key, value in {**components, **check}.items() if key != "mixture"]


def _result_lines(result: RunResult) -> list[str]:
    """What a person reads at the end."""
    s = result.summary
    accuracies = [name for name in s if name.endswith("_accuracy")]
    return [
        *severe_lines(s["verdicts"]),
        f"held-out loss {s['loss']:.3f} nats per token (unigram {s['unigram_loss']:.3f}, bigram {s['bigram_loss']:.3f})",
        *(
            f"{name}: {component['loss']:.3f} (unigram {component['unigram_loss']:.3f}, bigram {component['bigram_loss']:.3f})"
            for name, component in s.get("mixture", {}).items()
        ),
        *([f"before training: {s['initial_scores']['loss']:.3f}"] if "initial_scores" in s else []),
        *(
            f"{name} {s[name]:.3f} (majority {s[name.replace('accuracy', 'majority')]:.3f})"
            for name in accuracies
        ),
        f"{s['steps']:,} steps, {s['tokens']:,} tokens, {s['seconds']:.0f} s{_planned_note(s)}",
        f"model:  {result.model}",
        f"report: {result.report}",
        *closing_lines(s, _next_command(result)),
    ]


def _next_command(result: RunResult) -> str:
    """The command that puts the model to use."""
    components = result.summary.get("mixture", {}).values()
    objectives = [component["objective"] for component in components] or [result.summary["objective"]]
    if "sequence_to_sequence" in objectives:
        return f'generate {result.folder} "..." --temperature 0'
    return f"finetune {result.folder} --train labelled.jsonl"


def _planned_note(summary: Mapping[str, Any]) -> str:
    """What a length in minutes was planned as, beside what it became."""
    if "budget_seconds" not in summary:
        return ""
    return f" (planned: {summary['planned_steps']:,} steps, {summary['budget_seconds']:.0f} s)"
