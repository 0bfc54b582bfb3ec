"""The settings of a pretraining run, and how they are checked and completed before it begins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pydantic

from pretune.config import Settings, build_settings
from pretune.data.sources.columns import check_column_names
from pretune.data.sources.read_options import ReadOptions
from pretune.errors import ConfigError, UnsupportedError
from pretune.families._hf import HF_PREFIX
from pretune.model.folder import read_folder_info
from pretune.nn.heads import combined_names
from pretune.objectives import (
    DistillationSettings,
    ObjectiveSpec,
    default_objective,
    objectives_for_heads,
    parse_objective,
)
from pretune.objectives.wrappers.sampled_softmax import SampledSoftmaxSettings
from pretune.registry import find, list_names
from pretune.tasks import find_task
from pretune.text.training import TokenizerAlgorithm
from pretune.training.duration import parse_duration
from pretune.training.settings import OptimizerSettings, TrainingSettings
from pretune.types import Traits
from pretune.workflows import distillation, run_page
from pretune.workflows.pretrain import model_size
from pretune.workflows.pretrain.continue_from import settings_from_checkpoint
from pretune.workflows.pretrain.mixture import (
    ComponentSettings,
    check_mixture,
    merge_heads,
    name_components,
    unwrap_single_component,
)

ASSUMED_VOCABULARY_SIZE = 8192
"""Tokens of a vocabulary that is not measured yet."""
BATCH_TOKENS = 1024
DEFAULT_OPTIMIZER: dict[str, Any] = {
    "name": "muon", "learning_rate": 5e-3, "muon_learning_rate": 0.01, "weight_decay": 0.1,
}  # fmt: skip
"""From random weights; docs/lab-notes.md has the comparison. A checkpoint goes on with AdamW."""
DEFAULT_FAMILIES = ("modernbert", "llama", "bert", "t5", "xlnet")
"""In this order, where none is named."""


class PretrainSettings(Settings):
    """What ``pretrain`` takes, from a YAML file, ``key=value`` and keywords alike."""

    corpus: tuple[str, ...] = ()
    """Files and folders of .txt and .jsonl text, or one folder that was prepared before."""
    columns: dict[str, str] = pydantic.Field(default_factory=dict)
    """Field to the column that it is read from, where that is called otherwise: ``{text: article}``."""
    encoding: str | None = None
    """Of files that are neither UTF-8 nor marked otherwise; None: it is recognised."""
    mixture: tuple[ComponentSettings, ...] = ()
    """In place of a corpus and an objective: several of them, with what each weighs."""
    start_from: str | None = None
    """A run or model folder to go on from, with its own tokenizer; None: begin with random weights."""
    family: str = DEFAULT_FAMILIES[0]
    """Where only an objective is named, the first of ``DEFAULT_FAMILIES`` that has it."""
    objective: str | None = None
    """masked_lm, causal_lm, permutation_lm, span_corruption, denoising, prefix_lm, masked_lm+next_sentence or
    masked_lm+sentence_order, or, of records with source and target, sequence_to_sequence; None: masked_lm for
    an encoder, causal_lm for a decoder, and for an encoder-decoder span_corruption, or what its family is
    known by."""
    objective_options: dict[str, Any] = pydantic.Field(default_factory=dict)
    distillation: DistillationSettings | None = None
    """A larger model to learn from besides; its tokenizer is taken, unless one is given."""
    sampled_softmax: SampledSoftmaxSettings | None = None
    """Estimate the loss from some words of the vocabulary until near the end; on from random weights, unless
    null is given."""
    model: dict[str, Any] = pydantic.Field(default_factory=dict)
    """The family's own settings: hidden_size, num_hidden_layers ..."""
    tokenizer: str | None = None
    """A tokenizer.json or a folder with one; None: one is trained on the text."""
    tokenizer_algorithm: TokenizerAlgorithm = "bpe"
    """Of the one that is trained: bpe, wordpiece or unigram."""
    vocabulary_size: int | Literal["auto"] = 8192
    """Of the one that is trained, 300 at least; auto: as many tokens as the text and the model repay."""
    max_length: int = pydantic.Field(default=128, ge=8)
    """Tokens that the model reads at once, special ones included."""
    budget: str = "10min"
    """Length: minutes of wall-clock for the whole command, or steps, tokens, epochs."""
    validation: tuple[str, ...] = ()
    validation_fraction: float = pydantic.Field(default=0.02, gt=0, lt=1)
    """Share of the documents kept from training, where no validation files are given."""
    evaluation_tokens: int = pydantic.Field(50_000, ge=1)
    """Held-out tokens that an evaluation reads at most."""
    training: TrainingSettings = TrainingSettings(
        batch_tokens=BATCH_TOKENS, optimizer=OptimizerSettings(**DEFAULT_OPTIMIZER)
    )
    language: str = "en"
    """Of the report: en or zh."""

    @pydantic.field_validator("vocabulary_size", mode="before")
    @classmethod
    def _check_vocabulary_size(cls, value: object) -> object:
        if value == "auto" or (isinstance(value, int) and value >= 300):
            return value
        raise ValueError("should be a number of tokens, 300 at least, or auto")

    @property
    def components(self) -> tuple[ComponentSettings, ...]:
        """Of the mixture; without one, the run's own objective and text."""
        if self.mixture:
            return self.mixture
        component = ComponentSettings.model_construct(
            objective=self.objective, objective_options=self.objective_options, corpus=self.corpus,
            validation=self.validation, columns=self.columns, name=self.objective,
        )  # fmt: skip
        return (component,)

    @property
    def objective_specs(self) -> tuple[ObjectiveSpec, ...]:
        """The objective of each part."""
        default = default_objective(find("families", self.family))
        return tuple(parse_objective(component.objective or default) for component in self.components)

    @property
    def num_sentinels(self) -> int:
        """How many tokens for hidden spans a tokenizer needs."""
        return max(spec.num_sentinels for spec in self.objective_specs)


