"""``pretune generate``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pretune.cli.shared import Encoding, Json, Overwrite, TextColumn, column_map, emit, sanitize_texts

if TYPE_CHECKING:
    from pretune.model.model import Model
    from pretune.runtime.progress import Reporter

NAME = "generate"
HELP = """Continue texts with a causal model; an encoder-decoder writes what it makes of them.

What is not given is decided by the model: its generation_config.json, or temperature 0.8, top-k 50, top-p 0.95.
On a terminal a single text appears as it is written.

Examples (models and texts are there after `pretune quickstart`):

\b
  pretune generate runs/quickstart/causal "And it came to pass"
  pretune generate runs/quickstart/causal 当事人可以 --temperature 0 --stop 。
  pretune generate runs/quickstart/causal "In the beginning" --num-return-sequences 3 --top-p 0.9 --seed 7
  pretune generate runs/quickstart/causal --data runs/quickstart/texts/topic_zh/test.jsonl --out written.jsonl
"""


# Long for its options, which typer reads one a parameter; what it does is the few lines at its end.
def run(
    model: Annotated[Path, typer.Argument(help="A run, a model folder, or a Hugging Face folder.")],
    prompts: Annotated[
        list[str] | None, typer.Argument(metavar="[PROMPT]...", help="Texts to continue.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="A file of records, whose text is continued.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Where the answers to --data go, as JSON lines.")
    ] = None,
    max_new_tokens: Annotated[int | None, typer.Option(min=0, help="Default 50.")] = None,
    min_new_tokens: Annotated[
        int | None, typer.Option(min=0, help="The model cannot end the text before.")
    ] = None,
    temperature: Annotated[float | None, typer.Option(min=0, help="0: the likeliest token.")] = None,
    top_k: Annotated[int | None, typer.Option(min=0, help="Only the k likeliest tokens; 0: all.")] = None,
    top_p: Annotated[
        float | None, typer.Option(help="Only the likeliest with this probability together.")
    ] = None,
    min_p: Annotated[
        float | None, typer.Option(help="Only those at least this share as likely as the likeliest.")
    ] = None,
    repetition_penalty: Annotated[
        float | None, typer.Option(help="Makes repeated tokens less likely; 1: no.")
    ] = None,
    no_repeat_ngram_size: Annotated[
        int | None, typer.Option(min=0, help="No run of so many tokens comes twice.")
    ] = None,
    num_beams: Annotated[
        int | None, typer.Option(min=1, help="Search among so many texts, draw nothing.")
    ] = None,
    length_penalty: Annotated[
        float | None, typer.Option(help="Of beams: more than 1 favours long texts.")
    ] = None,
    early_stopping: Annotated[
        bool | None, typer.Option("--early-stopping", help="Beams end when enough have ended.")
    ] = None,
    num_return_sequences: Annotated[
        int | None, typer.Option(min=1, help="Continuations of each text.")
    ] = None,
    bidirectional_prompt: Annotated[
        bool | None,
        typer.Option(
            "--bidirectional-prompt/--left-to-right",
            help="How a decoder reads the prompt; default: as it was trained (prefix_lm: both ways).",
        ),
    ] = None,
    split_special_tokens: Annotated[
        bool | None,
        typer.Option(
            "--split-special-tokens", help="Names of special tokens in the prompt are text, not these tokens."
        ),
    ] = None,
    apply_chat_template: Annotated[
        bool | None,
        typer.Option(
            "--apply-chat-template",
            help="Put the prompt into the model's chat template, as what a user says.",
        ),
    ] = None,
    stop: Annotated[
        list[str] | None,
        typer.Option(help="A string that ends the text, which is cut before it; may be repeated."),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="The same seed draws the same text; default 0.")
    ] = None,
    stream: Annotated[
        bool | None,
        typer.Option("--stream/--no-stream", help="Print as it is written; default on a terminal."),
    ] = None,
    overwrite: Overwrite = False,
    text_column: TextColumn = None,
    encoding: Encoding = None,
    json: Json = False,
) -> None:
    """Parse, generate, print."""
    if (data is None) == (not prompts):
        raise typer.BadParameter("give either texts to continue or a file of them (--data)")
    if (data is None) != (out is None):
        raise typer.BadParameter(
            "--data and --out go together: the records, and the file that the answers go to"
        )
    options: dict[str, Any] = {
        "max_new_tokens": max_new_tokens, "min_new_tokens": min_new_tokens, "temperature": temperature,
        "top_k": top_k, "top_p": top_p, "min_p": min_p, "repetition_penalty": repetition_penalty,
        "no_repeat_ngram_size": no_repeat_ngram_size, "num_beams": num_beams, "length_penalty": length_penalty,
        "early_stopping": early_stopping, "num_return_sequences": num_return_sequences,
        "bidirectional_prompt": bidirectional_prompt, "split_special_tokens": split_special_tokens, "apply_chat_template": apply_chat_template, "stop": tuple(stop) if stop else None, "seed": seed,
    }  # fmt: skip
    if data is not None and out is not None:
        read = {"columns": column_map(text=text_column), "encoding": encoding, "overwrite": overwrite}
        _generate_file(model, data, out, options, read, json)
        return
    texts = sanitize_texts(prompts)
    several = len(texts) > 1 or (num_return_sequences or 1) > 1 or (num_beams or 1) > 1
    if stream and (several or json):
        raise typer.BadParameter("--stream is for one text, without --num-beams and --json")
    if stream or (stream is None and sys.stdout.isatty() and not several and not json):
        _stream_text(model, texts[0], options)
        return
    _generate_texts(model, texts, options, json)


def _generate_file(
    model: Path, data: Path, out: Path, options: dict[str, Any], read_options: dict[str, Any], json: bool
) -> None:
    from pretune.runtime.progress import default_reporter
    from pretune.workflows import generate as workflow

    summary = workflow.generate_file(
        model, data=data, out=out, options=options, reporter=default_reporter(json), **read_options
    )
    emit(summary, json, [f"{summary['records']:,} texts continued in {out}"])


def _stream_text(model: Path, prompt: str, options: dict[str, Any]) -> None:
    from pretune.workflows import generate as workflow

    loaded, reporter = _load_model(model, options, json=False)
    pieces = loaded.stream_decoding(prompt, workflow.build_decoding(loaded, options))
    typer.echo(
        _escape_terminal(prompt)
        if workflow.continues_prompt(loaded) and not options["apply_chat_template"]
        else "",
        nl=False,
    )
    written = 0
    for piece in pieces:
        typer.echo(_escape_terminal(piece), nl=False)
        sys.stdout.flush()
        written += len(piece)
    typer.echo()
    if reporter and not written and options["stop"] is None and options["max_new_tokens"] != 0:
        reporter.say(f"  {workflow.empty_output_note(1, 1)}")


def _generate_texts(model: Path, prompts: list[str], options: dict[str, Any], json: bool) -> None:
    from pretune.workflows import generate as workflow

    loaded, reporter = _load_model(model, options, json)
    notes = workflow.notes(loaded, chat=not json or _has_prompt_mode(options))
    found = workflow.generate(loaded, prompts, options)
    answers = [
        {"text": prompt, "continuations": [workflow.continuation_to_dict(one) for one in said]}
        for prompt, said in zip(prompts, found, strict=True)
    ]
    every = [one for outputs in found for one in outputs]
    empty = sum(map(workflow.is_empty, every))
    notes += [workflow.empty_output_note(empty, len(every))] if empty else []
    if reporter is not None and empty:
        reporter.say(f"  {notes[-1]}")
    follows = workflow.continues_prompt(loaded) and not options["apply_chat_template"]
    before = prompts if follows else [""] * len(prompts)
    lines = [
        _escape_terminal(text + one.text) for text, said in zip(before, found, strict=True) for one in said
    ]
    more = {"notes": notes} if notes else {}
    emit({"verb": "generate", "prompts": answers, **more}, json, lines)


def _load_model(model: Path, options: dict[str, Any], json: bool) -> tuple[Model, Reporter | None]:
    """The model, and who is told about it: nobody where the answer is one JSON object, which says it."""
    from pretune.runtime.progress import default_reporter
    from pretune.workflows import generate as workflow

    reporter = None if json else default_reporter()
    return workflow.load_generator(model, reporter, chat=_has_prompt_mode(options)), reporter


def _has_prompt_mode(options: dict[str, Any]) -> bool:
    """Has the user said how the prompt is to be read?"""
    return bool(options["apply_chat_template"] or options["split_special_tokens"])


def _escape_terminal(text: str) -> str:
    """A model may write what would steer a terminal."""
    return text.replace("\x1b", "\N{SYMBOL FOR ESCAPE}")
