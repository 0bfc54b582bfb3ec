"""Score a model on data it has not seen, beside baselines, with intervals."""

from __future__ import annotations

import math
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pretune.arguments import FilePath, check_arguments
from pretune.baselines.base import Baseline
from pretune.config import Settings
from pretune.data.corpus.pairs import joint_of
from pretune.data.corpus.token_shards import joined, write_corpus
from pretune.data.sources.read_options import Reading
from pretune.data.sources.records import RecordLog, read_records
from pretune.errors import CheckpointError, DataError, NotFiniteError, UnsupportedError
from pretune.evaluation.language_model import HeldOut
from pretune.evaluation.mistakes import Mistake, Slice, by_slice, most_confident
from pretune.metrics.by_class import ByClass
from pretune.model.model import Model
from pretune.model.nonfinite import naming
from pretune.objectives import Kind, objective_of, usual
from pretune.registry import find
from pretune.report.diagnostics import Finding
from pretune.runtime import atomic_files, device, state_file
from pretune.runtime.progress import Reporter, Silent
from pretune.types import Prediction, Record, Score
from pretune.workflows import verdicts
from pretune.workflows.data_options import reading_of
from pretune.workflows.prediction_findings import of_predictions


@dataclass(frozen=True)
class Evaluation:
    """A model on a task's labelled records."""

    task: str
    records: Sequence[Record]
    predictions: Sequence[Prediction]
    truth: Sequence[Any]
    """The true value of each record."""
    scores: list[Score]
    """The first decides."""
    baselines: dict[str, tuple[Baseline, list[Score]]] = field(default_factory=dict)
    classes: ByClass | None = None
    """Scores by class, of a task that has classes."""
    mistakes: list[Mistake] = field(default_factory=list)
    slices: list[Slice] = field(default_factory=list)
    overlap: int | None = None
    """Texts that stand in the model's pretraining text; None where that is not known."""
    judged: int = 0
    """Texts that were long enough to be looked up there."""

    @property
    def correct(self) -> list[bool]:
        """Whether the model is wholly right about each record."""
        return self.right(p.value for p in self.predictions)

    def right(self, said: Iterable[Any]) -> list[bool]:
        """Whether each of these values is the true one."""
        return [value == true for value, true in zip(said, self.truth, strict=True)]

    @property
    def beats_majority(self) -> bool:
        """Whether more records are wholly right than one answer for all would get right."""
        return sum(self.correct) > max(Counter(self.truth).values(), default=0)

    def findings(self, scored_on: str = "") -> tuple[Finding, ...]:
        """What the predictions show before all else; ``scored_on``: ``test`` or ``validation``, if known."""
        values = [p.value for p in self.predictions]
        return of_predictions(self.task, values, self.truth, self.records, scored_on)

    @property
    def share(self) -> str:
        """The name of the score that is the mean of :attr:`correct`."""
        return str(find("tasks", self.task).PER_RECORD)

    def summary(self) -> dict[str, Any]:
        """Scores, baselines and overlap, as they stand in summary.json."""
        return {
            "n": len(self.records),
            "scores": {s.name: s.as_dict() for s in self.scores},
            **(self.classes.as_dict() if self.classes else {}),
            "baselines": {
                name: {"description": baseline.description, **{s.name: s.as_dict() for s in scores}}
                for name, (baseline, scores) in self.baselines.items()
            },
            "pretraining_overlap": self.overlap,
        }

    def rows(self) -> list[dict[str, Any]]:
        """One row a record: what was said, what is true, how sure, and the probability of every label."""
        kind = find("tasks", self.task)
        return [
            {
                **{key: r.fields[key] for key in ("text", "text_pair") if r.fields.get(key) is not None},
                kind.ANSWER: true,
                "said": p.value,
                "confidence": p.confidence,
                "probabilities": {label: round(x, 6) for label, x in kind.probabilities(p).items()},
            }
            for r, true, p in zip(self.records, self.truth, self.predictions, strict=True)
        ]


BaselineScores = dict[str, tuple[Baseline, list[Score]]]
"""Of each baseline by its name: what it says of some records, and its scores."""


