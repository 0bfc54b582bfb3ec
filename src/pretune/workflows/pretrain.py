"""Pretrain a language model from random weights on raw text.

Text is prepared (:mod:`corpus`), cut into windows as the objective asks, and trained on; the held-out loss
is measured beside a unigram and a bigram model of the same text, on exactly the same targets.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pydantic
import torch

from pretune.checkpoint import store
from pretune.config import Settings, build
from pretune.data.sources import RecordLog, read_records
from pretune.data.windows import Windows
from pretune.errors import ConfigError, UnsupportedError
from pretune.evaluation.language_model import HeldOut
from pretune.evaluation.ngrams import NgramBaselines
from pretune.model import Model
from pretune.nn.initialisation import shapes_only
from pretune.registry import find
from pretune.text.tokenizer import Frame, Tokenizer
from pretune.text.training import Kind
from pretune.training import machine
from pretune.training.length import parse_length
from pretune.training.log import read_log
from pretune.training.progress import Reporter, Silent
from pretune.training.run import Run, default_folder, environment
from pretune.training.settings import TrainingSettings
from pretune.training.steps import StepBatches
from pretune.training.trainer import Outcome, Trainer
from pretune.types import Score, Traits
from pretune.workflows import cards, pages
from pretune.workflows.corpus import Prepared, is_prepared, open_prepared, prepare
from pretune.workflows.samples import samples, sentences

_ASSUMED = 8192
"""Tokens of a vocabulary that is not measured yet."""
OBJECTIVES = {"encoder": "masked_lm", "decoder": "causal_lm"}


class PretrainSettings(Settings):
    """What ``pretrain`` takes, from a YAML file, ``key=value`` and keywords alike."""

    corpus: tuple[str, ...]
    """Files and folders of .txt and .jsonl text, or one folder that was prepared before."""
    family: str = "bert"
    objective: str | None = None
    """None: masked_lm for an encoder, causal_lm for a decoder."""
    objective_options: dict[str, Any] = pydantic.Field(default_factory=dict)
    model: dict[str, Any] = pydantic.Field(default_factory=dict)
    """The family's own settings: hidden_size, num_hidden_layers ..."""
    tokenizer: str | None = None
    """A tokenizer.json or a folder with one; None: one is trained on the text."""
    tokenizer_kind: Kind = "bpe"
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
    training: TrainingSettings = TrainingSettings(batch_tokens=1024)
    language: str = "en"
    """Of the report: en or zh."""

    @pydantic.field_validator("vocabulary_size", mode="before")
    @classmethod
    def _a_size(cls, value: object) -> object:
        if value == "auto" or (isinstance(value, int) and value >= 300):
            return value
        raise ValueError("should be a number of tokens, 300 at least, or auto")


@dataclass(frozen=True)
class RunResult:
    """What a run leaves behind."""

    folder: Path
    summary: Mapping[str, Any]

    @property
    def model(self) -> Path:
        """The model folder, in Hugging Face layout."""
        return self.folder / "model"

    @property
    def report(self) -> Path:
        """The page that shows the run."""
        return self.folder / "report.html"


