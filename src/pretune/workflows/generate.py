"""Continue prompts, given or from a file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pretune.arguments import FilePath, check_arguments
from pretune.config import build
from pretune.errors import UsageError
from pretune.generation.decode import Continuation, Decoding, check
from pretune.generation.sampling import Sampling
from pretune.model import Model
from pretune.training import machine
from pretune.training.progress import Reporter, Silent
from pretune.types import Record
from pretune.workflows.lines import answer_file, given

CHUNK = 64
"""Prompts of a file that are read and answered at once."""


def resolve(model: Model, options: Mapping[str, Any]) -> Decoding:
    """How to decode: what is given (not None), and for the rest the model's own way.

    ``options`` are the fields of `Decoding` and of `Sampling` side by side.

    Raises:
        ConfigError: an unknown or wrong value.
        UsageError: values that exclude each other.
    """
    told = {key: value for key, value in options.items() if value is not None}
    drawing = {key: told.pop(key) for key in Sampling.model_fields if key in told}
    own = model.defaults.sampling.model_dump()
    if told.get("num_beams", 1) > 1:
        wrong = [key for key in ("temperature", "top_k", "top_p", "min_p") if drawing.get(key)]
        if wrong:
            raise UsageError(f"num_beams searches and draws nothing; leave {wrong[0]} out, or num_beams")
        own["temperature"] = 0.0
    sampling = build(Sampling, {**own, **drawing}, where="generate")
    decoding = build(Decoding, {**told, "sampling": sampling}, where="generate")
    check(decoding, sampling)
    return decoding


@check_arguments
def generate(
    model: Model | FilePath, prompts: Sequence[str], options: Mapping[str, Any] | None = None
) -> list[list[Continuation]]:
    """The continuations of each prompt; ``options`` as in `resolve`."""
    loaded = prepared(model)
    return loaded.generate_all(prompts, resolve(loaded, options or {}))


@check_arguments
def generate_file(
    model: Model | FilePath,
    *,
    data: FilePath,
    out: FilePath,
    options: Mapping[str, Any] | None = None,
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """Continue the ``text`` of every record of ``data`` into ``out``, JSON lines in the order of the records.

    Each line repeats ``id`` and ``text`` and has ``continuations``, a list of ``text`` and ``reason``.

    Raises:
        DataError: unusable data, or an output that cannot be written.
        CheckpointError: no model there, or a damaged one.
    """
    reporter = reporter or Silent()
    loaded = prepared(model)
    decoding = resolve(loaded, options or {})

    def answer(records: Sequence[Record]) -> Iterable[dict[str, Any]]:
        found = loaded.generate_all([str(record.fields["text"]) for record in records], decoding)
        for record, said in zip(records, found, strict=True):
            yield {**given(record), "continuations": [described(one) for one in said]}

    count, log = answer_file(data, out, answer, chunk=CHUNK)
    if log.bad:
        reporter.say(f"  {log.summary()}")
    return {"verb": "generate", "records": count, "bad": log.bad, "out": str(out)}


def described(said: Continuation) -> dict[str, Any]:
    """A continuation as JSON holds it."""
    score = {} if said.score is None else {"score": round(said.score, 6)}
    return {"text": said.text, "tokens": len(said.tokens), "reason": said.reason, **score}


def follows(model: Model) -> bool:
    """Does what the model writes follow on its prompt? What an encoder-decoder writes stands by itself."""
    return str(model.family.TRAITS.kind) == "decoder"


def prepared(model: Model | str | Path) -> Model:
    """The model, loaded, on a machine that is set up.

    Raises:
        UsageError: it writes no text.
    """
    machine.prepare()
    loaded = model if isinstance(model, Model) else Model.load(model)
    loaded.needs("causal_lm")
    return loaded