def fit_baselines(
    task: Any, name: str, train: Sequence[Record], records: Sequence[Record], *, seconds: float | None = None
) -> BaselineScores:
    """The baselines of a task, fitted on ``train`` and scored on ``records``.

    Args:
        task: as made for the labels of ``train``.
        name: of the task.
        seconds: that fitting may take, about; training records evenly apart are left out for it, and the
            descriptions say so. None: as long as it takes.
    """
    fit = find("evaluation", find("tasks", name).BASELINES).baselines
    used = train if seconds is None else _that_fit(train, records, fit, seconds)
    found: BaselineScores = {}
    for key, baseline in fit(used, records).items():
        if len(used) < len(train):
            said = f"{baseline.description}, fitted on {len(used):,} of {len(train):,} training records"
            baseline = replace(baseline, description=said)
        predictions = [Prediction(number, value) for number, value in enumerate(baseline.predictions)]
        found[key] = (baseline, task.score(predictions, records))
    return found


TRIED = 300
"""Training records that the baselines are fitted on to see how long more of them take."""


def _that_fit(
    train: Sequence[Record], records: Sequence[Record], fit: Callable[..., Any], seconds: float
) -> Sequence[Record]:
    """As many of the training records as the baselines can be fitted on in ``seconds``."""
    if len(train) <= TRIED:
        return train
    began = time.monotonic()
    try:
        fit(_evenly(train, TRIED), records[:1])
    except DataError:  # so few records may hold one class only
        return train
    spent = time.monotonic() - began
    return _evenly(train, max(TRIED, int(TRIED * (seconds - spent) / spent)))


