"""``pretune pretrain``."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from pretune.cli.shared import Config, DryRun, Json, Language, Out, PrintConfig, emit, gather, names_of, split

NAME = "pretrain"
HELP = """Pretrain a language model from random weights on raw text.

CORPUS: files or folders of .txt, .jsonl or .csv (with a text field); key=value sets any setting.

Examples (the texts are there after `pretune quickstart`):

\b
  pretune pretrain runs/quickstart/texts/pretrain_en.jsonl --budget 2min
  pretune pretrain runs/quickstart/texts/pretrain_zh.jsonl --family llama --budget "200 steps" training.seed=1
"""


def run(
    words: Annotated[list[str] | None, typer.Argument(metavar="CORPUS... [KEY=VALUE...]")] = None,
    family: Annotated[
        str | None, typer.Option(help="bert or llama; default bert.", autocompletion=names_of("families"))
    ] = None,
    budget: Annotated[str | None, typer.Option(help="30min, '2000 steps', '5M tokens', '3 epochs'.")] = None,
    validation: Annotated[
        list[str] | None, typer.Option(help="Held-out text; default: a share of CORPUS.")
    ] = None,
    tokenizer: Annotated[
        str | None, typer.Option(help="tokenizer.json or a folder with one; default: train one.")
    ] = None,
    config: Config = None,
    out: Out = None,
    language: Language = None,
    print_config: PrintConfig = False,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Parse, pretrain, print."""
    started = time.monotonic()
    paths, assignments = split(words or [])
    options = {
        "corpus": paths,
        "family": family,
        "budget": budget,
        "tokenizer": tokenizer,
        "validation": validation,
        "language": language,
    }
    values = gather(config, options, assignments)

    from pretune import config as settings_module
    from pretune.training.progress import default_reporter
    from pretune.workflows import pretrain as workflow

    settings = workflow.resolve(values, {})
    if print_config:
        typer.echo(settings_module.dump(settings), nl=False)
        return
    if dry_run:
        emit(check := workflow.rehearse(settings), json, [f"{key}: {value}" for key, value in check.items()])
        return
    result = workflow.pretrain(settings, out=out, reporter=default_reporter(quiet=json), started=started)
    s = result.summary
    emit(
        {**s, "folder": str(result.folder)},
        json,
        [
            f"held-out loss {s['loss']:.3f} nats per token (unigram {s['unigram']:.3f}, bigram {s['bigram']:.3f})",
            f"{s['steps']:,} steps, {s['tokens']:,} tokens, {s['seconds']:.0f} s",
            f"model:  {result.model}",
            f"report: {result.report}",
            f"next:   pretune finetune {result.folder} --train labelled.jsonl",
        ],
    )
