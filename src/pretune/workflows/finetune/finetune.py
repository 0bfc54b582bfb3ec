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
from pretune.inference.heads import BATCH_TOKENS
from pretune.model.folder import outline
from pretune.model.model import Model
from pretune.runtime import atomic_files
from pretune.runtime.distributed import World
from pretune.runtime.metrics_reader import read_log
from pretune.runtime.progress import Reporter, Silent
from pretune.runtime.run_folder import Run, environment
from pretune.training.oom_backoff import Memory
from pretune.training.train_state import Outcome
from pretune.training.trainer import Trainer
from pretune.workflows import cards, distillation, findings, run_page, verdicts
from pretune.workflows.evaluate import Evaluation, assess
from pretune.workflows.finetune import recipe
from pretune.workflows.finetune.components import Finetuning
from pretune.workflows.finetune.settings import AUTO as AUTO
from pretune.workflows.finetune.settings import FinetuneSettings as FinetuneSettings
from pretune.workflows.finetune.settings import resolve as resolve
from pretune.workflows.prediction_findings import Final, Origin
from pretune.workflows.run_lifecycle import RunResult, carried_out

EVALUATIONS = 4
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
        parts = Finetuning(resolved, reporter, world)
        distillation.keep(parts.teacher, run)
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
    run: Run, resolved: FinetuneSettings, parts: Finetuning, outcome: Outcome, rows: int, reporter: Reporter
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
        **distillation.told(parts.teacher),
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
    usual = recipe.training(outline(settings.model), from_random=settings.from_random)
    return Origin(usual["optimizer"]["learning_rate"], settings.task_options.get("threshold"))


def rehearse(settings: FinetuneSettings, reporter: Reporter | None = None) -> dict[str, Any]:
    """Read the model and the records, check them, and say what would be done; nothing is written.

    What was skipped and what the columns are goes to ``reporter``.
    """
    parts = Finetuning(settings, reporter or Silent(), World())
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


def _finish(
    run: Run, settings: FinetuneSettings, model: Model, evaluation: Evaluation, summary: dict[str, Any]
) -> None:
    def fill(folder: Path) -> None:
        model.write(folder)
        (folder / "README.md").write_text(cards.finetuned(settings, summary), encoding="utf-8")

    atomic_files.write_folder(run.model, fill, about={"kind": "model"})
    lines = [json.dumps(row, ensure_ascii=False) for row in evaluation.rows()]
    atomic_files.write_text(run.folder / "predictions.jsonl", "\n".join(lines) + "\n")
    run_page.finetuning(
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
