"""``pretune score``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pretune.cli.shared import Encoding, Json, Overwrite, TextColumn, column_map, emit, sanitize_texts

if TYPE_CHECKING:
    from pretune.inference.scoring import TextScore

NAME = "score"
HELP = """Say how probable a language model finds texts, and which of several the most.

A causal model gives the log-probability of a text with its end; a masked model the pseudo-log-likelihood, for which
each token is hidden in turn.

Examples (models and texts are there after `pretune quickstart`):

\b
  pretune score runs/quickstart/causal "And the king said unto him" "And the unto said him king"
  pretune score runs/quickstart/masked 人民法院应当依法判决。 --tokens
  pretune score runs/quickstart/causal --data runs/quickstart/texts/topic_en/test.jsonl --out scores.jsonl
"""


def run(
    model: Annotated[Path, typer.Argument(help="A run, a model folder, or a Hugging Face folder.")],
    texts: Annotated[list[str] | None, typer.Argument(metavar="[TEXT]...", help="Texts to score.")] = None,
    text: Annotated[list[str] | None, typer.Option(help="A text to score; may be repeated.")] = None,
    data: Annotated[Path | None, typer.Option(help="A file of records with a text each.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Where the scores of --data go, as JSON lines.")
    ] = None,
    tokens: Annotated[
        bool, typer.Option("--tokens", help="Show each token with its log-probability.")
    ] = False,
    stride: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Tokens that each window of a long text scores; default: half of what the model reads.",
        ),
    ] = None,
    within_word: Annotated[
        bool, typer.Option("--within-word", help="Masked models: hide the rest of a word, too.")
    ] = False,
    overwrite: Overwrite = False,
    text_column: TextColumn = None,
    encoding: Encoding = None,
    json: Json = False,
) -> None:
    """Parse, score, print."""
    texts_to_score = sanitize_texts([*(texts or []), *(text or [])])
    if (data is None) == (not texts_to_score):
        raise typer.BadParameter("give either texts (TEXT or --text) or a file of them (--data)")
    if (data is None) != (out is None):
        raise typer.BadParameter(
            "--data and --out go together: the records, and the file that the scores go to"
        )
    from pretune.runtime.progress import default_reporter
    from pretune.workflows import score as workflow

    if data is not None and out is not None:
        summary = workflow.score_file(
            model, data=data, out=out, stride=stride, within_word=within_word, tokens=tokens,
            columns=column_map(text=text_column), encoding=encoding, overwrite=overwrite,
            reporter=default_reporter(json),
        )  # fmt: skip
        mean = f"{summary['nll_per_token']:.3f} nats a token over {summary['tokens']:,} tokens"
        emit(summary, json, [f"{summary['records']:,} texts scored in {out}; {mean}"])
        return
    scores = workflow.score_texts(model, texts_to_score, stride=stride, within_word=within_word)
    rows = [
        {"text": t, **workflow.score_to_dict(s, tokens=tokens)}
        for t, s in zip(texts_to_score, scores, strict=True)
    ]
    best = min(range(len(scores)), key=lambda i: scores[i].nll)
    emit(
        {"verb": "score", "scores": rows, "most_probable": best},
        json,
        _score_lines(texts_to_score, scores, tokens),
    )


def _score_lines(texts: list[str], scores: list[TextScore], tokens: bool) -> list[str]:
    measure = "pseudo-log-likelihood" if scores[0].pseudo else "log-probability"
    lines = [f"{measure:>21} {'tokens':>7} {'perplexity':>11} {'bits/byte':>10}  text"]
    for text, score in zip(texts, scores, strict=True):
        figures = (
            f"{-score.nll:21.3f} {len(score.tokens):7,} {score.perplexity:11.4g} {score.bits_per_byte:10.3f}"
        )
        lines.append(f"{figures}  {text}")
        lines += [f"{value:21.3f}  {token!r}" for token, value in score.tokens] if tokens else []
    if len(texts) > 1:
        ranked = sorted(range(len(texts)), key=lambda i: scores[i].nll)
        ahead = scores[ranked[1]].nll - scores[ranked[0]].nll
        lines.append(f"most probable: text {ranked[0] + 1}, by {ahead:.3f} nats before text {ranked[1] + 1}")
    return lines
