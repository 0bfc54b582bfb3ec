"""A model on the rows of a file: what it says of each, a chunk at a time, with how far it then is."""

from __future__ import annotations

import hashlib
import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pretune.config import build, digest
from pretune.data.sources.columns import unlabelled
from pretune.data.sources.read_options import Reading
from pretune.data.sources.records import RecordLog, read_records
from pretune.errors import DataError, UsageError
from pretune.generation.sampling import Sampling
from pretune.inference.fill_mask import Filled
from pretune.inference.output_format import FORMATS, Format
from pretune.model.model import Model
from pretune.runtime.progress import Reporter, working
from pretune.text.tokenizer import well_formed
from pretune.types import Record

CHUNK = 512
"""Rows that are read, answered and written at once: what bounds memory, and what a kill may cost."""
CHUNK_WRITTEN = 8
"""The same of a language model, whose answers take longer."""
FIELDS = ("id", "text", "text_pair")
"""What is repeated of a record beside its answer."""
ANSWERS = {"masked_lm": ("masks",), "permutation_lm": ("masks",), "causal_lm": ("continuation",)}
"""The fields of a language model's answers."""

OnBad = Literal["skip", "keep"]


@dataclass(frozen=True, slots=True)
class Writing:
    """How a causal model continues a text; what is None is decided by the model."""

    max_new_tokens: int | None = None
    temperature: float | None = None
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Bad:
    """A row that cannot be used."""

    path: str
    line: int
    reason: str


@dataclass(frozen=True, slots=True)
class Tally:
    """How far it is."""

    rows: int = 0
    """Rows of the data that are dealt with, bad ones among them."""
    answered: int = 0
    unanswered: int = 0
    """Records that could be read, but that the model has no answer to."""
    examples: list[str] = field(default_factory=list)
    """The first of these."""


@dataclass(frozen=True, slots=True)
class Survey:
    """What a first reading of the data finds, before any work is spent on it."""

    log: RecordLog
    rows: int
    fields: tuple[str, ...]
    """Those of ``FIELDS`` that occur."""
    fingerprint: str


class Listening(RecordLog):
    """A log that also hands each rejected row on, where it stands among the others."""

    def __init__(self) -> None:
        super().__init__()
        self._heard: list[Bad] = []

    def reject(self, path: Path | str, line: int, reason: str) -> None:
        """Count a bad record, and keep it for :meth:`heard`."""
        super().reject(path, line, reason)
        self._heard.append(Bad(str(path), line, reason))

    def heard(self) -> list[Bad]:
        """What was rejected since the last call."""
        heard, self._heard = self._heard, []
        return heard


