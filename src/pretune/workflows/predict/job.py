"""A model on the rows of a file: what it says of each, a chunk at a time, with how far it then is."""

from __future__ import annotations

import hashlib
import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pretune.config import build_settings, digest
from pretune.data.sources.columns import input_fields
from pretune.data.sources.read_options import ReadOptions
from pretune.data.sources.records import RecordLog, read_records
from pretune.errors import DataError, UsageError
from pretune.generation.sampling import Sampling
from pretune.inference.fill_mask import MaskPrediction
from pretune.inference.output_format import FORMATS, OutputFormat
from pretune.model.model import Model
from pretune.runtime.progress import Reporter, track_progress
from pretune.text.tokenizer import replace_surrogates
from pretune.types import Record

CHUNK_SIZE = 512
"""Rows that are read, answered and written at once: what bounds memory, and what a kill may cost."""
GENERATION_CHUNK_SIZE = 8
"""The same of a language model, whose answers take longer."""
ECHOED_FIELDS = ("id", "text")
"""What is repeated of a record beside a language model's answer; a task has fields of its own."""
OUTPUT_FIELDS = {"masked_lm": ("masks",), "permutation_lm": ("masks",), "causal_lm": ("continuation",)}
"""The fields of a language model's answers."""

OnBad = Literal["skip", "keep"]


@dataclass(frozen=True, slots=True)
class GenerationOptions:
    """How a causal model continues a text; what is None is decided by the model."""

    max_new_tokens: int | None = None
    temperature: float | None = None
    seed: int = 0


@dataclass(frozen=True, slots=True)
class RejectedRow:
    """A row that cannot be used."""

    path: str
    line: int
    reason: str


@dataclass(frozen=True, slots=True)
class Progress:
    """How far it is."""

    rows: int = 0
    """Rows of the data that are dealt with, bad ones among them."""
    num_predictions: int = 0
    num_failed: int = 0
    """Records that could be read, but that the model has no answer to."""
    failures: list[str] = field(default_factory=list)
    """The first of these."""


@dataclass(frozen=True, slots=True)
class InputScan:
    """What a first reading of the data finds, before any work is spent on it."""

    log: RecordLog
    rows: int
    fields: tuple[str, ...]
    """Those of ``FIELDS`` that occur."""
    fingerprint: str


class RejectedRowLog(RecordLog):
    """A log that also hands each rejected row on, where it stands among the others."""

    def __init__(self) -> None:
        super().__init__()
        self._rejected: list[RejectedRow] = []

    def reject(self, path: Path | str, line: int, reason: str) -> None:
        """Count a bad record, and keep it for :meth:`pop_rejected`."""
        super().reject(path, line, reason)
        self._rejected.append(RejectedRow(str(path), line, reason))

    def pop_rejected(self) -> list[RejectedRow]:
        """What was rejected since the last call."""
        rejected, self._rejected = self._rejected, []
        return rejected


