"""The parts of a fine-tuning run: model, records, batches and what stands beside the model."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from pretune.config import build
from pretune.data.corpus.windows import EncodedRecords
from pretune.data.sources.read_options import Reading
from pretune.data.sources.records import RecordLog
from pretune.errors import ConfigError
from pretune.model.folder import outline
from pretune.model.model import Model
from pretune.registry import find
from pretune.runtime.distributed import World
from pretune.runtime.progress import Reporter
from pretune.training.dataloader import StepBatches
from pretune.training.duration import Length, parse_length
from pretune.training.settings import TrainingSettings
from pretune.types import Prediction, Record, Score
from pretune.workflows import distillation, labeled_records
from pretune.workflows.evaluate import BaselineScores, fit_baselines, read_labelled
from pretune.workflows.finetune import recipe
from pretune.workflows.finetune.settings import AUTO, FinetuneSettings

BASELINES_SHARE = 0.1
"""Of a time, what fitting the baselines may take."""
MODEL_SECONDS = 2.0
"""To write the model and its predictions."""


class Finetuning:
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
            self.train, self.validation = labeled_records.held_out(self.train, kind)
        labels = kind.label_set(self.train)
        self.model = self._load(labels)
        self.task = self.model.task(self.options)
        self.task.check(self.validation)
        self.task.check(self.test)
        self._warn_of_overlap()
        labeled_records.warn_of_shared_texts(
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
        student = distillation.Student.of(self.model, world)
        self.teacher = distillation.Teacher.named(settings.distillation, student, reporter)
        made = objective.Objective(traits, self.model.tokenizer.specials, options, records)
        self.objective = distillation.beside(self.teacher, made)
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
        own = recipe.is_own(outline(self.settings.model), from_random=self.settings.from_random)
        size = recipe.batch_examples(len(self.train), own=own)
        return training.model_copy(update={"batch_examples": size})

    @property
    def length(self) -> Length:
        """How long to train: as the settings say, or by the number of records and how long they are."""
        if self.settings.budget != AUTO:
            return parse_length(self.settings.budget)
        tokens = self.batches.steps_per_epoch * self.batches.tokens_per_step
        return Length(recipe.epochs(len(self.train), tokens), "epochs")

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
