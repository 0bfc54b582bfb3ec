"""Fine-tune a pretrained model on labelled records, and test it once beside its baselines."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pydantic

from pretune.arguments import FilePath, check_arguments
from pretune.checkpoint import store
from pretune.config import Settings, build
from pretune.data.columns import check_names
from pretune.data.reading import Reading
from pretune.data.sources import RecordLog
from pretune.data.windows import EncodedRecords
from pretune.errors import ConfigError
from pretune.model import Model
from pretune.model.folder import outline
from pretune.objectives import DistillationSettings
from pretune.prediction.heads import BATCH_TOKENS
from pretune.registry import find
from pretune.training.length import Length, parse_length
from pretune.training.memory import Memory
from pretune.training.metrics_file import read_log
from pretune.training.outcome import Outcome
from pretune.training.progress import Reporter, Silent
from pretune.training.run import Run, environment
from pretune.training.settings import TrainingSettings
from pretune.training.steps import StepBatches
from pretune.training.trainer import Trainer
from pretune.training.world import World
from pretune.types import Prediction, Record, Score
from pretune.workflows import cards, findings, finetune_recipe, labelled, pages, teaching, verdicts
from pretune.workflows.evaluate import BaselineScores, Evaluation, assess, fit_baselines, read_labelled
from pretune.workflows.opening import RunResult, carried_out
from pretune.workflows.prediction_findings import Final, Origin

AUTO = "auto"
EVALUATIONS = 4
"""At most, where their number is not given: of more, one would be best by chance."""
BASELINES_SHARE = 0.1
"""Of a time, what fitting the baselines may take."""
MODEL_SECONDS = 2.0
"""To write the model and its predictions."""


class FinetuneSettings(Settings):
    """What ``finetune`` takes, from a YAML file, ``key=value`` and keywords alike."""

    model: str
    """A run, a model folder, or any Hugging Face folder of a family that pretune has."""
    train: tuple[str, ...]
    """Files of labelled records, with the fields of the task."""
    columns: dict[str, str] = pydantic.Field(default_factory=dict)
    """Field to the column that it is read from, where that is called otherwise: ``{text: review}``."""
    encoding: str | None = None
    """Of files that are neither UTF-8 nor marked otherwise; None: it is recognised."""
    validation: tuple[str, ...] = ()
    """None: a tenth of the training records."""
    test: tuple[str, ...] = ()
    """Scored once, at the end, beside the baselines."""
    task: str = "classification"
    """A module of ``pretune.tasks``."""
    task_options: dict[str, Any] = pydantic.Field(default_factory=dict)
    """The task's own settings; what is not given is filled in."""
    objective_options: dict[str, Any] = pydantic.Field(default_factory=dict)
    """Those of the objective that the task names."""
    distillation: DistillationSettings | None = None
    """A larger model, fine-tuned on the same labels, to learn from besides."""
    model_settings: dict[str, Any] = pydantic.Field(default_factory=dict)
    """The family's own settings that change no shape, such as hidden_dropout_prob."""
    max_length: int | None = pydantic.Field(default=None, ge=8)
    """Tokens read at once; None: as many as the model can."""
    from_random: bool = False
    """Forget the model's weights and begin from random ones: the control that shows what pretraining gave."""
    budget: str = AUTO
    """Epochs, steps, tokens, or minutes of wall-clock for the whole command; auto: 2 to 6 epochs, by how
    long the texts are."""
    baselines: bool = True
    """Fit majority and TF-IDF on the training records, to stand beside the scores."""
    training: TrainingSettings = TrainingSettings()
    """What is not given is chosen by the model's origin and size: ``finetune_recipe``."""
    language: str = "en"
    """Of the report: en or zh."""