@dataclass(frozen=True)
class Job:
    """A model on a file of records."""

    model: Model
    data: str
    form: Format
    on_bad: OnBad
    batch_size: int | None
    writing: Writing
    reading: Reading = field(default_factory=Reading)

    def rows(self, log: Listening) -> Iterator[Record | Bad]:
        """The rows of the data in their order, bad ones in their places."""
        task = None if self.model.task_name is None else self.model.task_module
        fields = ("text",) if task is None else unlabelled(task.FIELDS)
        for record in read_records((self.data,), columns=fields, reading=self.reading, log=log):
            yield from log.heard()
            try:
                yield record if task is None else task.accepted(record, labelled=False)
            except DataError as error:
                log.good -= 1
                log.reject(record.path, record.line, str(error))
        yield from log.heard()

    def survey(self) -> Survey:
        """Read the data once.

        Raises:
            DataError: no good record, or, where bad ones are left out, too many of them.
        """
        log, content, rows = Listening(), hashlib.sha256(), 0
        found: dict[str, None] = {}
        for row in self.rows(log):
            rows += 1
            given = asdict(row) if isinstance(row, Bad) else _given(row)
            content.update(digest(given).encode())
            found |= dict.fromkeys(() if isinstance(row, Bad) else given)
        self._finish(log)
        return Survey(log, rows, tuple(f for f in FIELDS if f in found), content.hexdigest())

    def judge(self, survey: Survey, tally: Tally) -> None:
        """Whether enough records were answered.

        Raises:
            DataError: none, or, where bad ones are left out, too few.
        """
        if tally.unanswered:
            log = RecordLog()
            log.paths, log.good, log.bad = [self.data], tally.answered, survey.log.bad + tally.unanswered
            log.examples = tally.examples
            self._finish(log)

    def _finish(self, log: RecordLog) -> None:
        if self.on_bad == "keep" and log.good:
            return
        try:
            log.finish()
        except DataError as error:
            hint = "\nto answer the rest all the same: --on-bad keep" if log.good else ""
            raise DataError(f"{error}{hint}") from None

    def identity(self) -> dict[str, Any]:
        """All but the data that decides the answers."""
        return {
            "model": self.model.fingerprint,
            "on_bad": self.on_bad,
            "batch_size": self.batch_size,
            "reading": asdict(self.reading),
            "writing": asdict(self.writing) if self.model.task_name is None else None,
            "format": next(suffix for suffix, form in FORMATS.items() if form is self.form),
        }

    def pieces(self, survey: Survey, tally: Tally, reporter: Reporter) -> Iterator[tuple[bytes, Tally]]:
        """The output from ``tally`` on, a chunk at a time, with how far it then is."""
        columns = (*survey.fields, *self._fields(), *(("error", "file", "line") * (self.on_bad == "keep")))
        size = CHUNK_WRITTEN if self.model.task_name is None else CHUNK
        stream = itertools.islice(self.rows(Listening()), tally.rows, None)
        before, began = tally.rows, time.monotonic()
        head = b"" if tally.rows else self.form.head(columns)
        with working(reporter, "predict", survey.rows) as work:
            while chunk := list(itertools.islice(stream, size)):
                answers, tally = self._answered(chunk, tally)
                yield head + self.form.body(answers, columns), tally
                head = b""
                rate = (tally.rows - before) / max(time.monotonic() - began, 1e-9)
                work.update(tally.rows, f"{rate:,.0f} records/s")

    def _fields(self) -> tuple[str, ...]:
        name = self.model.task_name
        return ANSWERS[self.model.head] if name is None else tuple(self.model.task_module.ANSWER_FIELDS)

    def _answered(self, chunk: Sequence[Record | Bad], tally: Tally) -> tuple[list[dict[str, Any]], Tally]:
        """What is written for some rows, and how far it then is."""
        records = [row for row in chunk if isinstance(row, Record)]
        said = answers(self.model, records, self.writing, self.batch_size)
        written: list[dict[str, Any]] = []
        faults: list[str] = []
        for row in chunk:
            found = row if isinstance(row, Bad) else next(said)
            if not isinstance(found, Bad):
                written.append(found)
                continue
            if isinstance(row, Record):
                faults.append(f"{row.where}: {found.reason}")
            if self.on_bad == "keep":
                given = {} if isinstance(row, Bad) else _given(row)
                written.append({**given, "error": found.reason, "file": found.path, "line": found.line})
        return written, replace(
            tally,
            rows=tally.rows + len(chunk),
            answered=tally.answered + len(records) - len(faults),
            unanswered=tally.unanswered + len(faults),
            examples=[*tally.examples, *faults][: RecordLog.EXAMPLES],
        )


def answers(
    model: Model, records: Sequence[Record], writing: Writing, batch_size: int | None = None
) -> Iterator[dict[str, Any] | Bad]:
    """What the model says of each record, in order; where it has no answer to a text, why."""
    if model.task_name is not None:
        yield from _labelled(model, records, batch_size)
        return
    for record in records:
        try:
            yield {**_given(record), **_USES[model.head](model, str(record.fields["text"]), writing)}
        except UsageError as error:
            yield Bad(record.path, record.line, str(error))


def _labelled(
    model: Model, records: Sequence[Record], batch_size: int | None
) -> Iterator[dict[str, Any] | Bad]:
    answer = model.task_module.answer
    try:
        found = model.predict(records, batch_size=batch_size)
    except DataError as error:
        if len(records) == 1:
            yield Bad(records[0].path, records[0].line, str(error))
        else:  # one of them: they are asked again, each alone
            for record in records:
                yield from _labelled(model, [record], batch_size)
        return
    for record, said in zip(records, found, strict=True):
        yield {**_given(record), **answer(said)}


def _filled(model: Model, text: str, writing: Writing) -> dict[str, Any]:
    return {"masks": [[_guess(guess) for guess in mask] for mask in model.fill(text)]}


def _guess(guess: Filled) -> dict[str, Any]:
    return {"token": guess.token, "probability": round(guess.probability, 6)}


def _continued(model: Model, text: str, writing: Writing) -> dict[str, Any]:
    sampling = None
    if writing.temperature is not None:
        values = {**model.defaults.sampling.model_dump(), "temperature": writing.temperature}
        sampling = build(Sampling, values, where="predict")
    written = model.generate(
        text, max_new_tokens=writing.max_new_tokens, sampling=sampling, seed=writing.seed
    )
    return {"continuation": written}


_USES = {"masked_lm": _filled, "permutation_lm": _filled, "causal_lm": _continued}


def _given(record: Record) -> dict[str, Any]:
    given = {key: record.fields[key] for key in FIELDS if record.fields.get(key) is not None}
    return {key: well_formed(value) if isinstance(value, str) else value for key, value in given.items()}
