"""Score a model on data it has not seen, beside baselines, with intervals."""

from __future__ import annotations

import math
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
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
from pretune.evaluation.mistakes import Mistake, Slice, confident_mistakes, value_by_length
from pretune.metrics.base import Metric
from pretune.metrics.by_class import ClassReport
from pretune.metrics.statistics import PairedDifference, compare, metric_value
from pretune.model.model import Model
from pretune.model.nonfinite import explain_non_finite
from pretune.objectives import ObjectiveSpec, default_objective, parse_objective
from pretune.report.diagnostics import Finding
from pretune.runtime import atomic_files, device, state_file
from pretune.runtime.progress import NullReporter, Reporter
from pretune.tasks import DEFAULT_TASK, find_task
from pretune.tasks.base import Task
from pretune.types import Prediction, Record, Score
from pretune.workflows import verdicts
from pretune.workflows.data_options import reading_for_model
from pretune.workflows.prediction_findings import diagnose_predictions

BaselineScores = dict[str, tuple[Baseline, list[Score]]]
"""Of each baseline by its name: its values for some records, and their scores."""


@dataclass(frozen=True)
class Evaluation:
    """A model on a task's labelled records."""

    task_name: str
    task: Task
    records: Sequence[Record]
    predictions: Sequence[Prediction]
    references: Sequence[Any]
    """The true value of each record."""
    language: str
    """Of the records."""
    scores: list[Score]
    """The first decides."""
    baselines: BaselineScores = field(default_factory=dict)
    class_report: ClassReport | None = None
    """Scores by class, of a task that has classes."""
    mistakes: list[Mistake] = field(default_factory=list)
    """With values as a person reads them."""
    slices: list[Slice] = field(default_factory=list)
    """Of the deciding metric, by length."""
    overlap: int | None = None
    """Texts that stand in the model's pretraining text; None where that is not known."""
    num_overlap_checked: int = 0
    """Texts that were long enough to be looked up there."""

    @property
    def values(self) -> list[Any]:
        """The predicted value of each record."""
        return [p.value for p in self.predictions]

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The task's metrics for these records; the first decides."""
        return self.task.metrics(self.language)

    @property
    def metric(self) -> Metric:
        """The one that decides."""
        return self.metrics[0]

    def compare(self, values: Sequence[Any]) -> PairedDifference:
        """How much better the model is than other values for the same records, by the deciding metric."""
        return compare(self.metric, [self.values], [values], self.references)

    @property
    def beats_majority(self) -> bool:
        """Does it score above the most frequent true value, given for every record?"""
        counts = Counter(map(self.task.as_value, self.references))
        constant = [counts.most_common(1)[0][0]] * len(self.references)
        value = metric_value(self.metric, constant, self.references)
        return self.scores[0].is_better_than(value)

    def findings(self, split: str = "") -> tuple[Finding, ...]:
        """What the predictions show before all else; ``split``: ``test`` or ``validation``, if known."""
        return diagnose_predictions(self.task, self.values, self.references, split)

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
        task = self.task
        echoed = [f.name for f in task.fields if not f.is_label]
        return [
            {
                **{key: r.fields[key] for key in echoed if r.fields.get(key) is not None},
                task.reference_field: true,
                "prediction": p.value,
                "confidence": p.confidence,
                "probabilities": {label: round(x, 6) for label, x in task.probabilities(p).items()},
            }
            for r, true, p in zip(self.records, self.references, self.predictions, strict=True)
        ]


def fit_baselines(
    task: Task,
    train: Sequence[Record],
    records: Sequence[Record],
    *,
    max_seconds: float | None = None,
) -> BaselineScores:
    """The baselines of a task, fitted on ``train`` and scored on ``records``.

    Args:
        task: with the outputs that ``train`` decided.
        train: labelled records.
        records: other labelled records.
        max_seconds: that fitting may take, about; training records evenly apart are left out for it, and the
            descriptions say so. None: as long as it takes.
    """
    used = train if max_seconds is None else _subsample_for_time(train, records, task, max_seconds)
    found: BaselineScores = {}
    for baseline in task.baselines(used, records):
        if len(used) < len(train):
            description = (
                f"{baseline.description}, fitted on {len(used):,} of {len(train):,} training records"
            )
            baseline = replace(baseline, description=description)
        found[baseline.name] = (baseline, task.score_values(baseline.predictions, records))
    return found


TIMING_RECORDS = 300
"""Training records that the baselines are fitted on to see how long more of them take."""


def _subsample_for_time(
    train: Sequence[Record], records: Sequence[Record], task: Task, max_seconds: float
) -> Sequence[Record]:
    """As many of the training records as the baselines can be fitted on in ``max_seconds``."""
    if len(train) <= TIMING_RECORDS:
        return train
    began = time.monotonic()
    try:
        list(task.baselines(_subsample_evenly(train, TIMING_RECORDS), records[:1]))
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
    task = model.build_task(options)
    predictions = model.predict(records, options) if predictions is None else predictions
    references = [task.reference(r) for r in records]
    texts = ["\n".join(task.texts(r)) for r in records]
    values, language = [p.value for p in predictions], task.language(records)
    mistakes = confident_mistakes(records, predictions, references, k=10, is_correct=task.is_correct)
    return Evaluation(
        str(model.task_name), task, records, predictions, references, language,
        task.score(predictions, records), baselines, task.by_class(predictions, records),
        [_render_mistake(task, records[m.record_index], texts[m.record_index], m) for m in mistakes],
        value_by_length(task.metrics(language)[0], values, references, [len(t) for t in texts]),
        len(model.fingerprints.find_overlapping(texts)) if model.fingerprints is not None else None,
        model.fingerprints.count_checkable(texts) if model.fingerprints is not None else 0,
    )  # fmt: skip


def _render_mistake(task: Task, record: Record, text: str, mistake: Mistake) -> Mistake:
    """A mistake with its text and values as a person reads them."""
    reference = task.render(record, task.as_value(mistake.reference))
    return replace(mistake, text=text, predicted=task.render(record, mistake.predicted), reference=reference)


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
        name, bound = loaded.task_name, loaded.build_task()
        reading = reading_for_model(loaded, columns, encoding, [field.name for field in bound.fields])
        records = read_labelled((data,), reporter, name, reading=reading)
        bound.check(records)
        train_records = None if train is None else read_labelled((train,), reporter, name, reading=reading)
        if train_records is not None:
            bound.check(train_records)
        baselines = {} if train_records is None else fit_baselines(bound, train_records, records)
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
    task: str = DEFAULT_TASK,
    *,
    reading: ReadOptions | None = None,
    log: RecordLog | None = None,
) -> list[Record]:
    """All records of labelled files that a task can use; what was left out is said."""
    reader = find_task(task)()
    log = RecordLog() if log is None else log
    records = []
    num_padded = 0
    for record in read_records(paths, columns=reader.fields, read_options=reading, log=log):
        try:
            records.append(reader.parse_record(record))
            num_padded += _has_outer_whitespace(record.fields.get(reader.reference_field))
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
