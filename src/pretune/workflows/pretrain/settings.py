"""The settings of a pretraining run, and how they are checked and completed before it begins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pydantic

from pretune.config import Settings, build
from pretune.data.sources.columns import check_names
from pretune.data.sources.read_options import Reading
from pretune.errors import ConfigError, UnsupportedError
from pretune.families._hf import PREFIX
from pretune.model.folder import outline
from pretune.objectives import DistillationSettings, Kind, objective_of, objectives_of, usual
from pretune.registry import find, names
from pretune.text.training import Kind as TokenizerKind
from pretune.training.duration import parse_length
from pretune.training.sampled_softmax import SampledSoftmaxSettings
from pretune.training.settings import OptimizerSettings, TrainingSettings
from pretune.workflows import distillation, run_page
from pretune.workflows.pretrain import model_size
from pretune.workflows.pretrain.continue_from import adopt
from pretune.workflows.pretrain.mixture import PartSettings, check_alone, heads_of, settled, unmixed

ASSUMED = 8192
"""Tokens of a vocabulary that is not measured yet."""
BATCH_TOKENS = 1024
OPTIMIZER: dict[str, Any] = {
    "name": "muon", "learning_rate": 5e-3, "muon_learning_rate": 0.01, "weight_decay": 0.1,
}  # fmt: skip
"""From random weights; docs/lab-notes.md has the comparison. A checkpoint goes on with AdamW."""
LEARNT: dict[str, dict[str, Any]] = {
    "masked_lm": {"learning_rate": 2e-3, "betas": (0.9, 0.995), "muon_every": 2},
    "causal_lm": {"betas": (0.9, 0.995), "muon_every": 4},
}
"""What differs by objective. Most words of the vocabulary are in few steps, so Adam's squares have to reach
back far (docs/lab-notes.md, "A longer memory for Adam"). Other objectives were not tried."""
HIDDEN: dict[str, dict[str, Any]] = {"masked_lm": {"rate": 0.3}}
"""Options from random weights: a masked model hides twice the share of the paper, and so stays for less long
at how often each token comes (docs/lab-notes.md). A checkpoint goes on with the paper's."""
SAMPLED = ("causal_lm", "masked_lm")
"""Objectives whose loss is estimated from some words of the vocabulary, from random weights
(docs/lab-notes.md)."""
FAMILIES = ("modernbert", "llama", "bert", "t5", "xlnet")
"""In this order, where none is named."""


