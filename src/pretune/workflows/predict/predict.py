"""Read records from a file, say what the model says of each, write the answers as they come."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from pretune.arguments import FilePath, PositiveInt, check_arguments
from pretune.data.sources.columns import input_fields
from pretune.errors import DataError, UsageError
from pretune.inference.output_format import FORMATS, OutputFormat
from pretune.model.model import Model
from pretune.runtime import atomic_files, device, lock
from pretune.runtime.progress import NullReporter, Reporter
from pretune.runtime.resumable_file import ResumableFile
from pretune.types import Record
from pretune.workflows.data_options import reading_for_model
from pretune.workflows.predict.job import (
    GenerationOptions,
    InputScan,
    OnBad,
    PredictionJob,
    Progress,
    RejectedRow,
    iter_predictions,
)

STDIO = "-"
"""As data: standard input. As out: standard output."""

__all__ = ["GenerationOptions", "predict", "predict_texts"]


@check_arguments
def predict(
    model: Model | FilePath,
    *,
    data: FilePath,
    out: FilePath,
    on_bad: OnBad = "skip",
    batch_size: PositiveInt | None = None,
    generation_options: GenerationOptions | None = None,
    overwrite: bool = False,
    columns: Mapping[str, str] | None = None,
    encoding: str | None = None,
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """Answer every record of ``data`` into ``out``, in their order; ``-`` stands for the streams.

    A fine-tuned model gives what its task answers; a masked model fills the masks in ``text``; a causal model
    continues it. ``out`` is JSON lines, or CSV by its suffix. It grows in a ``.partial`` file, renamed at the
    end; where one lies there of the same model, data and options, it is gone on with, to the same bytes.

    Args:
        model: a model or its folder.
        data: records, read as every verb reads them; twice, the first time to see what there is.
        out: the file for the answers.
        on_bad: ``skip`` leaves rows out that cannot be used, as all verbs do, and is an error where they are
            many; ``keep`` puts ``{"error": ...}`` in their place, so that answer i is that of row i.
        batch_size: rows that the network reads at once, at most; None: as many as fit.
        generation_options: how a causal model continues a text.
        overwrite: replace a file of that name that is there.
        columns: from which column a field is read, as ``{"text": "review"}``.
        encoding: of files that are neither UTF-8 nor marked otherwise; None: it is recognised.
        reporter: who is told how far it is.

    Raises:
        DataError: unusable data, or an output that cannot be written.
        UsageError: ``out`` is no file of a known kind, is there already, or was begun with something else.
        ConfigError: another process writes ``out``.
        CheckpointError: no model there, or a damaged one.
    """
    device.configure()
    reporter = reporter or NullReporter()
    file_format = _output_format(str(out))
    answer = partial(
        _predict, model, data, str(out), file_format, on_bad=on_bad, batch_size=batch_size,
        generation_options=generation_options,
        columns=columns, encoding=encoding, overwrite=overwrite, reporter=reporter,
    )  # fmt: skip
    if str(out) == STDIO:
        return answer()
    with lock.acquire(lock.lock_path(Path(out)), Path(out), DataError):
        atomic_files.check_file(Path(out), overwrite=overwrite)
        return answer()


def _predict(
    model: Model | str | Path,
    data: str | Path,
    out: str,
    file_format: OutputFormat,
    *,
    on_bad: OnBad,
    batch_size: int | None,
    generation_options: GenerationOptions | None,
    columns: Mapping[str, str] | None,
    encoding: str | None,
    overwrite: bool,
    reporter: Reporter,
) -> dict[str, Any]:
    loaded = model if isinstance(model, Model) else Model.load(model)
    _report_unused_settings(loaded, reporter)
    fields = (
        ["text"]
        if loaded.task_name is None
        else [field.name for field in input_fields(loaded.task_type.fields)]
    )
    reading = reading_for_model(loaded, columns, encoding, fields)
    job = PredictionJob(
        loaded, str(data), file_format, on_bad, batch_size, generation_options or GenerationOptions(), reading
    )
    scan = job.scan_input()
    if scan.log.has_notes:
        reporter.say(f"  {scan.log.summary()}")
    if out == STDIO:
        progress = Progress()
        for piece, reached in job.iter_chunks(scan, Progress(), reporter):
            progress = reached
            sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
        job.check_failures(scan, progress)
    else:
        progress = _write_file(Path(out), job, scan, overwrite, reporter)
    if progress.num_failed:
        reporter.say(f"  {progress.num_failed:,} records without an answer ({progress.failures[0]})")
    bad = scan.log.num_bad + progress.num_failed
    return {"verb": "predict", "records": progress.num_predictions, "bad": bad, "out": out}


def _report_unused_settings(model: Model, reporter: Reporter) -> None:
    unused = model.take_unused_settings() if model.head_use == "generate" else ""
    if unused:
        reporter.say(f"  {unused}")


def _write_file(
    out: Path, job: PredictionJob, scan: InputScan, overwrite: bool, reporter: Reporter
) -> Progress:
    identity = {**job.identity(), "data": scan.fingerprint}
    with closing(ResumableFile(out, identity, reporter.say, overwrite=overwrite)) as file:
        progress = Progress(**file.state)
        if progress.rows:
            reporter.say(f"  going on after {progress.rows:,} rows that are answered already")
        for piece, reached in job.iter_chunks(scan, progress, reporter):
            file.write(piece, asdict(reached))
            progress = reached
        try:
            job.check_failures(scan, progress)
        except DataError:
            file.discard()
            raise
        file.finish()
    return progress


def _output_format(out: str) -> OutputFormat:
    suffix = ".jsonl" if out == STDIO else Path(out).suffix.lower()
    if Path(out).is_dir():
        raise UsageError(f"{out}: is a folder; give the file that the answers go to")
    if suffix not in FORMATS:
        raise UsageError(f"{out}: answers are written as {' or '.join(FORMATS)}; give a name that ends so")
    return FORMATS[suffix]


@check_arguments
def predict_texts(
    model: Model | FilePath,
    texts: Iterable[str],
    *,
    pairs: Iterable[str] | None = None,
    generation_options: GenerationOptions | None = None,
    reporter: Reporter | None = None,
) -> list[dict[str, Any]]:
    """What ``model`` says of each text, or of each pair.

    Args:
        reporter: is told what of its generation_config.json is not done; None: Python's warnings tell it.

    Raises:
        UsageError: it has no answer to one, or texts and pairs do not pair up.
        DataError: a text that its task cannot use.
    """
    device.configure()
    loaded = model if isinstance(model, Model) else Model.load(model)
    if reporter is not None:
        _report_unused_settings(loaded, reporter)
    firsts = list(texts)
    seconds = [None] * len(firsts) if pairs is None else list(pairs)
    if len(seconds) != len(firsts):
        raise UsageError(f"{len(firsts)} texts and {len(seconds)} second texts do not pair up")
    rows = [(a,) if b is None else (a, b) for a, b in zip(firsts, seconds, strict=True)]
    found = []
    records = [_typed_record(loaded, row, number) for number, row in enumerate(rows, 1)]
    for answer in iter_predictions(loaded, records, generation_options or GenerationOptions()):
        if isinstance(answer, RejectedRow):
            raise UsageError(answer.reason)
        found.append(answer)
    empty = sum(answer.get("continuation") == "" for answer in found)
    if reporter is not None and empty:
        reporter.say(f"  {empty:,} of {len(found):,} continuations are empty: the model ended at once")
    return found


def _typed_record(model: Model, texts: tuple[str, ...], number: int) -> Record:
    """What was typed as a record, checked as one of a file would be."""
    if model.task_name is None:
        return Record({"text": texts[0]}, "text", number)
    task = model.task_type()
    try:
        return task.check_record(Record(task.from_texts(texts), "text", number))
    except DataError as error:
        raise DataError(f"text {number}: {error}") from None