def _evenly(records: Sequence[Record], most: int) -> Sequence[Record]:
    """At most so many of the records, evenly apart."""
    if len(records) <= most:
        return records
    return [records[i * len(records) // most] for i in range(most)]


def assess(
    model: Model,
    records: Sequence[Record],
    baselines: BaselineScores,
    *,
    options: Settings | None = None,
    predictions: Sequence[Prediction] | None = None,
) -> Evaluation:
    """Scores of a model on its task's ``records``, beside those of ``baselines``.

    ``predictions``: what it says of the records, if that is known.
    """
    kind, task = model.task_module, model.task(options)
    predictions = model.predict(records, options) if predictions is None else predictions
    truth = [kind.truth(r) for r in records]
    texts = ["\n".join(kind.texts(r)) for r in records]
    correct = [p.value == t for p, t in zip(predictions, truth, strict=True)]
    return Evaluation(
        str(model.task_name), records, predictions, truth, task.score(predictions, records), baselines,
        task.by_class(predictions, records), most_confident(records, predictions, truth, k=10),
        by_slice(correct, [len(t) for t in texts]),
        len(model.fingerprints.overlap(texts)) if model.fingerprints is not None else None,
        model.fingerprints.judged(texts) if model.fingerprints is not None else 0,
    )  # fmt: skip


@check_arguments
def evaluate(
    model: Model | FilePath,
    *,
    data: FilePath,
    task: str | None = None,
    train: FilePath | None = None,
    columns: Mapping[str, str] | None = None,
    encoding: str | None = None,
    out: FilePath | None = None,
    overwrite: bool = False,
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """Score ``model`` on ``data``: a classifier on labelled records, a language model on raw text.

    With ``train``, the records that a classifier was trained on, majority and TF-IDF baselines stand beside.
    ``columns`` says from which column a field is read, as ``{"text": "review"}``, ``encoding`` what files are
    in that are neither UTF-8 nor marked otherwise. With ``out`` the summary is written there as JSON.

    Raises:
        DataError: unusable data, or a label that the model does not know.
        CheckpointError: no model there, or a broken one, whose loss is no number.
        UsageError: ``out`` is there already and ``overwrite`` is not given.
        UnsupportedError: ``task`` is none that the model's head can do.
    """
    device.prepare()
    reporter = reporter or Silent()
    if out is not None:
        atomic_files.check_file(Path(out), overwrite=overwrite or _is_ours(Path(out)))
    loaded = model if isinstance(model, Model) else Model.load(model)
    if task is not None and task not in (loaded.head, loaded.task_name):
        raise UnsupportedError(
            f"{loaded.path}: the model has a {loaded.head!r} head and cannot be scored on {task!r}; "
            "fine-tune it on that task first, or leave the task out"
        )
    if loaded.task_name is not None:
        name = loaded.task_name
        fields = loaded.task_module.FIELDS
        reading = reading_of(loaded, columns, encoding, [field.name for field in fields])
        records = read_labelled((data,), reporter, name, reading=reading)
        loaded.task().check(records)
        learnt = None if train is None else read_labelled((train,), reporter, name, reading=reading)
        if learnt is not None:
            loaded.task().check(learnt)
        baselines = {} if learnt is None else fit_baselines(loaded.task(), name, learnt, records)
        evaluation = assess(loaded, records, baselines)
        found = verdicts.as_rows("en", evaluation.findings())
        summary = {"verb": "evaluate", "task": name, **evaluation.summary(), "verdicts": found}
        if evaluation.overlap:
            reporter.say(
                f"  mind: {evaluation.overlap} of {len(records)} texts stand in the text that the model was "
                "pretrained on; the scores may flatter it"
            )
    else:
        reading = reading_of(loaded, columns, encoding, _pretrained_by(loaded).columns)
        scored = _language_model(loaded, str(data), reading, reporter)
        summary = {"verb": "evaluate", "task": loaded.head, **scored}
        with naming(loaded.path, loaded.network):
            if not math.isfinite(summary["scores"]["loss"]["value"]):
                raise NotFiniteError("its loss is NaN or infinite")
    if out is not None:
        atomic_files.write_json(Path(out), summary)
    return summary


def _is_ours(path: Path) -> bool:
    """Is a file what an evaluation wrote?"""
    try:
        return (state_file.read_any(path, "") or {}).get("verb") == "evaluate"
    except CheckpointError:
        return False


def _language_model(model: Model, data: str, reading: Reading, reporter: Reporter) -> dict[str, Any]:
    model.needs(model.head)
    kind = _pretrained_by(model)
    specials = model.tokenizer.specials
    log = RecordLog()
    found = read_records((data,), columns=kind.columns, reading=reading, log=log)
    records = [[str(record.fields[column]) for column in kind.columns] for record in found]
    log.finish()
    texts = [text for record in records for text in record]
    if log.remarkable:
        reporter.say(f"  {log.summary()}")
    with tempfile.TemporaryDirectory() as scratch:
        joint = joint_of(kind.columns, specials)
        corpus = write_corpus(map(joined, records), model.tokenizer, Path(scratch) / "corpus", joint=joint)
        windows = kind.store(corpus, specials, model.max_length)
        scores: list[Score] = []
        for name, objective in kind.scorings(model.family.TRAITS, specials, windows).items():
            held = HeldOut(
                windows, objective, kind.contexts, model.tokenizer,
                max_tokens=2**62, max_length=model.max_length, every_token=kind.every_token,
                packing=model.family.TRAITS.packing,
            )  # fmt: skip
            these = held.scores(model.network)
            scores += [replace(s, name=f"{name}_{s.name}") for s in these] if name else these
    seen = None if model.fingerprints is None else len(model.fingerprints.overlap(texts))
    if seen:
        reporter.say(
            f"  mind: {seen} of {len(texts)} texts stand in the text that the model was pretrained on"
        )
    return {
        "documents": len(records),
        "n": scores[0].n,
        "scores": {s.name: s.as_dict() for s in scores},
        "pretraining_overlap": seen,
    }


def _pretrained_by(model: Model) -> Kind:
    """The (first) objective of a language model: the one that it was pretrained by, if that is known."""
    kind = objective_of(str(model.about.get("objective", model.head)).split("+")[0])
    return kind if kind.suits(model.family.TRAITS) else objective_of(usual(model.family))


def read_labelled(
    paths: Sequence[str | Path],
    reporter: Reporter,
    task: str = "classification",
    *,
    reading: Reading | None = None,
    log: RecordLog | None = None,
) -> list[Record]:
    """All records of labelled files that a task can use; what was left out is said."""
    kind = find("tasks", task)
    log = RecordLog() if log is None else log
    records = []
    padded = 0
    for record in read_records(paths, columns=kind.FIELDS, reading=reading, log=log):
        try:
            records.append(kind.accepted(record))
            padded += _is_padded(record.fields.get(kind.ANSWER))
        except DataError as error:
            log.good -= 1
            log.reject(record.path, record.line, str(error))
    log.finish()
    if log.remarkable:
        reporter.say(f"  {log.summary()}")
    if padded:
        reporter.say(f"  {padded:,} labels had white space around them, which was taken off")
    return records


def _is_padded(label: Any) -> bool:
    return isinstance(label, str) and label != label.strip()