class PretrainSettings(Settings):
    """What ``pretrain`` takes, from a YAML file, ``key=value`` and keywords alike."""

    corpus: tuple[str, ...] = ()
    """Files and folders of .txt and .jsonl text, or one folder that was prepared before."""
    columns: dict[str, str] = pydantic.Field(default_factory=dict)
    """Field to the column that it is read from, where that is called otherwise: ``{text: article}``."""
    encoding: str | None = None
    """Of files that are neither UTF-8 nor marked otherwise; None: it is recognised."""
    mixture: tuple[PartSettings, ...] = ()
    """In place of a corpus and an objective: several of them, with what each weighs."""
    start_from: str | None = None
    """A run or model folder to go on from, with its own tokenizer; None: begin with random weights."""
    family: str = FAMILIES[0]
    """Where only an objective is named, the first of ``FAMILIES`` that has it."""
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
    tokenizer_kind: TokenizerKind = "bpe"
    """Of the one that is trained: bpe, wordpiece or unigram."""
    vocabulary_size: int | Literal["auto"] = 8192
    """Of the one that is trained, 300 at least; auto: as many tokens as the text and the model repay."""
    max_length: int = pydantic.Field(default=128, ge=8)
    """Tokens that the model reads at once, special ones included."""
    budget: str = "10min"
    """Length: minutes of wall-clock for the whole command, or steps, tokens, epochs."""
    validation: tuple[str, ...] = ()
    held_out: float = pydantic.Field(default=0.02, gt=0, lt=1)
    """Share of the documents kept from training, where no validation files are given."""
    evaluation_tokens: int = pydantic.Field(50_000, ge=1)
    """Held-out tokens that an evaluation reads at most."""
    training: TrainingSettings = TrainingSettings(
        batch_tokens=BATCH_TOKENS, optimizer=OptimizerSettings(**OPTIMIZER)
    )
    language: str = "en"
    """Of the report: en or zh."""

    @pydantic.field_validator("vocabulary_size", mode="before")
    @classmethod
    def _a_size(cls, value: object) -> object:
        if value == "auto" or (isinstance(value, int) and value >= 300):
            return value
        raise ValueError("should be a number of tokens, 300 at least, or auto")

    @property
    def parts(self) -> tuple[PartSettings, ...]:
        """Of the mixture; without one, the run's own objective and text."""
        if self.mixture:
            return self.mixture
        alone = PartSettings.model_construct(
            objective=self.objective, objective_options=self.objective_options, corpus=self.corpus,
            validation=self.validation, columns=self.columns, name=self.objective,
        )  # fmt: skip
        return (alone,)

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The objective of each part."""
        usually = usual(find("families", self.family))
        return tuple(objective_of(part.objective or usually) for part in self.parts)

    @property
    def sentinels(self) -> int:
        """How many tokens for hidden spans a tokenizer needs."""
        return max(kind.sentinels for kind in self.kinds)


def resolve(
    settings: PretrainSettings | Mapping[str, Any] | None, given: Mapping[str, Any]
) -> PretrainSettings:
    """The settings with keywords laid over them, checked.

    Raises:
        ConfigError: names the wrong key or value.
    """
    # What was left out is not given: a checkpoint may say otherwise.
    if isinstance(settings, PretrainSettings):
        settings = settings.model_dump(exclude_unset=True)
    values = unmixed(dict(settings or {}) | dict(given))
    if values.get("start_from"):
        values = adopt(values, max_length=PretrainSettings.model_fields["max_length"].default)
    rates, chosen = _rates_given(values.get("training")), "sampled_softmax" in values
    if isinstance(values.get("training"), Mapping):
        values["training"] = _completed(dict(values["training"]), fresh=not values.get("start_from"))
    if isinstance(values.get("corpus"), str | Path):
        values["corpus"] = (str(values["corpus"]),)
    resolved = build(PretrainSettings, values, where="pretrain")
    if not resolved.corpus and not resolved.mixture:
        raise ConfigError("pretrain: corpus is empty: give files or folders of text")
    run_page.check_language(resolved.language)
    Reading(encoding=resolved.encoding)  # refuses an encoding that there is none of
    parse_length(resolved.budget)
    asked = [objective_of(part.objective) for part in resolved.parts if part.objective]
    if asked and "family" not in values:
        resolved = resolved.model_copy(update={"family": _family_of(asked)})
    resolved = _learning(resolved)
    if not resolved.start_from:
        resolved = _at_its_rates(resolved, rates)
    resolved = _sampled(resolved, chosen=chosen)
    return _taught(resolved, shape(resolved))


def _learning(resolved: PretrainSettings) -> PretrainSettings:
    """The settings with the full names of what is learnt, which the family has and can be saved with."""
    kinds = resolved.kinds
    for number, (part, kind) in enumerate(zip(resolved.parts, kinds, strict=True)):
        where = f"mixture.{number}." if resolved.mixture else ""
        check_names(part.columns, kind.columns, f"pretrain: {where}".removesuffix(".").rstrip(": "))
        if not kind.pretrains or not _saves(resolved.family, [kind]):
            raise UnsupportedError(_other_ways(resolved.family, kind, f"pretrain: {where}objective"))
        kind.check(part.objective_options, f"pretrain: {where}objective_options")
    if not _saves(resolved.family, kinds):
        raise UnsupportedError(
            f"pretrain: mixture: no model of family {resolved.family!r} is saved with the heads "
            f"{' and '.join(heads_of(kinds))} together; leave out a part"
        )
    if resolved.mixture:
        check_alone(resolved.objective, kinds[0], resolved.distillation, resolved.training)
        resolved = resolved.model_copy(update={"mixture": settled(resolved.mixture, kinds)})
    resolved = resolved.model_copy(update={"objective": kinds[0].name})
    return resolved if resolved.start_from else _recommended(resolved)


def _leading(part: PretrainSettings | PartSettings) -> str:
    """The first of the objectives that a part is learnt by together."""
    return str(part.objective).partition("+")[0]


def _recommended(resolved: PretrainSettings) -> PretrainSettings:
    """The settings with the recipe's options for what is learnt, where none are given."""

    def options(of: PretrainSettings | PartSettings) -> dict[str, Any]:
        return HIDDEN.get(_leading(of), {}) | of.objective_options

    if not resolved.mixture:
        return resolved.model_copy(update={"objective_options": options(resolved)})
    parts = [part.model_copy(update={"objective_options": options(part)}) for part in resolved.mixture]
    return resolved.model_copy(update={"mixture": tuple(parts)})


def _sampled(resolved: PretrainSettings, *, chosen: bool) -> PretrainSettings:
    """The settings with the loss estimated: as ``chosen``, or where it has been seen to pay.

    Raises:
        ConfigError: it is asked for where all words are computed in any case.
    """
    whole = _needs_all_words(resolved)
    if chosen:
        if resolved.sampled_softmax is not None and whole:
            raise ConfigError(f"pretrain: sampled_softmax: {whole}, which computes all words; leave it out")
        return resolved
    learnt = {kind.name for kind in resolved.kinds}
    if whole or resolved.start_from or not learnt <= set(SAMPLED):
        return resolved
    return resolved.model_copy(update={"sampled_softmax": SampledSoftmaxSettings()})


