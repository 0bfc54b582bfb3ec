"""Read records from a file, say what the model says of each, write the answers as they come."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pretune.data.sources import RecordLog, read_records
from pretune.errors import DataError, UsageError
from pretune.generation.sampling import Sampling
from pretune.model import Model
from pretune.prediction.fill import Filled
from pretune.training import machine
from pretune.training.progress import Reporter, Silent
from pretune.types import Record

CHUNK = 512
"""Records that are read, answered and written at once: what bounds memory."""


@dataclass(frozen=True, slots=True)
class Writing:
    """How a causal model continues a text."""

    max_new_tokens: int = 50
    temperature: float = 0.8
    seed: int = 0


def predict(
    model: Model | str | Path,
    *,
    data: str | Path,
    out: str | Path,
    writing: Writing | None = None,
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """Answer every record of ``data`` into ``out`` (JSON lines, in the order of the records).

    A classifier gives ``label``, ``confidence`` and ``alternatives``; a masked model fills the masks in
    ``text``; a causal model continues it. The output grows in a ``.partial`` file, renamed at the end.

    Raises:
        DataError: unusable data, or an output that cannot be written.
        CheckpointError: no model there, or a damaged one.
    """
    machine.prepare()
    reporter = reporter or Silent()
    log, path = RecordLog(), Path(out)
    if path.is_dir():
        raise UsageError(f"{path}: is a folder; give the file that the answers go to")
    loaded = model if isinstance(model, Model) else Model.load(model)
    records = read_records((str(data),), columns=("text",), log=log)
    growing = path.with_name(path.name + ".partial")
    count = 0
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with growing.open("w", encoding="utf-8") as file:
            for answer in answers(loaded, records, writing, log):
                file.write(json.dumps(answer, ensure_ascii=False) + "\n")
                count += 1
        log.finish()
        growing.replace(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error}") from None
    finally:
        if not count:
            growing.unlink(missing_ok=True)
    if log.bad:
        reporter.say(f"  {log.summary()}")
    return {"verb": "predict", "records": count, "bad": log.bad, "out": str(path)}


def answers(
    model: Model, records: Iterable[Record], writing: Writing | None = None, log: RecordLog | None = None
) -> Iterator[dict[str, Any]]:
    """What the model says of each record, in order, read a chunk at a time.

    A text that a language model cannot answer goes to ``log`` as a bad record; without one it is an error.
    """
    stream = iter(records)
    if model.head == "classification":
        while chunk := list(itertools.islice(stream, CHUNK)):
            yield from _classified(model, chunk)
        return
    answer = _filled if model.head == "masked_lm" else partial(_continued, writing or Writing())
    for record in stream:
        try:
            yield {**_given(record), **answer(model, str(record.fields["text"]))}
        except UsageError as error:
            if log is None:
                raise
            log.good -= 1
            log.reject(record.path, record.line, str(error))


def _classified(model: Model, records: list[Record]) -> Iterator[dict[str, Any]]:
    for record, said in zip(records, model.predict(records), strict=True):
        alternatives = {str(value): round(share, 6) for value, share in said.alternatives}
        yield {
            **_given(record), "label": said.value,
            "confidence": round(said.confidence or 0.0, 6), "alternatives": alternatives,
        }  # fmt: skip


def _filled(model: Model, text: str) -> dict[str, Any]:
    return {"masks": [[_guess(guess) for guess in mask] for mask in model.fill(text)]}


def _guess(guess: Filled) -> dict[str, Any]:
    return {"token": guess.token, "probability": round(guess.probability, 6)}


def _continued(writing: Writing, model: Model, text: str) -> dict[str, Any]:
    sampling = Sampling(temperature=writing.temperature)
    written = model.generate(
        text, max_new_tokens=writing.max_new_tokens, sampling=sampling, seed=writing.seed
    )
    return {"continuation": written}


def _given(record: Record) -> dict[str, Any]:
    return {key: record.fields[key] for key in ("id", "text", "text_pair") if key in record.fields}


def predict_texts(
    model: Model | str | Path, texts: Iterable[str], *, writing: Writing | None = None
) -> list[dict[str, Any]]:
    """What ``model`` says of each text."""
    machine.prepare()
    loaded = model if isinstance(model, Model) else Model.load(model)
    records = [Record({"text": text}, "text", number) for number, text in enumerate(texts, 1)]
    return list(answers(loaded, records, writing))
