"""The parts of a fine-tuning run: model, records, batches and what stands beside the model."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from pretune.baselines.base import Baseline
from pretune.config import build_settings
from pretune.data.corpus.windows import EncodedRecords
from pretune.data.sources.read_options import ReadOptions
from pretune.data.sources.records import RecordLog
from pretune.errors import ConfigError, UnsupportedError
from pretune.inference.heads import MAX_BATCH_TOKENS
from pretune.model.folder import FolderInfo, read_folder_info
from pretune.model.model import Model
from pretune.registry import find
from pretune.runtime.distributed import World
from pretune.runtime.progress import Reporter
from pretune.tasks import find_task
from pretune.tasks.base import Task
from pretune.training.dataloader import DataLoader
from pretune.training.duration import Duration, parse_duration
from pretune.training.settings import TrainingSettings
from pretune.types import OutputSpec, Prediction, Record, Score
from pretune.workflows import distillation, labeled_records
from pretune.workflows.evaluate import BaselineScores, fit_baselines, read_labelled
from pretune.workflows.finetune import recipe
from pretune.workflows.finetune.settings import AUTO, FinetuneSettings

BASELINES_SHARE = 0.1
"""Of a time, what fitting the baselines may take."""
SAVE_SECONDS = 2.0
"""To write the model and its predictions."""
START_WORDS = {"en": "the model it starts from", "zh": "起始模型"}


def select_head(start: FolderInfo, task: Task) -> str:
    """The first of a task's heads that the family of a folder has.

    Raises:
        UnsupportedError: it has none of them.
    """
    table = find("families", start.family).HEADS
    for head in task.heads:
        if head in table:
            return head
    raise UnsupportedError(
        f"{start.folder}: {start.family} has no head {' or '.join(map(repr, task.heads))}, which the task "
        f"needs; it has: {', '.join(table)}"
    )


class FinetuneSetup:
    """The parts of one fine-tuning run, made from settings and records alone."""

    def __init__(self, settings: FinetuneSettings, reporter: Reporter, world: World) -> None:
        self.settings, self.reporter = settings, reporter
        unfitted = find_task(settings.task)()
        self.options = build_settings(
            unfitted.options_type, settings.task_options, where="finetune: task_options"
        )
        reading, log = ReadOptions(settings.columns, settings.encoding), RecordLog()
        read = partial(read_labelled, reporter=reporter, task=settings.task, reading=reading)
        self.train = read(settings.train, log=log)
        self.columns = log.columns
        self.test = read(settings.test) if settings.test else []
        if settings.validation:
            self.validation = read(settings.validation)
        else:
            self.train, self.validation = labeled_records.split_validation(self.train, unfitted)
        self.model = self._load_model(unfitted, unfitted.fit(self.train))
        self.task = self.model.build_task(self.options)
        self.task.check(self.validation)
        self.task.check(self.test)
        self._warn_overlap()
        labeled_records.warn_split_overlap(
            self.task, self.train, {"validation": self.validation, "test": self.test}, reporter
        )
        held = (self.task.labels_of(self.task.reference(r)) for r in self.validation)
        missing_labels = set(labeled_records.known_labels(self.task, self.train)).difference(*held)
        if missing_labels:
            reporter.say(
                "  mind: the validation records, which choose the checkpoint, hold no "
                f"{sorted(missing_labels)}"
            )
        features = [f for i, r in enumerate(self.train) for f in self.task.encode(r, i, self.model.reader)]
        self.training = self._with_batch_size(settings.training)
        records = EncodedRecords(features)
        traits, objective = self.model.family.TRAITS, find("objectives", self.task.objective)
        options = build_settings(
            objective.Objective.options_type, settings.objective_options, where="finetune: objective_options"
        )
        student = distillation.StudentSpec.from_model(self.model, world)
        self.teacher = distillation.Teacher.from_settings(settings.distillation, student, reporter)
        inner_objective = objective.Objective(traits, self.model.tokenizer.specials, options, records)
        self.objective = distillation.wrap_objective(self.teacher, inner_objective)
        self.dataloader = DataLoader(
            records, self.objective, traits, self.training, self.model.max_length, world
        )

        self._report_long_texts(len(features))
        self.baselines: BaselineScores = {}
        self._last_evaluation: tuple[int, list[Prediction]] | None = None
        """The step of the latest evaluation and what it predicted: mostly that of the best weights."""

    def _with_batch_size(self, training: TrainingSettings) -> TrainingSettings:
        """The settings of training with the size of a step."""
        if training.batch_examples or training.batch_tokens:
            return training
        own = recipe.is_pretune_model(
            read_folder_info(self.settings.model), random_init=self.settings.random_init
        )
        size = recipe.batch_examples(len(self.train), pretune_model=own)
        return training.model_copy(update={"batch_examples": size})

    @property
    def duration(self) -> Duration:
        """How long to train: as the settings say, or by the number of records and how long they are."""
        if self.settings.budget != AUTO:
            return parse_duration(self.settings.budget)
        tokens = self.dataloader.steps_per_epoch * self.dataloader.tokens_per_step
        return Duration(recipe.epochs(len(self.train), tokens), "epochs")

    @property
    def evaluation_records(self) -> list[Record]:
        """The records that the summary's scores are of."""
        return self.test or self.validation

    @property
    def validation_rows(self) -> int:
        """Rows of the largest batch of validation records, the number that an out-of-memory error halves."""
        packed = self.model.family.TRAITS.supports_packing and self.objective.supports_packing
        shortest = self.model.max_length if packed else int(self.dataloader.length_bounds.min())
        return max(1, min(len(self.validation), MAX_BATCH_TOKENS // max(1, shortest)))

    @property
    def num_validation_tokens(self) -> float:
        """Tokens of the validation records, about: as many a record as in training."""
        epoch = self.dataloader.steps_per_epoch * self.dataloader.tokens_per_step
        return epoch * len(self.validation) / max(1, len(self.train))

    def fit_baselines(self, duration: Duration) -> None:
        """Fit and score what stands beside the model; of a length in minutes a tenth is theirs."""
        if not self.settings.baselines:
            return
        seconds = BASELINES_SHARE * duration.amount if duration.unit == "seconds" else None
        records = self.evaluation_records
        self.baselines = fit_baselines(self.task, self.train, records, max_seconds=seconds)
        if "start" in self.task.compare_with and not self.model.untrained:
            values = tuple(p.value for p in self.model.predict(records, self.options))
            start = Baseline(values, f"{self.settings.model}, before fine-tuning", "start", START_WORDS)
            self.baselines["start"] = (start, self.task.score_values(values, records))

    def seconds_after_training(self, evaluation_seconds: float) -> dict[str, float]:
        """What is done once training has ended, in seconds, from those of an evaluation and its intervals."""
        share = len(self.evaluation_records) / len(self.validation)
        return {
            "test" if self.test else "validation": share * evaluation_seconds,
            "model and predictions": SAVE_SECONDS,
        }

    def evaluate(self, step: int, batch_size: int) -> list[Score]:
        """The task's scores on the validation records, so many rows at once; the first decides."""
        predictions = self.model.predict(self.validation, self.options, batch_size=batch_size)
        self._last_evaluation = step, predictions
        _, tuned_predictions = self.task.tune(predictions, self.validation)
        return self.task.score(tuned_predictions, self.validation)

    def tune_predictions(self, step: int, batch_size: int) -> list[Prediction] | None:
        """What the model, of ``step`` now, says of the validation records; None where nobody asks.

        What those choose of the task's options is kept with the model.
        """
        if self.test and not self.task.needs_tuning:
            return None
        if self._last_evaluation is None or self._last_evaluation[0] != step:
            self.evaluate(step, batch_size)
        assert self._last_evaluation is not None
        options, tuned_predictions = self.task.tune(self._last_evaluation[1], self.validation)
        if self.task.needs_tuning:
            self.model.metadata["task_options"] = options.model_dump()
            changed = {
                k: v for k, v in options.model_dump().items() if v != self.settings.task_options.get(k)
            }
            self.reporter.say(f"  chosen on the validation records: {changed}")
        return list(tuned_predictions)

    def _report_long_texts(self, num_features: int) -> None:
        """Say what becomes of texts that are longer than the model reads at once."""
        longest = self.model.max_length
        if num_features > len(self.train):
            self.reporter.say(
                f"  some texts are longer than {longest} tokens: {len(self.train):,} texts are read in "
                f"{num_features:,} windows"
            )
            return
        full = int((self.dataloader.length_bounds >= longest).sum())
        if full and num_features == len(self.train):
            self.reporter.say(
                f"  {full:,} of {len(self.train):,} training texts are read up to {longest} tokens; "
                f"max_length=N reads more of them{self.task.advice_for_long_texts}"
            )

    def _load_model(self, task: Task, outputs: OutputSpec) -> Model:
        settings = self.settings
        model = Model.load(
            Path(settings.model),
            head=select_head(read_folder_info(settings.model), task),
            outputs=outputs,
            settings=settings.model_settings,
            seed=settings.training.seed,
        )
        if model.dropped_head:
            self.reporter.say(f"  {settings.model}: {model.dropped_head}")
        if settings.max_length is not None:
            if settings.max_length > model.max_length:
                raise ConfigError(
                    f"finetune: max_length = {settings.max_length}: the model in {settings.model} reads "
                    f"{model.max_length} tokens at most; give that or less"
                )
            model.metadata["max_length"] = settings.max_length
        if settings.random_init:
            model = model.with_random_weights(settings.training.seed)
        model.metadata |= {"task": settings.task, "task_options": self.options.model_dump()}
        model.metadata.pop("columns", None)  # of the text that it was pretrained on
        named = {field: column for field, column in self.columns.items() if field != column}
        if named:
            model.metadata["columns"] = named
        return model

    def _warn_overlap(self) -> None:
        scored = self.test or self.validation
        if self.model.fingerprints is None:
            return
        seen = self.model.fingerprints.find_overlapping(["\n".join(self.task.texts(r)) for r in scored])
        if seen:
            self.reporter.say(
                f"  mind: {len(seen)} of the {len(scored)} texts that it will be scored on stand in the text "
                f"that it was pretrained on (first: {scored[seen[0]].location}); the scores may flatter it"
            )
