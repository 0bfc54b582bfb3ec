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
from pretune.data.corpus.pairs import pair_separator_id
from pretune.data.corpus.token_shards import join_texts, write_corpus
from pretune.data.sources.read_options import ReadOptions
from pretune.data.sources.records import RecordLog, read_records
from pretune.errors import CheckpointError, DataError, NonFiniteError, UnsupportedError
from pretune.evaluation.language_model import HeldOutSet
from pretune.evaluation.mistakes import Mistake, Slice, accuracy_by_length, confident_mistakes
from pretune.metrics.by_class import ClassReport
from pretune.model.model import Model
from pretune.model.nonfinite import explain_non_finite
from pretune.objectives import ObjectiveSpec, default_objective, parse_objective
from pretune.registry import find
from pretune.report.diagnostics import Finding
from pretune.runtime import atomic_files, device, state_file
from pretune.runtime.progress import NullReporter, Reporter
from pretune.types import Prediction, Record, Score
from pretune.workflows import verdicts
from pretune.workflows.data_options import reading_for_model
from pretune.workflows.prediction_findings import diagnose_predictions


@dataclass(frozen=True)
class Evaluation:
    """A model on a task's labelled records."""

    task: str
    records: Sequence[Record]
    predictions: Sequence[Prediction]
    references: Sequence[Any]
    """The true value of each record."""
    scores: list[Score]
    """The first decides."""
    baselines: dict[str, tuple[Baseline, list[Score]]] = field(default_factory=dict)
    class_report: ClassReport | None = None
    """Scores by class, of a task that has classes."""
    mistakes: list[Mistake] = field(default_factory=list)
    slices: list[Slice] = field(default_factory=list)
    overlap: int | None = None
    """Texts that stand in the model's pretraining text; None where that is not known."""
    num_overlap_checked: int = 0
    """Texts that were long enough to be looked up there."""

    @property
    def correct(self) -> list[bool]:
        """Whether the model is wholly right about each record."""
        return self.match(p.value for p in self.predictions)

    def match(self, predicted: Iterable[Any]) -> list[bool]:
        """Whether each of these values is the true one."""
        return [value == true for value, true in zip(predicted, self.references, strict=True)]

    @property
    def beats_majority(self) -> bool:
        """Whether more records are wholly right than one answer for all would get right."""
        return sum(self.correct) > max(Counter(self.references).values(), default=0)

    def findings(self, split: str = "") -> tuple[Finding, ...]:
        """What the predictions show before all else; ``split``: ``test`` or ``validation``, if known."""
        values = [p.value for p in self.predictions]
        return diagnose_predictions(self.task, values, self.references, self.records, split)

    @property
    def record_metric(self) -> str:
        """The name of the score that is the mean of :attr:`correct`."""
        return str(find("tasks", self.task).RECORD_METRIC)

    def summary(self) -> dict[str, Any]:
        """Scores, baselines and overlap, as they stand in summary.json."""
        return {
            "n": len(self.records),
            "scores": {s.name: s.to_dict() for s in self.scores},
            **(self.class_report.as_dict() if self.class_report else {}),
            "baselines": {
                name: {"description": baseline.description, **{s.name: s.to_dict() for s in scores}}
                for name, (baseline, scores) in self.baselines.items()
            },
            "pretraining_overlap": self.overlap,
        }

    def prediction_rows(self) -> list[dict[str, Any]]:
        """One row a record: what was said, what is true, how sure, and the probability of every label."""
        task = find("tasks", self.task)
        return [
            {
                **{key: r.fields[key] for key in ("text", "text_pair") if r.fields.get(key) is not None},
                task.PREDICTION_FIELD: true,
                "said": p.value,
                "confidence": p.confidence,
                "probabilities": {label: round(x, 6) for label, x in task.probabilities(p).items()},
            }
            for r, true, p in zip(self.records, self.references, self.predictions, strict=True)
        ]


BaselineScores = dict[str, tuple[Baseline, list[Score]]]
"""Of each baseline by its name: what it says of some records, and its scores."""