def resolve(
    settings: PretrainSettings | Mapping[str, Any] | None, overrides: Mapping[str, Any]
) -> PretrainSettings:
    """The settings with keywords laid over them, checked.

    Raises:
        ConfigError: names the wrong key or value.
    """
    # What was left out is not given: a checkpoint may say otherwise.
    if isinstance(settings, PretrainSettings):
        settings = settings.model_dump(exclude_unset=True)
    values = unwrap_single_component(dict(settings or {}) | dict(overrides))
    if values.get("start_from"):
        values = settings_from_checkpoint(
            values, max_length=PretrainSettings.model_fields["max_length"].default
        )
    rates, chosen = _given_optimizer_keys(values.get("training")), "sampled_softmax" in values
    if isinstance(values.get("training"), Mapping):
        values["training"] = _complete_training(
            dict(values["training"]), random_init=not values.get("start_from")
        )
    if isinstance(values.get("corpus"), str | Path):
        values["corpus"] = (str(values["corpus"]),)
    resolved = build_settings(PretrainSettings, values, where="pretrain")
    if not resolved.corpus and not resolved.mixture:
        raise ConfigError("pretrain: corpus is empty: give files or folders of text")
    run_page.check_language(resolved.language)
    ReadOptions(encoding=resolved.encoding)  # refuses an encoding that there is none of
    parse_duration(resolved.budget)
    requested_specs = [
        parse_objective(component.objective) for component in resolved.components if component.objective
    ]
    if requested_specs and "family" not in values:
        resolved = resolved.model_copy(update={"family": _default_family(requested_specs)})
    resolved = _resolve_objectives(resolved)
    if not resolved.start_from:
        resolved = _apply_optimizer_recipe(resolved, rates)
    resolved = _resolve_sampled_softmax(resolved, is_given=chosen)
    return _resolve_distillation(resolved, family_config(resolved))