def _needs_all_words(resolved: PretrainSettings) -> str:
    """What in the settings needs the logits of all words; empty: nothing."""
    if resolved.family.startswith(PREFIX):
        return f"family {resolved.family!r} is computed by transformers"
    if resolved.distillation:
        return "distillation compares whole distributions"
    smoothed = any(part.objective_options.get("label_smoothing") for part in resolved.parts)
    return "objective_options.label_smoothing spreads a target over the vocabulary" if smoothed else ""


def _taught(resolved: PretrainSettings, config: Any) -> PretrainSettings:
    """The settings with what a teacher decides: a new student has its tokenizer."""
    given = resolved.distillation
    timed = parse_length(resolved.budget).unit == "seconds"
    settled = bool(resolved.start_from) or model_size.decided(resolved.model) or not timed
    distillation.check(given, config, resolved.training, decided=settled)
    if given is None or resolved.start_from or resolved.tokenizer:
        return resolved
    return resolved.model_copy(update={"tokenizer": distillation.tokenizer_of(given)})


def _family_of(kinds: Sequence[Kind]) -> str:
    """The family to train by these objectives, where none is named."""
    return next((name for name in FAMILIES if _saves(name, kinds)), FAMILIES[0])


def _saves(family: str, kinds: Sequence[Kind]) -> bool:
    """Can it be trained so, and is there a stock class that a network with these heads can be saved as?"""
    module = find("families", family)
    types: Mapping[str, Mapping[str, str]] = module.HF_TYPES
    suits = all(kind.suits(module.TRAITS) for kind in kinds)
    return suits and any("+".join(heads_of(kinds)) in heads for heads in types.values())


def _other_ways(family: str, kind: Kind, where: str) -> str:
    """Why ``family`` is not pretrained by ``kind``, and what can be done in its place."""
    ways = {name: _ways(name) for name in dict.fromkeys([*names("families"), family])}
    said = f"{where} = {kind.name!r}: family {family!r} pretrains by {_listed(ways[family])}"
    others = [name for name in ways if kind.name in ways[name]]
    if others:
        return f"{said}; by this {', '.join(others)}"
    combined = sorted({way for own in ways.values() for way in own if kind.name in way.split("+")})
    if combined:
        able = [name for name in ways if set(combined) & set(ways[name])]
        return f"{said}; {kind.name} is learnt beside another: {_listed(combined)} ({', '.join(able)})"
    if any(kind.name == find("tasks", task).OBJECTIVE for task in names("tasks")):
        return f"{said}; {kind.name} is learnt from labelled records: pretune finetune MODEL --train ..."
    return said


def _ways(family: str) -> list[str]:
    """The objectives that a family is pretrained by, the usual one first."""
    module = find("families", family)
    heads = {way for types in module.HF_TYPES.values() for way in types}
    kinds = [objective_of(way) for known in heads for way in objectives_of(known)]
    found = {kind.name for kind in kinds if kind.pretrains and kind.suits(module.TRAITS)}
    return sorted(found, key=lambda way: (way != usual(module), way.count("+"), way))


def _listed(ways: Sequence[str]) -> str:
    return " or ".join(repr(way) for way in ways)


def _rates_given(training: object) -> set[str]:
    """The optimiser's settings that were given, and so are no family's to choose."""
    if isinstance(training, TrainingSettings):
        return set(OptimizerSettings.model_fields)
    optimizer = training.get("optimizer") if isinstance(training, Mapping) else None
    return set(optimizer) if isinstance(optimizer, Mapping) else set()


def _at_its_rates(resolved: PretrainSettings, given: set[str]) -> PretrainSettings:
    """The settings with what suits the objective, and the family's first values, but for those ``given``."""
    training, rates = resolved.training, getattr(find("families", resolved.family), "RATES", {})
    if training.optimizer.name != OPTIMIZER["name"]:
        return resolved
    suited = LEARNT.get(_leading(resolved.parts[0]), {}) | rates
    own = {key: value for key, value in suited.items() if key not in given}
    optimizer = training.optimizer.model_copy(update=own)
    return resolved.model_copy(update={"training": training.model_copy(update={"optimizer": optimizer})})


def _completed(training: dict[str, Any], *, fresh: bool) -> dict[str, Any]:
    """Settings of training that were given in part, with the recipe for the rest."""
    if "batch_tokens" not in training and "batch_examples" not in training:
        training["batch_tokens"] = BATCH_TOKENS
    optimizer = training.get("optimizer") or {}
    if fresh and isinstance(optimizer, Mapping) and optimizer.get("name", "muon") == "muon":
        training["optimizer"] = {**OPTIMIZER, **optimizer}
    return training


def shape(settings: PretrainSettings) -> Any:
    """The family's config, as far as it is known before the tokenizer is."""
    if settings.start_from:
        return outline(settings.start_from).config
    size = ASSUMED if settings.vocabulary_size == "auto" else settings.vocabulary_size
    size += settings.sentinels
    values = {"vocab_size": size, "max_position_embeddings": settings.max_length}
    return build(find("families", settings.family).Config, values | settings.model, where="pretrain: model")