def fit_baselines(
    task: Any,
    task_name: str,
    train: Sequence[Record],
    records: Sequence[Record],
    *,
    max_seconds: float | None = None,
) -> BaselineScores:
    """The baselines of a task, fitted on ``train`` and scored on ``records``.

    Args:
        task: as made for the labels of ``train``.
        task_name: of the task.
        max_seconds: that fitting may take, about; training records evenly apart are left out for it, and the
            descriptions say so. None: as long as it takes.
    """
    fit = find("evaluation", find("tasks", task_name).BASELINES).baselines
    used = train if max_seconds is None else _subsample_for_time(train, records, fit, max_seconds)
    found: BaselineScores = {}
    for key, baseline in fit(used, records).items():
        if len(used) < len(train):
            description = (
                f"{baseline.description}, fitted on {len(used):,} of {len(train):,} training records"
            )
            baseline = replace(baseline, description=description)
        predictions = [Prediction(number, value) for number, value in enumerate(baseline.predictions)]
        found[key] = (baseline, task.score(predictions, records))
    return found


TIMING_RECORDS = 300
"""Training records that the baselines are fitted on to see how long more of them take."""


def _subsample_for_time(
    train: Sequence[Record], records: Sequence[Record], fit: Callable[..., Any], max_seconds: float
) -> Sequence[Record]:
    """As many of the training records as the baselines can be fitted on in ``max_seconds``."""
    if len(train) <= TIMING_RECORDS:
        return train
    began = time.monotonic()
    try:
        fit(_subsample_evenly(train, TIMING_RECORDS), records[:1])
    except DataError:  # so few records may hold one class only
        return train
    spent = time.monotonic() - began
    return _subsample_evenly(train, max(TIMING_RECORDS, int(TIMING_RECORDS * (max_seconds - spent) / spent)))


