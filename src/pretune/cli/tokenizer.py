"""``pretune tokenizer train | inspect | extend``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from pretune.cli.shared import Encoding, Json, TextColumn, column_map, emit

NAME = "tokenizer"
HELP = """Train a tokenizer on raw text, see what tokenizers do to a text, or give a model more tokens for it.

Examples (the texts are there after `pretune quickstart`; every verb takes --json):

\b
  pretune tokenizer train runs/quickstart/texts/pretrain_en.jsonl --vocabulary-size auto --out runs/bpe
  pretune tokenizer train runs/quickstart/texts/pretrain_zh.jsonl --algorithm wordpiece --out runs/wordpiece
  pretune tokenizer inspect runs/bpe runs/wordpiece --data runs/quickstart/texts/pretrain_zh.jsonl
  pretune tokenizer inspect runs/bpe --text "The ferry left. 渡船离开了港口。"
  pretune tokenizer extend runs/quickstart/causal runs/quickstart/texts/pretrain_zh.jsonl --tokens 300 --out runs/extended
"""

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


@app.command("train")
def train(
    sources: Annotated[list[str], typer.Argument(metavar="SOURCES...", help="Files or folders of text.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write; must be empty or not there.")],
    algorithm: Annotated[str, typer.Option(help="bpe, wordpiece or unigram.")] = "bpe",
    vocabulary_size: Annotated[
        str, typer.Option(help="Number of tokens, or auto: as many as the text repays.")
    ] = "8192",
    max_token_length: Annotated[
        int, typer.Option(help="Longest token in bytes (bpe and unigram); 16 is five Chinese characters.")
    ] = 16,
    lowercase: Annotated[
        bool, typer.Option("--lowercase", help="wordpiece: write everything small.")
    ] = False,
    strip_accents: Annotated[bool, typer.Option("--strip-accents", help="wordpiece: write é as e.")] = False,
    sentinels: Annotated[
        int, typer.Option(help="Further tokens <extra_id_0> ... for span corruption; T5 has 100.")
    ] = 0,
    text_column: TextColumn = None,
    encoding: Encoding = None,
    json: Json = False,
) -> None:
    """Train a tokenizer and save it as a folder that transformers loads.

    Example: pretune tokenizer train runs/quickstart/texts/pretrain_en.jsonl --algorithm unigram --out runs/unigram
    """
    from pretune.runtime.progress import default_reporter
    from pretune.workflows import tokenizer as workflow

    trained = workflow.train_tokenizer(
        sources, out,
        algorithm=algorithm, vocabulary_size=workflow.parse_vocabulary_size(vocabulary_size),
        max_token_length=max_token_length, lowercase=lowercase, strip_accents=strip_accents, sentinels=sentinels,
        columns=column_map(text=text_column), encoding=encoding, reporter=default_reporter(quiet=json),
    )  # fmt: skip
    emit(
        trained.summary(),
        json,
        [
            *workflow.inspection_lines({str(out): trained.inspection}),
            "",
            f"tokenizer: {trained.folder} ({trained.tokenizer.vocabulary_size:,} tokens)",
            f"next:      pretune pretrain {' '.join(sources)} --tokenizer {trained.folder}",
        ],
    )


@app.command("inspect")
def inspect(
    tokenizers: Annotated[
        list[str], typer.Argument(metavar="TOKENIZER...", help="tokenizer.json, or a folder with one.")
    ],
    data: Annotated[list[str] | None, typer.Option(help="Files or folders of text to measure on.")] = None,
    text: Annotated[str | None, typer.Option(help="A text whose tokens are shown.")] = None,
    text_column: TextColumn = None,
    encoding: Encoding = None,
    json: Json = False,
) -> None:
    """Measure tokenizers side by side on --data, or show the tokens of --text.

    Example: pretune tokenizer inspect runs/bpe --data runs/quickstart/texts/pretrain_en.jsonl
    """
    if (text is None) == (not data):
        raise typer.BadParameter("give --data FILES to measure on, or --text to see its tokens, one of both")

    from pretune.runtime.progress import default_reporter
    from pretune.workflows import tokenizer as workflow

    if text is not None:
        shown = workflow.show_tokens(tokenizers, text)
        emit(shown, json, workflow.token_lines(shown))
        return
    found = workflow.inspect_tokenizers(
        tokenizers, data or [], columns=column_map(text=text_column), encoding=encoding,
        reporter=default_reporter(quiet=json),
    )  # fmt: skip
    emit({name: asdict(item) for name, item in found.items()}, json, workflow.inspection_lines(found))


@app.command("extend")
def extend(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model folder, or a run.")],
    sources: Annotated[list[str], typer.Argument(metavar="SOURCES...", help="Files or folders of text.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write; must be empty or not there.")],
    tokens: Annotated[int, typer.Option(help="How many tokens to add, at most.")] = 1000,
    max_token_length: Annotated[
        int, typer.Option(help="Longest new token in bytes; 16 is five Chinese characters.")
    ] = 16,
    text_column: TextColumn = None,
    encoding: Encoding = None,
    json: Json = False,
) -> None:
    """Give a model more tokens for a text, each from the mean of the pieces that wrote it before.

    Example: pretune tokenizer extend runs/quickstart/causal runs/quickstart/texts/pretrain_zh.jsonl --tokens 300 --out runs/extended
    """
    from pretune.runtime.progress import default_reporter
    from pretune.workflows import extend as workflow

    found = workflow.extend_vocabulary(
        model, sources, out=out, tokens=tokens, max_token_length=max_token_length,
        columns=column_map(text=text_column), encoding=encoding, reporter=default_reporter(quiet=json),
    )  # fmt: skip
    following = f"next:  pretune pretrain {' '.join(sources)} --from {found.folder}"
    emit(found.summary(), json, [*workflow.summary_lines(found), following])
