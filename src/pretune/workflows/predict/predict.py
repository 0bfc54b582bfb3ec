"""Read records from a file, say what the model says of each, write the answers as they come."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from pretune.arguments import Count, FilePath, check_arguments
from pretune.data.sources.columns import unlabelled
from pretune.errors import DataError, UsageError
from pretune.inference.output_format import FORMATS, Format
from pretune.model.model import Model
from pretune.runtime import atomic_files, device, lock
from pretune.runtime.progress import Reporter, Silent
from pretune.runtime.resumable_file import Growing
from pretune.types import Record
from pretune.workflows.data_options import reading_of
from pretune.workflows.predict.job import Bad, Job, OnBad, Survey, Tally, Writing, answers

STREAM = "-"
"""As data: standard input. As out: standard output."""

__all__ = ["Writing", "predict", "predict_texts"]


@check_arguments
def predict(
    model: Model | FilePath,
    *,
    data: FilePath,
    out: FilePath,
    on_bad: OnBad = "skip",
    batch_size: Count | None = None,
    writing: Writing | None = None,
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
        writing: how a causal model continues a text.
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
    device.prepare()
    reporter = reporter or Silent()
    form = _format(str(out))
    answer = partial(
        _predicted, model, data, str(out), form, on_bad=on_bad, batch_size=batch_size, writing=writing,
        columns=columns, encoding=encoding, overwrite=overwrite, reporter=reporter,
    )  # fmt: skip
    if str(out) == STREAM:
        return answer()
    with lock.held(lock.beside(Path(out)), Path(out), DataError):
        atomic_files.check_file(Path(out), overwrite=overwrite)
        return answer()


def _predicted(
    model: Model | str | Path,
    data: str | Path,
    out: str,
    form: Format,
    *,
    on_bad: OnBad,
    batch_size: int | None,
    writing: Writing | None,
    columns: Mapping[str, str] | None,
    encoding: str | None,
    overwrite: bool,
    reporter: Reporter,
) -> dict[str, Any]:
    loaded = model if isinstance(model, Model) else Model.load(model)
    _say_unused(loaded, reporter)
    fields = (
        ["text"]
        if loaded.task_name is None
        else [field.name for field in unlabelled(loaded.task_module.FIELDS)]
    )
    reading = reading_of(loaded, columns, encoding, fields)
    job = Job(loaded, str(data), form, on_bad, batch_size, writing or Writing(), reading)
    survey = job.survey()
    if survey.log.remarkable:
        reporter.say(f"  {survey.log.summary()}")
    if out == STREAM:
        tally = Tally()
        for piece, reached in job.pieces(survey, Tally(), reporter):
            tally = reached
            sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
        job.judge(survey, tally)
    else:
        tally = _into(Path(out), job, survey, overwrite, reporter)
    if tally.unanswered:
        reporter.say(f"  {tally.unanswered:,} records without an answer ({tally.examples[0]})")
    bad = survey.log.bad + tally.unanswered
    return {"verb": "predict", "records": tally.answered, "bad": bad, "out": out}


def _say_unused(model: Model, reporter: Reporter) -> None:
    unused = model.unused_settings() if model.head == "causal_lm" else ""
    if unused:
        reporter.say(f"  {unused}")


def _into(out: Path, job: Job, survey: Survey, overwrite: bool, reporter: Reporter) -> Tally:
    identity = {**job.identity(), "data": survey.fingerprint}
    with closing(Growing(out, identity, reporter.say, overwrite=overwrite)) as file:
        tally = Tally(**file.state)
        if tally.rows:
            reporter.say(f"  going on after {tally.rows:,} rows that are answered already")
        for piece, reached in job.pieces(survey, tally, reporter):
            file.write(piece, asdict(reached))
            tally = reached
        try:
            job.judge(survey, tally)
        except DataError:
            file.discard()
            raise
        file.finish()
    return tally


def _format(out: str) -> Format:
    suffix = ".jsonl" if out == STREAM else Path(out).suffix.lower()
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
    writing: Writing | None = None,
    reporter: Reporter | None = None,
) -> list[dict[str, Any]]:
    """What ``model`` says of each text, or of each pair.

    Args:
        reporter: is told what of its generation_config.json is not done; None: Python's warnings tell it.

    Raises:
        UsageError: it has no answer to one, or texts and pairs do not pair up.
    """
    device.prepare()
    loaded = model if isinstance(model, Model) else Model.load(model)
    if reporter is not None:
        _say_unused(loaded, reporter)
    firsts = list(texts)
    seconds = [None] * len(firsts) if pairs is None else list(pairs)
    if len(seconds) != len(firsts):
        raise UsageError(f"{len(firsts)} texts and {len(seconds)} second texts do not pair up")
    both = zip(firsts, seconds, strict=True)
    fields = [{"text": a} if b is None else {"text": a, "text_pair": b} for a, b in both]
    found = []
    records = [Record(row, "text", number) for number, row in enumerate(fields, 1)]
    for answer in answers(loaded, records, writing or Writing()):
        if isinstance(answer, Bad):
            raise UsageError(answer.reason)
        found.append(answer)
    empty = sum(answer.get("continuation") == "" for answer in found)
    if reporter is not None and empty:
        reporter.say(f"  {empty:,} of {len(found):,} continuations are empty: the model ended at once")
    return found
