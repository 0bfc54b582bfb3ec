"""Fine-tune a pretrained model on labelled records, and test it once beside its baselines."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pretune.arguments import FilePath, check_arguments
from pretune.errors import ConfigError
from pretune.model.folder import read_folder_info
from pretune.model.model import Model
from pretune.runtime import atomic_files
from pretune.runtime.distributed import World
from pretune.runtime.metrics_reader import read_metrics
from pretune.runtime.progress import NullReporter, Reporter
from pretune.runtime.run_folder import Run, describe_environment
from pretune.training.oom_backoff import OOMBackoff
from pretune.training.train_state import TrainResult
from pretune.training.trainer import Trainer
from pretune.workflows import cards, distillation, findings, run_page, verdicts
from pretune.workflows.evaluate import Evaluation, evaluate_records
from pretune.workflows.finetune import recipe
from pretune.workflows.finetune.components import FinetuneSetup
from pretune.workflows.finetune.settings import AUTO as AUTO
from pretune.workflows.finetune.settings import FinetuneSettings as FinetuneSettings
from pretune.workflows.finetune.settings import resolve as resolve
from pretune.workflows.prediction_findings import DiagnosisContext, FinalPredictions
from pretune.workflows.run_lifecycle import RunResult, start_or_resume

MAX_EVALUATIONS = 4
"""At most, where their number is not given: of more, one would be best by chance."""


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
    start_time: float | None = None,
) -> RunResult:
    """Fine-tune ``model``; the same call goes on where a stopped one ended.

    ``changes`` is the ``plan.json`` of a run whose steps and changes in mid-run are to be made again.

    Raises:
        ConfigError: a setting that pretune does not take, or a run folder of other settings.
        DataError: records that cannot be used, one class only, a label that training never saw.
        CheckpointError: no model there, or a damaged one.
        Interrupted: a signal came; a checkpoint is saved and the same call goes on.
    """
    start_time = time.monotonic() if start_time is None else start_time
    given = {
        "model": _model_path(model), "task": task, "task_options": task_options,
        "objective_options": objective_options, "train": _to_paths(train),
        "validation": _to_paths(validation),
        "test": _to_paths(test), "budget": budget, "training": training, "max_length": max_length,
        "language": language, "columns": columns, "encoding": encoding,
    }  # fmt: skip
    resolved = resolve(settings, {k: v for k, v in given.items() if v is not None})
    work = partial(_train, resolved, start_time)
    return start_or_resume(
        work, "finetune", resolved, resolved.train, out=out, changes=changes, reporter=reporter
    )


def _train(
    settings: FinetuneSettings, start_time: float, run: Run, world: World, reporter: Reporter
) -> Mapping[str, Any]:
    with world.main_first(), run.discard_on_error():
        setup = FinetuneSetup(settings, reporter, world)
        distillation.record_teacher(setup.teacher, run)
    length = setup.duration
    # Before training: what they take is then known, and a budget in minutes leaves the rest to the steps.
    world.on_main(lambda: setup.fit_baselines(length))
    oom_backoff = OOMBackoff(
        run, "evaluation", setup.validation_rows, reporter.say, single_process=world.world_size == 1
    )
    result = Trainer(
        model_io=setup.model,
        dataloader=setup.dataloader,
        evaluate=lambda network, step: oom_backoff.run_with_backoff(step, partial(setup.evaluate, step)),
        settings=setup.training,
        duration=length,
        run=run,
        reporter=reporter,
        start_time=start_time,
        max_evaluations=MAX_EVALUATIONS,
        evaluation_tokens=setup.num_validation_tokens,
        post_training_seconds=setup.seconds_after_training,
        name="finetune",
        world=world,
    ).train()
    rows = oom_backoff.rows(result.best_step)
    return world.on_main(lambda: _evaluate_and_finish(run, settings, setup, result, rows, reporter))


def _evaluate_and_finish(
    run: Run,
    settings: FinetuneSettings,
    setup: FinetuneSetup,
    result: TrainResult,
    rows: int,
    reporter: Reporter,
) -> dict[str, Any]:
    """Test, and everything that is written once training has ended; the summary."""
    held_out = setup.tune_predictions(result.best_step, rows)
    evaluation = evaluate_records(
        setup.model,
        setup.evaluation_records,
        setup.baselines,
        predictions=None if setup.test else held_out,
    )
    summary = {
        "verb": "finetune",
        "task": settings.task,
        "family": setup.model.family.__name__.rsplit(".", 1)[-1],
        "random_init": settings.random_init,
        **distillation.teacher_summary(setup.teacher),
        "head": setup.model.head,
        "labels": list(setup.model.labels),
        "pairs": any(len(setup.task.texts(record)) > 1 for record in setup.train),
        "task_options": setup.model.metadata["task_options"],
        "parameters": setup.model.num_parameters,
        "steps": result.steps,
        "best_step": result.best_step,
        "seconds": round(result.seconds, 1),
        "batch_examples": setup.training.batch_examples,
        "num_train": len(setup.train),
        "validation": {"n": len(setup.validation), **result.best_scores},
        "split": "test" if setup.test else "validation",
        **evaluation.summary(),
        **verdicts.conclude_run(
            run, result, settings.training.patience, settings.language, reporter,
            FinalPredictions(
                evaluation.findings("test" if setup.test else "validation"), evaluation.beats_majority,
                _diagnosis_context(settings),
            ),
        ),
    }  # fmt: skip
    _write_outputs(run, settings, setup.model, evaluation, summary)
    return summary


def _diagnosis_context(settings: FinetuneSettings) -> DiagnosisContext:
    """How the model was trained, for the cause of a constant prediction."""
    defaults = recipe.training_defaults(read_folder_info(settings.model), random_init=settings.random_init)
    return DiagnosisContext(defaults["optimizer"]["learning_rate"], settings.task_options.get("threshold"))


def dry_run(settings: FinetuneSettings, reporter: Reporter | None = None) -> dict[str, Any]:
    """Read the model and the records, check them, and say what would be done; nothing is written.

    What was skipped and what the columns are goes to ``reporter``.
    """
    setup = FinetuneSetup(settings, reporter or NullReporter(), World())
    length, batches = setup.duration, setup.dataloader
    steps = {}
    if length.unit != "seconds":
        steps = {"steps": length.to_steps(batches.steps_per_epoch, batches.tokens_per_step)}
    return {
        "model": settings.model,
        "parameters": setup.model.num_parameters,
        "labels": ", ".join(setup.model.labels),
        "num_train": len(setup.train),
        "validation": len(setup.validation),
        "test": len(setup.test),
        "length": str(length),
        **steps,
    }


def _write_outputs(
    run: Run, settings: FinetuneSettings, model: Model, evaluation: Evaluation, summary: dict[str, Any]
) -> None:
    def fill(folder: Path) -> None:
        model.write(folder)
        (folder / "README.md").write_text(cards.finetuning_card(settings, summary), encoding="utf-8")

    atomic_files.write_folder(run.model_path, fill, metadata={"type": "model"})
    lines = [json.dumps(row, ensure_ascii=False) for row in evaluation.prediction_rows()]
    atomic_files.write_text(run.folder / "predictions.jsonl", "\n".join(lines) + "\n")
    run_page.write_finetuning_page(
        run.folder / "report.html", settings, summary, read_metrics(run.metrics_path), evaluation,
        findings.baseline_findings(settings.language, evaluation, summary), describe_environment(),
        language=settings.language,
    )  # fmt: skip
    run.finish(summary)


def _model_path(model: Model | str | Path | None) -> str | None:
    if isinstance(model, Model):
        if model.path is None:
            raise ConfigError("finetune: save the model first (model.save(folder)) and give the folder")
        return str(model.path)
    return None if model is None else str(model)


def _to_paths(paths: FilePath | Sequence[FilePath] | None) -> tuple[str, ...] | None:
    if paths is None:
        return None
    return (str(paths),) if isinstance(paths, str | Path) else tuple(str(p) for p in paths)