def _subsample_evenly(records: Sequence[Record], max_records: int) -> Sequence[Record]:
    """At most so many of the records, evenly apart."""
    if len(records) <= max_records:
        return records
    return [records[i * len(records) // max_records] for i in range(max_records)]


def evaluate_records(
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
    task_module, task = model.task_module, model.build_task(options)
    predictions = model.predict(records, options) if predictions is None else predictions
    truth = [task_module.reference(r) for r in records]
    texts = ["\n".join(task_module.get_texts(r)) for r in records]
    correct = [p.value == t for p, t in zip(predictions, truth, strict=True)]
    return Evaluation(
        str(model.task_name), records, predictions, truth, task.score(predictions, records), baselines,
        task.by_class(predictions, records), confident_mistakes(records, predictions, truth, k=10),
        accuracy_by_length(correct, [len(t) for t in texts]),
        len(model.fingerprints.find_overlapping(texts)) if model.fingerprints is not None else None,
        model.fingerprints.count_checkable(texts) if model.fingerprints is not None else 0,
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
    device.configure()
    reporter = reporter or NullReporter()
    if out is not None:
        atomic_files.check_file(Path(out), overwrite=overwrite or _is_evaluation_file(Path(out)))
    loaded = model if isinstance(model, Model) else Model.load(model)
    if task is not None and task not in (loaded.head, loaded.task_name):
        raise UnsupportedError(
            f"{loaded.path}: the model has a {loaded.head!r} head and cannot be scored on {task!r}; "
            "fine-tune it on that task first, or leave the task out"
        )
    if loaded.task_name is not None:
        name = loaded.task_name
        fields = loaded.task_module.FIELDS
        reading = reading_for_model(loaded, columns, encoding, [field.name for field in fields])
        records = read_labelled((data,), reporter, name, reading=reading)
        loaded.build_task().check_labels(records)
        train_records = None if train is None else read_labelled((train,), reporter, name, reading=reading)
        if train_records is not None:
            loaded.build_task().check_labels(train_records)
        baselines = (
            {} if train_records is None else fit_baselines(loaded.build_task(), name, train_records, records)
        )
        evaluation = evaluate_records(loaded, records, baselines)
        found = verdicts.findings_to_dicts("en", evaluation.findings())
        summary = {"verb": "evaluate", "task": name, **evaluation.summary(), "verdicts": found}
        if evaluation.overlap:
            reporter.say(
                f"  mind: {evaluation.overlap} of {len(records)} texts stand in the text that the model was "
                "pretrained on; the scores may flatter it"
            )
    else:
        reading = reading_for_model(loaded, columns, encoding, _pretraining_spec(loaded).columns)
        scored = _evaluate_language_model(loaded, str(data), reading, reporter)
        summary = {"verb": "evaluate", "task": loaded.head, **scored}
        with explain_non_finite(loaded.path, loaded.network):
            if not math.isfinite(summary["scores"]["loss"]["value"]):
                raise NonFiniteError("its loss is NaN or infinite")
    if out is not None:
        atomic_files.write_json(Path(out), summary)
    return summary


def _is_evaluation_file(path: Path) -> bool:
    """Is a file what an evaluation wrote?"""
    try:
        return (state_file.read_unverified(path, "") or {}).get("verb") == "evaluate"
    except CheckpointError:
        return False


def _evaluate_language_model(
    model: Model, data: str, reading: ReadOptions, reporter: Reporter
) -> dict[str, Any]:
    model.require_head(model.head)
    spec = _pretraining_spec(model)
    specials = model.tokenizer.specials
    log = RecordLog()
    found = read_records((data,), columns=spec.columns, read_options=reading, log=log)
    records = [[str(record.fields[column]) for column in spec.columns] for record in found]
    log.raise_if_too_many_bad()
    texts = [text for record in records for text in record]
    if log.has_notes:
        reporter.say(f"  {log.summary()}")
    with tempfile.TemporaryDirectory() as scratch:
        joint = pair_separator_id(spec.columns, specials)
        corpus = write_corpus(
            map(join_texts, records), model.tokenizer, Path(scratch) / "corpus", separator_id=joint
        )
        windows = spec.feature_store(corpus, specials, model.max_length)
        scores: list[Score] = []
        for name, objective in spec.evaluation_objectives(model.family.TRAITS, specials, windows).items():
            held_out = HeldOutSet(
                windows, objective, spec.ngram_contexts, model.tokenizer,
                max_tokens=2**62, max_length=model.max_length, every_token=spec.predicts_every_token,
                packing=model.family.TRAITS.supports_packing,
            )  # fmt: skip
            these = held_out.evaluate(model.network)
            scores += [replace(s, name=f"{name}_{s.name}") for s in these] if name else these
    overlap = None if model.fingerprints is None else len(model.fingerprints.find_overlapping(texts))
    if overlap:
        reporter.say(
            f"  mind: {overlap} of {len(texts)} texts stand in the text that the model was pretrained on"
        )
    return {
        "documents": len(records),
        "n": scores[0].n,
        "scores": {s.name: s.to_dict() for s in scores},
        "pretraining_overlap": overlap,
    }


def _pretraining_spec(model: Model) -> ObjectiveSpec:
    """The (first) objective of a language model: the one that it was pretrained by, if that is known."""
    spec = parse_objective(str(model.metadata.get("objective", model.head)).split("+")[0])
    return (
        spec
        if spec.is_supported_by(model.family.TRAITS)
        else parse_objective(default_objective(model.family))
    )


def read_labelled(
    paths: Sequence[str | Path],
    reporter: Reporter,
    task: str = "classification",
    *,
    reading: ReadOptions | None = None,
    log: RecordLog | None = None,
) -> list[Record]:
    """All records of labelled files that a task can use; what was left out is said."""
    task_module = find("tasks", task)
    log = RecordLog() if log is None else log
    records = []
    num_padded = 0
    for record in read_records(paths, columns=task_module.FIELDS, read_options=reading, log=log):
        try:
            records.append(task_module.parse(record))
            num_padded += _has_outer_whitespace(record.fields.get(task_module.PREDICTION_FIELD))
        except DataError as error:
            log.num_good -= 1
            log.reject(record.path, record.line, str(error))
    log.raise_if_too_many_bad()
    if log.has_notes:
        reporter.say(f"  {log.summary()}")
    if num_padded:
        reporter.say(f"  {num_padded:,} labels had white space around them, which was taken off")
    return records


def _has_outer_whitespace(label: Any) -> bool:
    return isinstance(label, str) and label != label.strip()