def _resolve_objectives(resolved: PretrainSettings) -> PretrainSettings:
    """The settings with the full names of what is learnt, which the family has and can be saved with."""
    specs = resolved.objective_specs
    for number, (component, spec) in enumerate(zip(resolved.components, specs, strict=True)):
        where = f"mixture.{number}." if resolved.mixture else ""
        check_column_names(
            component.columns, spec.columns, f"pretrain: {where}".removesuffix(".").rstrip(": ")
        )
        if not spec.is_pretraining or not _can_save(resolved.family, [spec]):
            raise UnsupportedError(_objective_hint(resolved.family, spec, f"pretrain: {where}objective"))
        spec.check_options(component.objective_options, f"pretrain: {where}objective_options")
    if not _can_save(resolved.family, specs):
        raise UnsupportedError(
            f"pretrain: mixture: no model of family {resolved.family!r} is saved with the heads "
            f"{' and '.join(merge_heads(specs))} together; leave out a part"
        )
    if resolved.mixture:
        check_mixture(resolved.objective, specs[0], resolved.distillation, resolved.training)
        resolved = resolved.model_copy(update={"mixture": name_components(resolved.mixture, specs)})
    resolved = resolved.model_copy(update={"objective": specs[0].name})
    return resolved if resolved.start_from else _apply_recipe_options(resolved)


def _apply_recipe_options(resolved: PretrainSettings) -> PretrainSettings:
    """The settings with the recipe's options for what is learnt, where none are given."""

    def options(of: PretrainSettings | ComponentSettings) -> dict[str, Any]:
        return {**parse_objective(str(of.objective)).recipe.options, **of.objective_options}

    if not resolved.mixture:
        return resolved.model_copy(update={"objective_options": options(resolved)})
    components = [
        component.model_copy(update={"objective_options": options(component)})
        for component in resolved.mixture
    ]
    return resolved.model_copy(update={"mixture": tuple(components)})


def _resolve_sampled_softmax(resolved: PretrainSettings, *, is_given: bool) -> PretrainSettings:
    """The settings with the loss estimated: as ``is_given``, or where it has been seen to pay.

    Raises:
        ConfigError: it is asked for where all words are computed in any case.
    """
    full_softmax_reason = _full_softmax_reason(resolved)
    if is_given:
        if resolved.sampled_softmax is not None and full_softmax_reason:
            raise ConfigError(
                f"pretrain: sampled_softmax: {full_softmax_reason}, which computes all words; leave it out"
            )
        return resolved
    is_in_recipe = all(spec.uses_sampled_softmax for spec in resolved.objective_specs)
    if full_softmax_reason or resolved.start_from or not is_in_recipe:
        return resolved
    return resolved.model_copy(update={"sampled_softmax": SampledSoftmaxSettings()})


def _full_softmax_reason(resolved: PretrainSettings) -> str:
    """What in the settings needs the logits of all words; empty: nothing."""
    if resolved.family.startswith(HF_PREFIX):
        return f"family {resolved.family!r} is computed by transformers"
    if resolved.distillation:
        return "distillation compares whole distributions"
    smoothed = any(component.objective_options.get("label_smoothing") for component in resolved.components)
    return "objective_options.label_smoothing spreads a target over the vocabulary" if smoothed else ""


def _resolve_distillation(resolved: PretrainSettings, config: Any) -> PretrainSettings:
    """The settings with what a teacher decides: a new student has its tokenizer."""
    teacher = resolved.distillation
    has_time_budget = parse_duration(resolved.budget).unit == "seconds"
    is_size_known = (
        bool(resolved.start_from) or model_size.is_size_given(resolved.model) or not has_time_budget
    )
    distillation.check_distillation(teacher, config, resolved.training, is_size_known=is_size_known)
    if teacher is None or resolved.start_from or resolved.tokenizer:
        return resolved
    return resolved.model_copy(update={"tokenizer": distillation.teacher_tokenizer(teacher)})


def _default_family(specs: Sequence[ObjectiveSpec]) -> str:
    """The family to train by these objectives, where none is named."""
    return next((name for name in DEFAULT_FAMILIES if _can_save(name, specs)), DEFAULT_FAMILIES[0])


