"""Continue prompts, given or from a file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pretune.arguments import FilePath, check_arguments
from pretune.config import build_settings
from pretune.errors import UsageError
from pretune.generation.sampling import Sampling
from pretune.generation.sampling_loop import Continuation
from pretune.generation.settings import Decoding, check_decoding
from pretune.model.model import Model
from pretune.runtime import device
from pretune.runtime.progress import NullReporter, Reporter
from pretune.types import Record
from pretune.workflows.data_options import reading_for_model
from pretune.workflows.predict.output import echo_fields, process_file

CHAT_TEMPLATE_HINT = (
    "this model has a chat template: --apply-chat-template puts the prompt into it "
    "(in Python: apply_chat_template=True)"
)
EMPTY_OUTPUT_NOTE = "the model ended at once (0 tokens)"
CHUNK_SIZE = 64
"""Prompts of a file that are read and answered at once."""


def build_decoding(model: Model, options: Mapping[str, Any]) -> Decoding:
    """How to decode, as far as it is given (not None); the rest is the model's own way.

    ``options`` are the fields of `Decoding` and of `Sampling` side by side.

    Raises:
        ConfigError: an unknown or wrong value.
        UsageError: values that exclude each other.
    """
    decoding_values = {key: value for key, value in options.items() if value is not None}
    sampling_values = {
        key: decoding_values.pop(key) for key in Sampling.model_fields if key in decoding_values
    }
    sampling_keys = [key for key in ("temperature", "top_k", "top_p", "min_p") if sampling_values.get(key)]
    defaults = model.generation_config.sampling.model_dump()
    if decoding_values.get("num_beams", 1) > 1 and sampling_keys:
        raise UsageError(f"num_beams searches and draws nothing; leave {sampling_keys[0]} out, or num_beams")
    beams = decoding_values.get(
        "num_beams", 1 if sampling_keys else model.generation_config.decoding.get("num_beams", 1)
    )
    decoding_values |= {"num_beams": 1} if sampling_keys and beams == 1 else {}
    if sampling_values:
        defaults |= {"temperature": 0.0} if beams > 1 else {}
        decoding_values["sampling"] = build_settings(
            Sampling, {**defaults, **sampling_values}, where="generate"
        )
    decoding = build_settings(Decoding, decoding_values, where="generate")
    check_decoding(
        model.generation_config.fill_in(decoding), decoding.sampling or model.generation_config.sampling
    )
    return decoding


@check_arguments
def generate(
    model: Model | FilePath,
    prompts: Sequence[str],
    options: Mapping[str, Any] | None = None,
    reporter: Reporter | None = None,
) -> list[list[Continuation]]:
    """The continuations of each prompt; ``options`` as in `resolve`."""
    loaded = load_generator(model, reporter)
    return loaded.generate_batch(prompts, build_decoding(loaded, options or {}))


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
    list of ``text`` and ``finish_reason``.

    Raises:
        DataError: unusable data, or an output that cannot be written.
        UsageError: ``out`` is there already and ``overwrite`` is not given.
        CheckpointError: no model there, or a damaged one.
    """
    reporter = reporter or NullReporter()
    options = options or {}
    loaded = load_generator(
        model, reporter, chat=bool(options.get("apply_chat_template") or options.get("split_special_tokens"))
    )
    decoding = build_decoding(loaded, options)
    counts: Counter[str] = Counter()

    def answer(records: Sequence[Record]) -> Iterable[dict[str, Any]]:
        found = loaded.generate_batch([str(record.fields["text"]) for record in records], decoding)
        for record, continuations in zip(records, found, strict=True):
            counts.update(every=len(continuations), empty=sum(map(is_empty, continuations)))
            yield {
                **echo_fields(record),
                "continuations": [continuation_to_dict(one) for one in continuations],
            }

    reading = reading_for_model(loaded, columns, encoding, ("text",))
    count, log = process_file(data, out, answer, reading=reading, chunk_size=CHUNK_SIZE, overwrite=overwrite)
    if log.has_notes:
        reporter.say(f"  {log.summary()}")
    if counts["empty"]:
        reporter.say(f"  {empty_output_note(counts['empty'], counts['every'])}")
    return {
        "verb": "generate", "records": count, "bad": log.num_bad, "num_empty": counts["empty"],
        "out": str(out),
    }  # fmt: skip


def continuation_to_dict(continuation: Continuation) -> dict[str, Any]:
    """A continuation as JSON holds it."""
    score = {} if continuation.score is None else {"score": round(continuation.score, 6)}
    return {
        "text": continuation.text,
        "tokens": len(continuation.tokens),
        "finish_reason": continuation.finish_reason,
        **score,
    }


def continues_prompt(model: Model) -> bool:
    """Does what the model writes follow on its prompt? What an encoder-decoder writes stands by itself."""
    return str(model.family.TRAITS.architecture) == "decoder"


def load_generator(
    model: Model | str | Path, reporter: Reporter | None = None, *, chat: bool = True
) -> Model:
    """The model, loaded, on a machine that is set up.

    Args:
        reporter: is told what `notes` says; None: Python's warnings tell what the model does not do.
        chat: leave the chat template unmentioned.

    Raises:
        UsageError: it writes no text.
    """
    device.configure()
    loaded = model if isinstance(model, Model) else Model.load(model)
    loaded.require_use("generate")
    if reporter is not None:
        for note in notes(loaded, chat=chat):
            reporter.say(f"  {note}")
    return loaded


def notes(model: Model, *, chat: bool = False) -> list[str]:
    """What a user should know before the model writes: what it does not do as asked, and its chat template.

    Args:
        chat: the template is used, or the user has said that it is not to be.
    """
    unused = model.take_unused_settings()
    offered = [] if chat or model.tokenizer.chat_template is None else [CHAT_TEMPLATE_HINT]
    return [*([unused] if unused else []), *offered]


def is_empty(continuation: Continuation) -> bool:
    """Did the model end the text before its first token?"""
    return not continuation.tokens and continuation.finish_reason == "end"


def empty_output_note(num_empty: int, total: int) -> str:
    """What to say of ``num_empty`` continuations of ``total`` that hold nothing."""
    return EMPTY_OUTPUT_NOTE if total == 1 else f"{EMPTY_OUTPUT_NOTE} in {num_empty:,} of {total:,} texts"
