"""Continue prompts, given or from a file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pretune.arguments import FilePath, check_arguments
from pretune.config import build
from pretune.errors import UsageError
from pretune.generation.sampling import Sampling
from pretune.generation.sampling_loop import Continuation
from pretune.generation.settings import Decoding, check
from pretune.model.model import Model
from pretune.runtime import device
from pretune.runtime.progress import Reporter, Silent
from pretune.types import Record
from pretune.workflows.data_options import reading_of
from pretune.workflows.predict.output import answer_file, given

TEMPLATE = "this model has a chat template: --chat puts the prompt into it (in Python: chat=True)"
ENDED = "the model ended at once (0 tokens)"
CHUNK = 64
"""Prompts of a file that are read and answered at once."""


def resolve(model: Model, options: Mapping[str, Any]) -> Decoding:
    """How to decode, as far as it is given (not None); the rest is the model's own way.

    ``options`` are the fields of `Decoding` and of `Sampling` side by side.

    Raises:
        ConfigError: an unknown or wrong value.
        UsageError: values that exclude each other.
    """
    told = {key: value for key, value in options.items() if value is not None}
    drawing = {key: told.pop(key) for key in Sampling.model_fields if key in told}
    drawn = [key for key in ("temperature", "top_k", "top_p", "min_p") if drawing.get(key)]
    own = model.defaults.sampling.model_dump()
    if told.get("num_beams", 1) > 1 and drawn:
        raise UsageError(f"num_beams searches and draws nothing; leave {drawn[0]} out, or num_beams")
    beams = told.get("num_beams", 1 if drawn else model.defaults.decoding.get("num_beams", 1))
    told |= {"num_beams": 1} if drawn and beams == 1 else {}
    if drawing:
        own |= {"temperature": 0.0} if beams > 1 else {}
        told["sampling"] = build(Sampling, {**own, **drawing}, where="generate")
    decoding = build(Decoding, told, where="generate")
    check(model.defaults.complete(decoding), decoding.sampling or model.defaults.sampling)
    return decoding


@check_arguments
def generate(
    model: Model | FilePath,
    prompts: Sequence[str],
    options: Mapping[str, Any] | None = None,
    reporter: Reporter | None = None,
) -> list[list[Continuation]]:
    """The continuations of each prompt; ``options`` as in `resolve`."""
    loaded = prepared(model, reporter)
    return loaded.generate_all(prompts, resolve(loaded, options or {}))


@check_arguments
def generate_file(
    model: Model | FilePath,
    *,
    data: FilePath,
    out: FilePath,
    options: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    columns: Mapping[str, str] | None = None,
    encoding: str | None = None,
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """Continue the ``text`` of every record of ``data`` into ``out``, JSON lines in the order of the records.

    ``columns`` names the column of the text, as ``{"text": "prompt"}``, ``encoding`` that of files that are
    neither UTF-8 nor marked otherwise. Each line repeats ``id`` and ``text`` and has ``continuations``, a
    list of ``text`` and ``reason``.

    Raises:
        DataError: unusable data, or an output that cannot be written.
        UsageError: ``out`` is there already and ``overwrite`` is not given.
        CheckpointError: no model there, or a damaged one.
    """
    reporter = reporter or Silent()
    options = options or {}
    loaded = prepared(model, reporter, chat=bool(options.get("chat") or options.get("literal")))
    decoding = resolve(loaded, options)
    counts: Counter[str] = Counter()

    def answer(records: Sequence[Record]) -> Iterable[dict[str, Any]]:
        found = loaded.generate_all([str(record.fields["text"]) for record in records], decoding)
        for record, said in zip(records, found, strict=True):
            counts.update(every=len(said), empty=sum(map(is_empty, said)))
            yield {**given(record), "continuations": [described(one) for one in said]}

    reading = reading_of(loaded, columns, encoding, ("text",))
    count, log = answer_file(data, out, answer, reading=reading, chunk=CHUNK, overwrite=overwrite)
    if log.remarkable:
        reporter.say(f"  {log.summary()}")
    if counts["empty"]:
        reporter.say(f"  {ended_at_once(counts['empty'], counts['every'])}")
    return {
        "verb": "generate", "records": count, "bad": log.bad, "ended_at_once": counts["empty"],
        "out": str(out),
    }  # fmt: skip


def described(said: Continuation) -> dict[str, Any]:
    """A continuation as JSON holds it."""
    score = {} if said.score is None else {"score": round(said.score, 6)}
    return {"text": said.text, "tokens": len(said.tokens), "reason": said.reason, **score}


def follows(model: Model) -> bool:
    """Does what the model writes follow on its prompt? What an encoder-decoder writes stands by itself."""
    return str(model.family.TRAITS.kind) == "decoder"


def prepared(model: Model | str | Path, reporter: Reporter | None = None, *, chat: bool = True) -> Model:
    """The model, loaded, on a machine that is set up.

    Args:
        reporter: is told what `notes` says; None: Python's warnings tell what the model does not do.
        chat: leave the chat template unmentioned.

    Raises:
        UsageError: it writes no text.
    """
    device.prepare()
    loaded = model if isinstance(model, Model) else Model.load(model)
    loaded.needs("causal_lm")
    if reporter is not None:
        for note in notes(loaded, chat=chat):
            reporter.say(f"  {note}")
    return loaded


def notes(model: Model, *, chat: bool = False) -> list[str]:
    """What a user should know before the model writes: what it does not do as asked, and its chat template.

    Args:
        chat: the template is used, or the user has said that it is not to be.
    """
    unused = model.unused_settings()
    offered = [] if chat or model.tokenizer.chat_template is None else [TEMPLATE]
    return [*([unused] if unused else []), *offered]


def is_empty(said: Continuation) -> bool:
    """Did the model end the text before its first token?"""
    return not said.tokens and said.reason == "end"


def ended_at_once(empty: int, every: int) -> str:
    """What to say of ``empty`` continuations of ``every`` that hold nothing."""
    return ENDED if every == 1 else f"{ENDED} in {empty:,} of {every:,} texts"