@check_arguments
def finetune(
    model: Model | FilePath | None = None,
    *,
    settings: FinetuneSettings | Mapping[str, Any] | None = None,
    task: str | None = None,
    task_options: Mapping[str, Any] | None = None,
    objective_options: Mapping[str, Any] | None = None,
    train: FilePath | Sequence[FilePath] | None = None,
    validation: FilePath | Sequence[FilePath] | None = None,
    test: FilePath | Sequence[FilePath] | None = None,
    budget: str | None = None,
    max_length: int | None = None,
    columns: Mapping[str, str] | None = None,
    encoding: str | None = None,
    training: Mapping[str, Any] | None = None,
    language: str | None = None,
    out: FilePath | None = None,
    changes: FilePath | None = None,
    reporter: Reporter | None = None,
    started: float | None = None,
) -> RunResult:
    """Fine-tune ``model``; the same call goes on where a stopped one ended.

    ``changes`` is the ``plan.json`` of a run whose steps and changes in mid-run are to be made again.

    Raises:
        ConfigError: a setting that pretune does not take, or a run folder of other settings.
        DataError: records that cannot be used, one class only, a label that training never saw.
        CheckpointError: no model there, or a damaged one.
        Interrupted: a signal came; a checkpoint is saved and the same call goes on.
    """
    started = time.monotonic() if started is None else started
    given = {
        "model": _where(model), "task": task, "task_options": task_options,
        "objective_options": objective_options, "train": _paths(train), "validation": _paths(validation),
        "test": _paths(test), "budget": budget, "training": training, "max_length": max_length,
        "language": language, "columns": columns, "encoding": encoding,
    }  # fmt: skip
    resolved = resolve(settings, {k: v for k, v in given.items() if v is not None})
    work = partial(_finetuned, resolved, started)
    return carried_out(
        work, "finetune", resolved, resolved.train, out=out, changes=changes, reporter=reporter
    )


def _finetuned(
    resolved: FinetuneSettings, started: float, run: Run, world: World, reporter: Reporter
) -> Mapping[str, Any]:
    with world.in_turn(), run.starting():
        parts = _Finetuning(resolved, reporter, world)
        teaching.keep(parts.teacher, run)
    length = parts.length
    # Before training: what they take is then known, and a budget in minutes leaves the rest to the steps.
    world.lead(lambda: parts.fit_baselines(length))
    rows = min(BATCH_TOKENS, len(parts.validation))
    memory = Memory(run, "evaluation", rows, reporter.say, alone=world.size == 1)
    outcome = Trainer(
        keeper=parts.model,
        objective=parts.objective,
        batches=parts.batches,
        evaluate=lambda network, step: memory.fitted(step, partial(parts.evaluate, step)),
        settings=parts.training,
        length=length,
        run=run,
        reporter=reporter,
        started=started,
        most_evaluations=EVALUATIONS,
        evaluation_tokens=parts.validation_tokens,
        after=parts.after,
        name="finetune",
        world=world,
    ).train()
    rows = memory.rows(outcome.best_step)
    return world.lead(lambda: _concluded(run, resolved, parts, outcome, rows, reporter))


def _concluded(
    run: Run, resolved: FinetuneSettings, parts: _Finetuning, outcome: Outcome, rows: int, reporter: Reporter
) -> dict[str, Any]:
    """Test, and everything that is written once training has ended; the summary."""
    held_out = parts.settle(outcome.best_step, rows)
    evaluation = assess(
        parts.model,
        parts.scored,
        parts.baselines,
        predictions=None if parts.test else held_out,
    )
    summary = {
        "verb": "finetune",
        "task": resolved.task,
        "family": parts.model.family.__name__.rsplit(".", 1)[-1],
        "from_random": resolved.from_random,
        **teaching.told(parts.teacher),
        "labels": list(parts.model.labels),
        "pairs": any(len(parts.kind.texts(record)) > 1 for record in parts.train),
        "task_options": parts.model.about["task_options"],
        "parameters": parts.model.parameters,
        "steps": outcome.steps,
        "best_step": outcome.best_step,
        "seconds": round(outcome.seconds, 1),
        "batch_examples": parts.training.batch_examples,
        "train": len(parts.train),
        "validation": {"n": len(parts.validation), **outcome.scores},
        "scored_on": "test" if parts.test else "validation",
        **evaluation.summary(),
        **verdicts.concluded(
            run, outcome, resolved.training.patience, resolved.language, reporter,
            Final(
                evaluation.findings("test" if parts.test else "validation"), evaluation.beats_majority,
                _origin(resolved),
            ),
        ),
    }  # fmt: skip
    _finish(run, resolved, parts.model, evaluation, summary)
    return summary