@dataclass(frozen=True)
class PredictionJob:
    """A model on a file of records."""

    model: Model
    data: str
    file_format: OutputFormat
    on_bad: OnBad
    batch_size: int | None
    generation_options: GenerationOptions
    reading: ReadOptions = field(default_factory=ReadOptions)

    def iter_rows(self, log: RejectedRowLog) -> Iterator[Record | RejectedRow]:
        """The rows of the data in their order, bad ones in their places."""
        task = None if self.model.task_name is None else self.model.task_type()
        fields = ("text",) if task is None else input_fields(task.fields)
        for record in read_records((self.data,), columns=fields, read_options=self.reading, log=log):
            yield from log.pop_rejected()
            try:
                yield record if task is None else task.parse_record(record, labelled=False)
            except DataError as error:
                log.num_good -= 1
                log.reject(record.path, record.line, str(error))
        yield from log.pop_rejected()

    def scan_input(self) -> InputScan:
        """Read the data once.

        Raises:
            DataError: no good record, or, where bad ones are left out, too many of them.
        """
        log, content, rows = RejectedRowLog(), hashlib.sha256(), 0
        found: dict[str, None] = {}
        for row in self.iter_rows(log):
            rows += 1
            given = asdict(row) if isinstance(row, RejectedRow) else echo_fields(self.model, row)
            content.update(digest(given).encode())
            found |= dict.fromkeys(() if isinstance(row, RejectedRow) else given)
        self._check_log(log)
        return InputScan(
            log, rows, tuple(f for f in _echoed_names(self.model) if f in found), content.hexdigest()
        )

    def check_failures(self, scan: InputScan, progress: Progress) -> None:
        """Whether enough records were answered.

        Raises:
            DataError: none, or, where bad ones are left out, too few.
        """
        if progress.num_failed:
            log = RecordLog()
            log.paths, log.num_good, log.num_bad = (
                [self.data],
                progress.num_predictions,
                scan.log.num_bad + progress.num_failed,
            )
            log.examples = progress.failures
            self._check_log(log)

    def _check_log(self, log: RecordLog) -> None:
        if self.on_bad == "keep" and log.num_good:
            return
        try:
            log.raise_if_too_many_bad()
        except DataError as error:
            hint = "\nto answer the rest all the same: --on-bad keep" if log.num_good else ""
            raise DataError(f"{error}{hint}") from None

    def identity(self) -> dict[str, Any]:
        """All but the data that decides the answers."""
        return {
            "model": self.model.fingerprint,
            "on_bad": self.on_bad,
            "batch_size": self.batch_size,
            "reading": asdict(self.reading),
            "writing": asdict(self.generation_options) if self.model.task_name is None else None,
            "format": next(suffix for suffix, form in FORMATS.items() if form is self.file_format),
        }

    def iter_chunks(
        self, scan: InputScan, progress: Progress, reporter: Reporter
    ) -> Iterator[tuple[bytes, Progress]]:
        """The output from ``progress`` on, a chunk at a time, with how far it then is."""
        columns = (
            *scan.fields,
            *self._output_fields(),
            *(("error", "file", "line") * (self.on_bad == "keep")),
        )
        size = GENERATION_CHUNK_SIZE if self.model.task_name is None else CHUNK_SIZE
        stream = itertools.islice(self.iter_rows(RejectedRowLog()), progress.rows, None)
        before, began = progress.rows, time.monotonic()
        head = b"" if progress.rows else self.file_format.format_header(columns)
        with track_progress(reporter, "predict", scan.rows) as work:
            while chunk := list(itertools.islice(stream, size)):
                answers, progress = self._predict_chunk(chunk, progress)
                yield head + self.file_format.format_rows(answers, columns), progress
                head = b""
                rate = (progress.rows - before) / max(time.monotonic() - began, 1e-9)
                work.update(progress.rows, f"{rate:,.0f} records/s")

    def _output_fields(self) -> tuple[str, ...]:
        name = self.model.task_name
        return OUTPUT_FIELDS[self.model.head] if name is None else self.model.task_type.prediction_fields

    def _predict_chunk(
        self, chunk: Sequence[Record | RejectedRow], progress: Progress
    ) -> tuple[list[dict[str, Any]], Progress]:
        """What is written for some rows, and how far it then is."""
        records = [row for row in chunk if isinstance(row, Record)]
        predictions = iter_predictions(self.model, records, self.generation_options, self.batch_size)
        written: list[dict[str, Any]] = []
        faults: list[str] = []
        for row in chunk:
            found = row if isinstance(row, RejectedRow) else next(predictions)
            if not isinstance(found, RejectedRow):
                written.append(found)
                continue
            if isinstance(row, Record):
                faults.append(f"{row.location}: {found.reason}")
            if self.on_bad == "keep":
                echoed = {} if isinstance(row, RejectedRow) else echo_fields(self.model, row)
                written.append({**echoed, "error": found.reason, "file": found.path, "line": found.line})
        return written, replace(
            progress,
            rows=progress.rows + len(chunk),
            num_predictions=progress.num_predictions + len(records) - len(faults),
            num_failed=progress.num_failed + len(faults),
            failures=[*progress.failures, *faults][: RecordLog.MAX_EXAMPLES],
        )


def iter_predictions(
    model: Model,
    records: Sequence[Record],
    generation_options: GenerationOptions,
    batch_size: int | None = None,
) -> Iterator[dict[str, Any] | RejectedRow]:
    """What the model says of each record, in order; where it has no answer to a text, why."""
    if model.task_name is not None:
        yield from _predict_task(model, records, batch_size)
        return
    for record in records:
        try:
            yield {
                **echo_fields(model, record),
                **_PREDICT_BY_HEAD[model.head](model, str(record.fields["text"]), generation_options),
            }
        except UsageError as error:
            yield RejectedRow(record.path, record.line, str(error))


def _predict_task(
    model: Model, records: Sequence[Record], batch_size: int | None
) -> Iterator[dict[str, Any] | RejectedRow]:
    task = model.build_task()
    try:
        found = model.predict(records, batch_size=batch_size)
    except DataError as error:
        if len(records) == 1:
            yield RejectedRow(records[0].path, records[0].line, str(error))
        else:  # one of them: they are asked again, each alone
            for record in records:
                yield from _predict_task(model, [record], batch_size)
        return
    for record, prediction in zip(records, found, strict=True):
        yield {**echo_fields(model, record), **task.row(record, prediction)}


def _fill_masks(model: Model, text: str, generation_options: GenerationOptions) -> dict[str, Any]:
    return {"masks": [[_filled_to_dict(guess) for guess in mask] for mask in model.fill(text)]}


def _filled_to_dict(filled: MaskPrediction) -> dict[str, Any]:
    return {"token": filled.token, "probability": round(filled.probability, 6)}


def _generate_continuation(model: Model, text: str, generation_options: GenerationOptions) -> dict[str, Any]:
    sampling = None
    if generation_options.temperature is not None:
        values = {
            **model.generation_config.sampling.model_dump(),
            "temperature": generation_options.temperature,
        }
        sampling = build_settings(Sampling, values, where="predict")
    written = model.generate(
        text,
        max_new_tokens=generation_options.max_new_tokens,
        sampling=sampling,
        seed=generation_options.seed,
    )
    return {"continuation": written}


_PREDICT_BY_HEAD = {
    "masked_lm": _fill_masks,
    "permutation_lm": _fill_masks,
    "causal_lm": _generate_continuation,
}


def _echoed_names(model: Model) -> tuple[str, ...]:
    return ECHOED_FIELDS if model.task_name is None else model.task_type.echoed_fields()


def echo_fields(model: Model, record: Record) -> dict[str, Any]:
    """What of a record is repeated beside its answer."""
    given = {key: record.fields[key] for key in _echoed_names(model) if record.fields.get(key) is not None}
    return {
        key: replace_surrogates(value) if isinstance(value, str) else value for key, value in given.items()
    }
