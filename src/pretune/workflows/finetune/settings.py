"""The settings of a fine-tuning run, and how they are checked and completed before it begins."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pydantic

from pretune.config import Settings, build_settings
from pretune.data.sources.columns import check_column_names
from pretune.data.sources.read_options import ReadOptions
from pretune.errors import ConfigError
from pretune.model.folder import read_folder_info
from pretune.objectives import DistillationSettings
from pretune.registry import find
from pretune.tasks import DEFAULT_TASK, find_task
from pretune.training.duration import parse_duration
from pretune.training.settings import TrainingSettings
from pretune.workflows import distillation, run_page
from pretune.workflows.finetune import recipe

AUTO = "auto"


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
    task: str = DEFAULT_TASK
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
    random_init: bool = False
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


def resolve(
    settings: FinetuneSettings | Mapping[str, Any] | None, overrides: Mapping[str, Any]
) -> FinetuneSettings:
    """The settings with keywords laid over them, checked.

    Raises:
        ConfigError: names the wrong key or value.
    """
    # What was left out is not given: the model decides it.
    if isinstance(settings, FinetuneSettings):
        settings = settings.model_dump(exclude_unset=True)
    values = dict(settings or {}) | dict(overrides)
    if isinstance(values.get("training"), TrainingSettings):
        values["training"] = values["training"].model_dump(exclude_unset=True)
    # A key that is missing is named before the model is opened.
    if values.get("model") and values.get("train") and isinstance(values.get("training", {}), Mapping):
        values = recipe.apply_recipe(values, read_folder_info(str(values["model"])))
    for key in ("train", "validation", "test"):
        if isinstance(values.get(key), str | Path):
            values[key] = (str(values[key]),)
    resolved = build_settings(FinetuneSettings, values, where="finetune")
    if not resolved.train:
        raise ConfigError("finetune: train is empty: give files of labelled records")
    run_page.check_language(resolved.language)
    if resolved.budget != AUTO:
        parse_duration(resolved.budget)
    task = find_task(resolved.task)
    check_column_names(resolved.columns, [field.name for field in task.fields], "finetune")
    ReadOptions(resolved.columns, resolved.encoding)  # refuses an encoding that there is none of
    options = build_settings(task.options_type, resolved.task_options, where="finetune: task_options")
    objective = build_settings(
        find("objectives", task.objective).Objective.options_type,
        resolved.objective_options,
        where="finetune: objective_options",
    )
    if resolved.distillation is not None:
        distillation.check_distillation(
            resolved.distillation, read_folder_info(resolved.model).config, resolved.training
        )
    return resolved.model_copy(
        update={"task_options": options.model_dump(), "objective_options": objective.model_dump()}
    )
