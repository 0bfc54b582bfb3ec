"""Score a model on data it has not seen, beside baselines, with intervals."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pretune.arguments import FilePath, check_arguments
from pretune.checkpoint import store
from pretune.config import Settings
from pretune.data.pairs import joint_of
from pretune.data.shards import joined, write_corpus
from pretune.data.sources import RecordLog, read_records
from pretune.errors import DataError, UnsupportedError
from pretune.evaluation.baseline import Baseline
from pretune.evaluation.language_model import HeldOut
from pretune.evaluation.mistakes import Mistake, Slice, by_slice, most_confident
from pretune.model import Model
from pretune.objectives import Kind, objective_of, usual
from pretune.registry import find
from pretune.training import machine
from pretune.training.progress import Reporter, Silent
from pretune.types import Prediction, Record, Score


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
    def share(self) -> str:
        """The name of the score that is the mean of :attr:`correct`."""
        return str(find("tasks", self.task).PER_RECORD)

    def summary(self) -> dict[str, Any]:
        """Scores, baselines and overlap, as they stand in summary.json."""
        return {
            "n": len(self.records),
            "scores": {s.name: s.as_dict() for s in self.scores},
            "baselines": {
                name: {"description": baseline.description, **{s.name: s.as_dict() for s in scores}}
                for name, (baseline, scores) in self.baselines.items()
            },
            "pretraining_overlap": self.overlap,
        }

    def rows(self) -> list[dict[str, Any]]:
        """One row a record: what was said, what is true, how sure."""
        answer = find("tasks", self.task).ANSWER
        return [
            {
                **{key: r.fields[key] for key in ("text", "text_pair") if r.fields.get(key) is not None},
                answer: true,
                "said": p.value,
                "confidence": p.confidence,
            }
            for r, true, p in zip(self.records, self.truth, self.predictions, strict=True)
        ]


def assess(
    model: Model,
    records: Sequence[Record],
    train: Sequence[Record] | None,
    *,
    options: Settings | None = None,
    predictions: Sequence[Prediction] | None = None,
) -> Evaluation:
    """Scores of a model on its task's ``records``, beside baselines fitted on ``train``, if it is given.

    ``predictions``: what it says of the records, if that is known.
    """
    kind, task = model.task_module, model.task(options)
    predictions = model.predict(records, options) if predictions is None else predictions
    truth = [kind.truth(r) for r in records]
    texts = ["\n".join(kind.texts(r)) for r in records]
    fitted = {} if train is None else find("evaluation", kind.BASELINES).baselines(train, records)
    baselines = {}
    for name, baseline in fitted.items():
        said = [Prediction(number, value) for number, value in enumerate(baseline.predictions)]
        baselines[name] = (baseline, task.score(said, records))
    correct = [p.value == t for p, t in zip(predictions, truth, strict=True)]
    return Evaluation(
        str(model.task_name), records, predictions, truth, task.score(predictions, records), baselines,
        most_confident(records, predictions, truth, k=10),
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
    out: FilePath | None = None,
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """Score ``model`` on ``data``: a classifier on labelled records, a language model on raw text.

    With ``train``, the records that a classifier was trained on, majority and TF-IDF baselines stand beside.
    With ``out`` the summary is written there as JSON.

    Raises:
        DataError: unusable data, or a label that the model does not know.
        UnsupportedError: ``task`` is none that the model's head can do.
    """
    machine.prepare()
    reporter = reporter or Silent()
    loaded = model if isinstance(model, Model) else Model.load(model)
    if task is not None and task not in (loaded.head, loaded.task_name):
        raise UnsupportedError(
            f"{loaded.path}: the model has a {loaded.head!r} head and cannot be scored on {task!r}; "
            "fine-tune it on that task first, or leave the task out"
        )
    if loaded.task_name is not None:
        name = loaded.task_name
        records = read_labelled((data,), reporter, name)
        loaded.task().check(records)
        learnt = None if train is None else read_labelled((train,), reporter, name)
        if learnt is not None:
            loaded.task().check(learnt)
        evaluation = assess(loaded, records, learnt)
        summary = {"verb": "evaluate", "task": name, **evaluation.summary()}
        if evaluation.overlap:
            reporter.say(
                f"  mind: {evaluation.overlap} of {len(records)} texts stand in the text that the model was "
                "pretrained on; the scores may flatter it"
            )
    else:
        summary = {"verb": "evaluate", "task": loaded.head, **_language_model(loaded, str(data), reporter)}
    if out is not None:
        store.write_json(Path(out), summary)
    return summary


def _language_model(model: Model, data: str, reporter: Reporter) -> dict[str, Any]:
    model.needs(model.head)
    kind = _pretrained_by(model)
    specials = model.tokenizer.specials
    log = RecordLog()
    found = read_records((data,), columns=kind.columns, log=log)
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
    paths: Sequence[str | Path], reporter: Reporter, task: str = "classification"
) -> list[Record]:
    """All records of labelled files that a task can use; what was left out is said."""
    kind = find("tasks", task)
    log = RecordLog()
    records = []
    for record in read_records(paths, columns=kind.COLUMNS, log=log):
        try:
            records.append(kind.accepted(record))
        except DataError as error:
            log.good -= 1
            log.reject(record.path, record.line, str(error))
    log.finish()
    if log.remarkable:
        reporter.say(f"  {log.summary()}")
    return records