def _origin(settings: FinetuneSettings) -> Origin:
    """How the model was trained, for the cause of a constant prediction."""
    usual = finetune_recipe.training(outline(settings.model), from_random=settings.from_random)
    return Origin(usual["optimizer"]["learning_rate"], settings.task_options.get("threshold"))


def resolve(
    settings: FinetuneSettings | Mapping[str, Any] | None, given: Mapping[str, Any]
) -> FinetuneSettings:
    """The settings with keywords laid over them, checked.

    Raises:
        ConfigError: names the wrong key or value.
    """
    # What was left out is not given: the model decides it.
    if isinstance(settings, FinetuneSettings):
        settings = settings.model_dump(exclude_unset=True)
    values = dict(settings or {}) | dict(given)
    if isinstance(values.get("training"), TrainingSettings):
        values["training"] = values["training"].model_dump(exclude_unset=True)
    # A key that is missing is named before the model is opened.
    if values.get("model") and values.get("train") and isinstance(values.get("training", {}), Mapping):
        values = finetune_recipe.completed(values, outline(str(values["model"])))
    for key in ("train", "validation", "test"):
        if isinstance(values.get(key), str | Path):
            values[key] = (str(values[key]),)
    resolved = build(FinetuneSettings, values, where="finetune")
    if not resolved.train:
        raise ConfigError("finetune: train is empty: give files of labelled records")
    pages.check_language(resolved.language)
    if resolved.budget != AUTO:
        parse_length(resolved.budget)
    kind = find("tasks", resolved.task)
    check_names(resolved.columns, [field.name for field in kind.FIELDS], "finetune")
    Reading(resolved.columns, resolved.encoding)  # refuses an encoding that there is none of
    options = build(kind.Options, resolved.task_options, where="finetune: task_options")
    objective = build(
        find("objectives", kind.OBJECTIVE).Options,
        resolved.objective_options,
        where="finetune: objective_options",
    )
    if resolved.distillation is not None:
        teaching.check(resolved.distillation, outline(resolved.model).config, resolved.training)
    return resolved.model_copy(
        update={"task_options": options.model_dump(), "objective_options": objective.model_dump()}
    )


def rehearse(settings: FinetuneSettings, reporter: Reporter | None = None) -> dict[str, Any]:
    """Read the model and the records, check them, and say what would be done; nothing is written.

    What was skipped and what the columns are goes to ``reporter``.
    """
    parts = _Finetuning(settings, reporter or Silent(), World())
    length, batches = parts.length, parts.batches
    steps = {}
    if length.unit != "seconds":
        steps = {"steps": length.steps(batches.steps_per_epoch, batches.tokens_per_step)}
    return {
        "model": settings.model,
        "parameters": parts.model.parameters,
        "labels": ", ".join(parts.model.labels),
        "train": len(parts.train),
        "validation": len(parts.validation),
        "test": len(parts.test),
        "length": str(length),
        **steps,
    }


