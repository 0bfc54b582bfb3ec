"""How probable a language model finds texts, given or from a file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pretune.arguments import FilePath, check_arguments
from pretune.inference.scoring import TextScore
from pretune.model.model import Model
from pretune.runtime import device
from pretune.runtime.progress import NullReporter, Reporter
from pretune.types import Record
from pretune.workflows.data_options import reading_for_model
from pretune.workflows.predict.output import echo_fields, process_file

CHUNK_SIZE = 64
"""Records that are read and scored at once."""


@check_arguments
def score_texts(
    model: Model | FilePath,
    texts: Sequence[str],
    *,
    stride: int | None = None,
    within_word: bool = False,
) -> list[TextScore]:
    """The score of each text: see `Model.score`."""
    device.configure()
    loaded = model if isinstance(model, Model) else Model.load(model)
    return loaded.score_batch(texts, stride=stride, within_word=within_word)


@check_arguments
def score_file(
    model: Model | FilePath,
    *,
    data: FilePath,
    out: FilePath,
    stride: int | None = None,
    within_word: bool = False,
    tokens: bool = False,
    overwrite: bool = False,
    columns: Mapping[str, str] | None = None,
    encoding: str | None = None,
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """Score the ``tokens`` of every record of ``data`` into ``out``, JSON lines in the order of the records.

    Args:
        tokens: write the log-probability of every token, too.
        columns: the column of the text where it is not called so, as ``{"text": "article"}``.
        encoding: of files that are neither UTF-8 nor marked otherwise; None: it is recognised.

    Raises:
        DataError: unusable data, or an output that cannot be written.
        UsageError: ``out`` is there already and ``overwrite`` is not given.
        CheckpointError: no model there, or a damaged one.
    """
    reporter = reporter or NullReporter()
    device.configure()
    loaded = model if isinstance(model, Model) else Model.load(model)
    loaded.score_batch([], stride=stride, within_word=within_word)  # what is wrong for all is said at once
    total = [0.0, 0]

    def answer(records: Sequence[Record]) -> Iterable[dict[str, Any]]:
        texts = [str(record.fields["text"]) for record in records]
        scores = loaded.score_batch(texts, stride=stride, within_word=within_word)
        for record, score in zip(records, scores, strict=True):
            total[0], total[1] = total[0] + score.nll, total[1] + len(score.tokens)
            yield {**echo_fields(record), **score_to_dict(score, tokens=tokens)}

    reading = reading_for_model(loaded, columns, encoding, ("text",))
    count, log = process_file(data, out, answer, reading=reading, chunk_size=CHUNK_SIZE, overwrite=overwrite)
    if log.has_notes:
        reporter.say(f"  {log.summary()}")
    return {
        "verb": "score", "records": count, "bad": log.num_bad, "nll": total[0], "tokens": total[1],
        "nll_per_token": total[0] / max(1, total[1]), "out": str(out),
    }  # fmt: skip


def score_to_dict(score: TextScore, *, tokens: bool = False) -> dict[str, Any]:
    """A score as JSON holds it."""
    found: dict[str, Any] = {
        "metric": "pseudo-log-likelihood" if score.pseudo else "log-probability",
        "nll": round(score.nll, 6), "tokens": len(score.tokens), "perplexity": round(score.perplexity, 6),
        "bits_per_byte": round(score.bits_per_byte, 6),
    }  # fmt: skip
    if tokens:
        found["log_probabilities"] = [[token, round(value, 6)] for token, value in score.tokens]
    return found