def _can_save(family: str, specs: Sequence[ObjectiveSpec]) -> bool:
    """Can it be trained so, and is there a stock class that a network with these heads can be saved as?"""
    module = find("families", family)
    suits = all(spec.is_supported_by(module.TRAITS) for spec in specs)
    return suits and "+".join(merge_heads(specs)) in combined_names(module.HEADS)


def _objective_hint(family: str, spec: ObjectiveSpec, where: str) -> str:
    """Why ``family`` is not pretrained by ``spec``, and what can be done in its place."""
    objectives_by_family = {
        name: _family_objectives(name) for name in dict.fromkeys([*list_names("families"), family])
    }
    message = (
        f"{where} = {spec.name!r}: family {family!r} pretrains by "
        f"{_join_quoted(objectives_by_family[family])}"
    )
    others = [name for name in objectives_by_family if spec.name in objectives_by_family[name]]
    if others:
        return f"{message}; by this {', '.join(others)}"
    combined = sorted(
        {way for own in objectives_by_family.values() for way in own if spec.name in way.split("+")}
    )
    if combined:
        capable_families = [
            name for name in objectives_by_family if set(combined) & set(objectives_by_family[name])
        ]
        return (
            f"{message}; {spec.name} is learnt beside another: {_join_quoted(combined)} "
            f"({', '.join(capable_families)})"
        )
    if any(spec.name == find_task(task).objective for task in list_names("tasks")):
        return f"{message}; {spec.name} is learnt from labelled records: pretune finetune MODEL --train ..."
    return message


def _family_objectives(family: str) -> list[str]:
    """The objectives that a family is pretrained by, the usual one first."""
    module = find("families", family)
    specs = [
        parse_objective(way) for known in combined_names(module.HEADS) for way in objectives_for_heads(known)
    ]
    found = {spec.name for spec in specs if spec.is_pretraining and spec.is_supported_by(module.TRAITS)}
    return sorted(found, key=lambda way: (way != default_objective(module), way.count("+"), way))


def _join_quoted(objectives: Sequence[str]) -> str:
    return " or ".join(repr(way) for way in objectives)


def _given_optimizer_keys(training: object) -> set[str]:
    """The optimiser's settings that were given, and so are no family's to choose."""
    if isinstance(training, TrainingSettings):
        return set(OptimizerSettings.model_fields)
    optimizer = training.get("optimizer") if isinstance(training, Mapping) else None
    return set(optimizer) if isinstance(optimizer, Mapping) else set()


def _apply_optimizer_recipe(resolved: PretrainSettings, given_keys: set[str]) -> PretrainSettings:
    """The settings with what suits the objective, and the family's first values, but for those ``given``."""
    training = resolved.training
    if training.optimizer.name != DEFAULT_OPTIMIZER["name"]:
        return resolved
    traits: Traits = find("families", resolved.family).TRAITS
    recipe = {**resolved.objective_specs[0].recipe.optimizer, **traits.learning_rates}
    own = {key: value for key, value in recipe.items() if key not in given_keys}
    optimizer = training.optimizer.model_copy(update=own)
    return resolved.model_copy(update={"training": training.model_copy(update={"optimizer": optimizer})})


def _complete_training(training: dict[str, Any], *, random_init: bool) -> dict[str, Any]:
    """Settings of training that were given in part, with the recipe for the rest."""
    if "batch_tokens" not in training and "batch_examples" not in training:
        training["batch_tokens"] = BATCH_TOKENS
    optimizer = training.get("optimizer") or {}
    if random_init and isinstance(optimizer, Mapping) and optimizer.get("name", "muon") == "muon":
        training["optimizer"] = {**DEFAULT_OPTIMIZER, **optimizer}
    return training


def family_config(settings: PretrainSettings) -> Any:
    """The family's config, as far as it is known before the tokenizer is."""
    if settings.start_from:
        return read_folder_info(settings.start_from).config
    size = ASSUMED_VOCABULARY_SIZE if settings.vocabulary_size == "auto" else settings.vocabulary_size
    size += settings.num_sentinels
    values = {"vocab_size": size, "max_position_embeddings": settings.max_length}
    return build_settings(
        find("families", settings.family).Config, values | settings.model, where="pretrain: model"
    )