def pretrain(
    settings: PretrainSettings | Mapping[str, Any] | None = None,
    *,
    corpus: str | Path | tuple[str, ...] | list[str] | None = None,
    family: str | None = None,
    budget: str | None = None,
    tokenizer: str | Path | None = None,
    max_length: int | None = None,
    model: Mapping[str, Any] | None = None,
    training: Mapping[str, Any] | None = None,
    language: str | None = None,
    out: str | Path | None = None,
    reporter: Reporter | None = None,
    started: float | None = None,
) -> RunResult:
    """Pretrain a model; the same call goes on where a stopped one ended.

    The keywords are the settings most often given; ``settings`` takes all of them (see
    :class:`PretrainSettings`). ``started`` is the ``time.monotonic()`` that a budget in minutes runs from.

    Raises:
        ConfigError: a setting that pretune does not take, or a run folder of other settings.
        DataError: text that cannot be used.
        Interrupted: a signal came; a checkpoint is saved and the same call goes on.
    """
    started = time.monotonic() if started is None else started
    given = {
        "corpus": [str(corpus)] if isinstance(corpus, str | Path) else corpus,
        "family": family, "budget": budget, "max_length": max_length, "model": model, "training": training,
        "language": language,
        "tokenizer": None if tokenizer is None else str(tokenizer),
    }  # fmt: skip
    resolved = resolve(settings, {k: v for k, v in given.items() if v is not None})
    reporter = reporter or Silent()
    machine.prepare()
    length = parse_length(resolved.budget)
    run = Run.open(
        Path(out) if out else default_folder("pretrain", resolved, list(resolved.corpus)), resolved
    )
    finished = run.summary()
    if finished is not None:
        reporter.say(f"{run.folder}: this run is complete")
        return RunResult(run.folder, finished)
    reporter.say(f"{run.folder}")

    with run.starting():
        tokenizer_given = Tokenizer.load(Path(resolved.tokenizer)) if resolved.tokenizer else None
        _check_tokenizer(resolved, tokenizer_given)
        prepared = prepare(
            resolved.corpus,
            run.folder / "data",
            tokenizer=tokenizer_given,
            vocabulary_size=resolved.vocabulary_size,
            tokenizer_kind=resolved.tokenizer_kind,
            largest_vocabulary=_largest_vocabulary(resolved) if resolved.vocabulary_size == "auto" else None,
            held_out=resolved.held_out,
            validation=resolved.validation,
            reporter=reporter,
        )
        pretraining = _Pretraining(resolved, prepared)
    reporter.say(
        f"  {resolved.family}, {pretraining.model.parameters:,} parameters; on the held-out text a unigram "
        f"model has {pretraining.held_out.unigram:.2f} nats, a bigram model {pretraining.held_out.bigram:.2f}"
    )
    outcome = Trainer(
        keeper=pretraining.model,
        objective=pretraining.objective,
        batches=pretraining.batches,
        evaluate=pretraining.evaluate,
        settings=resolved.training,
        length=length,
        run=run,
        reporter=reporter,
        started=started,
        reserve=3.0,
        name=resolved.family,
    ).train()
    summary = pretraining.summary(outcome)
    _finish(run, resolved, pretraining, summary)
    return RunResult(run.folder, summary)


def resolve(
    settings: PretrainSettings | Mapping[str, Any] | None, given: Mapping[str, Any]
) -> PretrainSettings:
    """The settings with keywords laid over them, checked.

    Raises:
        ConfigError: names the wrong key or value.
    """
    base = settings.model_dump() if isinstance(settings, PretrainSettings) else dict(settings or {})
    values = base | dict(given)
    if isinstance(values.get("training"), Mapping):
        training = dict(values["training"])
        if "batch_tokens" not in training and "batch_examples" not in training:
            training["batch_tokens"] = 1024
        values["training"] = training
    if isinstance(values.get("corpus"), str | Path):
        values["corpus"] = (str(values["corpus"]),)
    resolved = build(PretrainSettings, values, where="pretrain")
    if not resolved.corpus:
        raise ConfigError("pretrain: corpus is empty: give files or folders of text")
    pages.check_language(resolved.language)
    parse_length(resolved.budget)
    family = find("families", resolved.family)
    if resolved.objective is None:
        resolved = resolved.model_copy(update={"objective": OBJECTIVES[family.TRAITS.kind]})
    kind = find("objectives", str(resolved.objective))
    if kind.HEAD not in family.TRAITS.heads or not hasattr(kind, "windowing"):
        raise UnsupportedError(
            f"pretrain: objective = {resolved.objective!r}: family {resolved.family!r} pretrains by "
            f"{OBJECTIVES[family.TRAITS.kind]!r}"
        )
    build(kind.Options, resolved.objective_options, where="pretrain: objective_options")
    _shape(resolved)
    return resolved


def _shape(settings: PretrainSettings) -> Any:
    """The family's config, as far as it is known before the tokenizer is."""
    size = _ASSUMED if settings.vocabulary_size == "auto" else settings.vocabulary_size
    values = {"vocab_size": size, "max_position_embeddings": settings.max_length}
    return build(find("families", settings.family).Config, values | settings.model, where="pretrain: model")


def _check_tokenizer(settings: PretrainSettings, tokenizer: Tokenizer | None) -> None:
    """A tokenizer that the objective cannot use is refused before the text is tokenized."""
    if tokenizer is None:
        return
    traits: Traits = find("families", settings.family).TRAITS
    try:
        find("objectives", str(settings.objective)).Objective(traits, tokenizer.specials)
    except UnsupportedError as error:
        raise UnsupportedError(f"{settings.tokenizer}: {error}") from None


def _parameters(settings: PretrainSettings, **size: int) -> int:
    """How many parameters the model will have, without making it."""
    head = find("objectives", str(settings.objective)).HEAD
    config = _shape(settings).model_copy(update=size)
    with shapes_only():
        network = find("families", settings.family).Network(config, heads=(head,))
    return sum(p.numel() for p in network.parameters())