class _Finetuning:
    """The parts of one fine-tuning run, made from settings and records alone."""

    def __init__(self, settings: FinetuneSettings, reporter: Reporter, world: World) -> None:
        self.settings, self.reporter = settings, reporter
        self.kind = kind = find("tasks", settings.task)
        self.options = build(kind.Options, settings.task_options, where="finetune: task_options")
        reading, log = Reading(settings.columns, settings.encoding), RecordLog()
        read = partial(read_labelled, reporter=reporter, task=settings.task, reading=reading)
        self.train = read(settings.train, log=log)
        self.columns = log.columns
        self.test = read(settings.test) if settings.test else []
        if settings.validation:
            self.validation = read(settings.validation)
        else:
            self.train, self.validation = labelled.held_out(self.train, kind)
        labels = kind.label_set(self.train)
        self.model = self._load(labels)
        self.task = self.model.task(self.options)
        self.task.check(self.validation)
        self.task.check(self.test)
        self._warn_of_overlap()
        labelled.warn_of_shared_texts(
            kind, self.train, {"validation": self.validation, "test": self.test}, reporter
        )
        absent = set(labels).difference(*(kind.classes(r) for r in self.validation))
        if absent:
            reporter.say(
                f"  mind: the validation records, which choose the checkpoint, hold no {sorted(absent)}"
            )
        features = [f for i, r in enumerate(self.train) for f in self.task.encode(r, i, self.model.tokenizer)]
        self.training = self._sized(settings.training)
        records = EncodedRecords(features)
        traits, objective = self.model.family.TRAITS, find("objectives", kind.OBJECTIVE)
        options = build(objective.Options, settings.objective_options, where="finetune: objective_options")
        student = teaching.Student.of(self.model, world)
        self.teacher = teaching.Teacher.named(settings.distillation, student, reporter)
        made = objective.Objective(traits, self.model.tokenizer.specials, options, records)
        self.objective = teaching.beside(self.teacher, made)
        self.batches = StepBatches(
            records, self.objective, traits, self.training, self.model.max_length, world
        )

        self._say_long_texts(len(features))
        self.baselines: BaselineScores = {}
        self._latest: tuple[int, list[Prediction]] | None = None
        """The step of the latest evaluation and what it predicted: mostly that of the best weights."""

    def _sized(self, training: TrainingSettings) -> TrainingSettings:
        """The settings of training with the size of a step."""
        if training.batch_examples or training.batch_tokens:
            return training
        own = finetune_recipe.is_own(outline(self.settings.model), from_random=self.settings.from_random)
        size = finetune_recipe.batch_examples(len(self.train), own=own)
        return training.model_copy(update={"batch_examples": size})

    @property
    def length(self) -> Length:
        """How long to train: as the settings say, or by the number of records and how long they are."""
        if self.settings.budget != AUTO:
            return parse_length(self.settings.budget)
        tokens = self.batches.steps_per_epoch * self.batches.tokens_per_step
        return Length(finetune_recipe.epochs(len(self.train), tokens), "epochs")

    @property
    def scored(self) -> list[Record]:
        """The records that the summary's scores are of."""
        return self.test or self.validation

    @property
    def validation_tokens(self) -> float:
        """Tokens of the validation records, about: as many a record as in training."""
        epoch = self.batches.steps_per_epoch * self.batches.tokens_per_step
        return epoch * len(self.validation) / max(1, len(self.train))

    def fit_baselines(self, length: Length) -> None:
        """Fit and score what stands beside the model; of a length in minutes a tenth is theirs."""
        if not self.settings.baselines:
            return
        seconds = BASELINES_SHARE * length.amount if length.unit == "seconds" else None
        self.baselines = fit_baselines(
            self.task, self.settings.task, self.train, self.scored, seconds=seconds
        )

    def after(self, evaluation: float) -> dict[str, float]:
        """What is done once training has ended, in seconds, from those of an evaluation and its intervals."""
        share = len(self.scored) / len(self.validation)
        return {
            "test" if self.test else "validation": share * evaluation,
            "model and predictions": MODEL_SECONDS,
        }

    def evaluate(self, step: int, rows: int) -> list[Score]:
        """The task's scores on the validation records, so many rows at once; the first decides."""
        predictions = self.model.predict(self.validation, self.options, batch_size=rows)
        self._latest = step, predictions
        _, decided = self.task.tuned(predictions, self.validation)
        scores: list[Score] = self.task.score(decided, self.validation)
        return scores

    def settle(self, step: int, rows: int) -> list[Prediction] | None:
        """What the model, of ``step`` now, says of the validation records; None where nobody asks.

        What those choose of the task's options is kept with the model.
        """
        if self.test and not self.task.tunes:
            return None
        if self._latest is None or self._latest[0] != step:
            self.evaluate(step, rows)
        assert self._latest is not None
        options, decided = self.task.tuned(self._latest[1], self.validation)
        if self.task.tunes:
            self.model.about["task_options"] = options.model_dump()
            changed = {
                k: v for k, v in options.model_dump().items() if v != self.settings.task_options.get(k)
            }
            self.reporter.say(f"  chosen on the validation records: {changed}")
        return list(decided)

    def _say_long_texts(self, features: int) -> None:
        """Say what becomes of texts that are longer than the model reads at once."""
        longest = self.model.max_length
        if features > len(self.train):
            self.reporter.say(
                f"  some texts are longer than {longest} tokens: {len(self.train):,} texts are read in "
                f"{features:,} windows"
            )
            return
        full = int((self.batches.bounds >= longest).sum())
        if full and self.options.long_texts != "windows":
            self.reporter.say(
                f"  {full:,} of {len(self.train):,} training texts are read up to {longest} tokens; "
                "max_length=N reads more of them, task_options.long_texts=windows all"
            )

    def _load(self, labels: tuple[str, ...]) -> Model:
        settings = self.settings
        model = Model.load(
            Path(settings.model),
            head=self.kind.HEAD,
            labels=labels,
            settings=settings.model_settings,
            seed=settings.training.seed,
        )
        if model.dropped:
            self.reporter.say(f"  {settings.model}: {model.dropped}")
        if settings.max_length is not None:
            if settings.max_length > model.max_length:
                raise ConfigError(
                    f"finetune: max_length = {settings.max_length}: the model in {settings.model} reads "
                    f"{model.max_length} tokens at most; give that or less"
                )
            model.about["max_length"] = settings.max_length
        if settings.from_random:
            model = model.with_random_weights(settings.training.seed)
        model.about |= {"task": settings.task, "task_options": self.options.model_dump()}
        model.about.pop("columns", None)  # of the text that it was pretrained on
        named = {field: column for field, column in self.columns.items() if field != column}
        if named:
            model.about["columns"] = named
        return model

    def _warn_of_overlap(self) -> None:
        scored = self.test or self.validation
        if self.model.fingerprints is None:
            return
        seen = self.model.fingerprints.overlap(["\n".join(self.kind.texts(r)) for r in scored])
        if seen:
            self.reporter.say(
                f"  mind: {len(seen)} of the {len(scored)} texts that it will be scored on stand in the text "
                f"that it was pretrained on (first: {scored[seen[0]].where}); the scores may flatter it"
            )