def _largest_vocabulary(settings: PretrainSettings) -> int:
    """Tokens whose embeddings are half of the parameters: more would make the model mostly a table."""
    once, twice = (_parameters(settings, vocab_size=size) for size in (_ASSUMED, 2 * _ASSUMED))
    return (2 * once - twice) * _ASSUMED // (twice - once)


def rehearse(settings: PretrainSettings) -> dict[str, Any]:
    """Check settings and sources, and say what would be done; nothing is written, no text is tokenized."""
    if is_prepared(settings.corpus):
        prepared = open_prepared(Path(settings.corpus[0]))
        text = {"documents": len(prepared.train), "tokens": prepared.train.tokens}
    else:
        log = RecordLog()
        characters = sum(len(str(r.fields["text"])) for r in read_records(settings.corpus, log=log))
        log.finish()
        text = {"documents": log.good, "characters": characters}
    return {
        "corpus": ", ".join(settings.corpus),
        **text,
        "family": settings.family,
        "objective": settings.objective,
        "parameters": _parameters(settings),
        "length": str(parse_length(settings.budget)),
    }


class _Pretraining:
    """The parts of one pretraining run, made from settings and prepared text alone."""

    def __init__(self, settings: PretrainSettings, prepared: Prepared) -> None:
        self.settings = settings
        self.signature = ""
        kind = find("objectives", str(settings.objective))
        traits: Traits = find("families", settings.family).TRAITS
        frame: Frame = "cls_sep" if traits.kind == "encoder" else "start"
        tokenizer = (
            prepared.tokenizer
            if settings.tokenizer
            else prepared.tokenizer.with_frame(frame, segments=traits.segments)
        )
        specials = tokenizer.specials
        self.model = Model.create(
            settings.family, settings.model, tokenizer, kind.HEAD,
            max_length=settings.max_length, seed=settings.training.seed,
        )  # fmt: skip
        self.model.fingerprints = prepared.fingerprints
        self.objective = kind.Objective(traits, specials, build(kind.Options, settings.objective_options))
        windowing = kind.windowing(specials, settings.max_length)
        self.prepared = prepared
        self.train = Windows.of(prepared.train, windowing)
        self.batches = StepBatches(self.train, self.objective, traits, settings.training, settings.max_length)
        self.held_out = HeldOut(
            Windows.of(prepared.validation, windowing), kind.Objective(traits, specials), kind.contexts,
            tokenizer,
            max_tokens=settings.evaluation_tokens, max_length=settings.max_length,
            every_token=kind.Objective.every_token,
        )  # fmt: skip
        end = [] if windowing.end is None else [windowing.end]
        corpus = prepared.train
        documents = (np.append(corpus.document(i), np.array(end, np.int64)) for i in range(len(corpus)))
        self.held_out.measure_baselines(
            NgramBaselines.fit(documents, specials.vocabulary_size, start=windowing.start)
        )

    def evaluate(self, network: torch.nn.Module, step: int) -> list[Score]:
        """Held-out loss; what decides which checkpoint is best."""
        scores = self.held_out.scores(network)
        self.signature = scores[0].signature
        return scores

    def summary(self, outcome: Outcome) -> dict[str, Any]:
        """What came out, as it stands in summary.json."""
        loss = outcome.scores["loss"]
        return {
            "verb": "pretrain",
            "family": self.settings.family,
            "objective": self.settings.objective,
            "parameters": self.model.parameters,
            "steps": outcome.steps,
            "best_step": outcome.best_step,
            "tokens": outcome.tokens,
            "seconds": round(outcome.seconds, 1),
            "loss": loss,
            "unigram": self.held_out.unigram,
            "bigram": self.held_out.bigram,
            "targets": self.held_out.targets,
            **(
                {"bits_per_byte": outcome.scores["bits_per_byte"]}
                if "bits_per_byte" in outcome.scores
                else {}
            ),
            "signature": self.signature,
        }


def _finish(run: Run, settings: PretrainSettings, parts: _Pretraining, summary: dict[str, Any]) -> None:
    def fill(folder: Path) -> None:
        parts.model.write(folder)
        card = cards.pretrained(settings, parts.prepared, summary)
        (folder / "README.md").write_text(card, encoding="utf-8")

    store.write_folder(run.model, fill, about={"kind": "model"})
    texts = sentences(parts.prepared.validation, parts.model.tokenizer, 6, settings.max_length)
    pages.pretraining(
        run.folder / "report.html", settings, summary, read_log(run.metrics), samples(parts.model, texts),
        environment(), language=settings.language,
    )  # fmt: skip
    run.finish(summary)