def _finish(
    run: Run, settings: FinetuneSettings, model: Model, evaluation: Evaluation, summary: dict[str, Any]
) -> None:
    def fill(folder: Path) -> None:
        model.write(folder)
        (folder / "README.md").write_text(cards.finetuned(settings, summary), encoding="utf-8")

    store.write_folder(run.model, fill, about={"kind": "model"})
    lines = [json.dumps(row, ensure_ascii=False) for row in evaluation.rows()]
    store.write_text(run.folder / "predictions.jsonl", "\n".join(lines) + "\n")
    pages.finetuning(
        run.folder / "report.html", settings, summary, read_log(run.metrics), evaluation,
        findings.against_baselines(settings.language, evaluation, summary), environment(),
        language=settings.language,
    )  # fmt: skip
    run.finish(summary)


def _where(model: Model | str | Path | None) -> str | None:
    if isinstance(model, Model):
        if model.path is None:
            raise ConfigError("finetune: save the model first (model.save(folder)) and give the folder")
        return str(model.path)
    return None if model is None else str(model)


def _paths(paths: FilePath | Sequence[FilePath] | None) -> tuple[str, ...] | None:
    if paths is None:
        return None
    return (str(paths),) if isinstance(paths, str | Path) else tuple(str(p) for p in paths)
