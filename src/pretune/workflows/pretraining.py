"""The parts of a pretraining run: model, objective, batches and held-out text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from pretune.data.windows import Windows
from pretune.evaluation.language_model import ROWS, HeldOut
from pretune.evaluation.ngrams import NgramBaselines
from pretune.model import Model
from pretune.objectives import Kind, objective_of
from pretune.registry import find
from pretune.text.tokenizer import Tokenizer, frame_for
from pretune.training.memory import Memory
from pretune.training.outcome import Outcome
from pretune.training.progress import Reporter
from pretune.training.run import Run
from pretune.training.steps import StepBatches
from pretune.training.world import World
from pretune.types import Score, Traits
from pretune.workflows import sizing, teaching
from pretune.workflows.continued import load, tokenizer_of
from pretune.workflows.corpus import Prepared
from pretune.workflows.pretrain_settings import PretrainSettings


class Pretraining:
    """The parts of one pretraining run, made from settings and prepared text alone."""

    def __init__(
        self,
        settings: PretrainSettings,
        prepared: Prepared,
        run: Run,
        seconds: float | None,
        reporter: Reporter,
        world: World,
    ) -> None:
        """``seconds`` are left for training, where the length is a time."""
        self.settings, self.run, self.reporter = settings, run, reporter
        self.signature = ""
        kind = objective_of(str(settings.objective))
        traits: Traits = find("families", settings.family).TRAITS
        started_from = settings.start_from
        tokenizer = (
            tokenizer_of(started_from) if started_from else self._framed(prepared.tokenizer, traits, kind)
        )
        specials = tokenizer.specials
        windowing = kind.windowing(specials, settings.max_length)
        self.prepared = prepared
        self.train = Windows.of(prepared.train, windowing)
        student = teaching.Student(tokenizer, traits, kind.heads, settings.max_length, world.device)
        teacher = teaching.Teacher.named(settings.distillation, student, reporter)
        teaching.keep(teacher, run)
        self.teacher = teaching.told(teacher)
        self.objective = teaching.beside(
            teacher, kind.make(traits, specials, settings.objective_options, self.train)
        )
        self.batches = StepBatches(
            self.train, self.objective, traits, settings.training, settings.max_length, world
        )
        self.new_heads: tuple[str, ...] = ()
        if started_from:
            seed = settings.training.seed
            self.model, self.new_heads = load(started_from, kind.heads, seed, reporter)
        else:
            self.model = self._new_model(tokenizer, kind.heads, seconds)
        self.model.about["objective"] = kind.name
        self.model.fingerprints = prepared.fingerprints.merged(self.model.fingerprints)
        self.memory = Memory(run, "evaluation", ROWS, reporter.say, alone=world.size == 1)
        held = Windows.of(prepared.validation, windowing)
        self.held_out = HeldOut(
            held, kind.scoring(traits, specials, held), kind.contexts, tokenizer,
            max_tokens=settings.evaluation_tokens, max_length=settings.max_length,
            every_token=kind.every_token, packing=traits.packing,
            world=world,
        )  # fmt: skip
        end = [] if windowing.end is None else [windowing.end]
        corpus = prepared.train
        documents = (np.append(corpus.document(i), np.array(end, np.int64)) for i in range(len(corpus)))
        self.held_out.measure_baselines(
            NgramBaselines.fit(documents, specials.vocabulary_size, start=windowing.start)
        )

    def _framed(self, tokenizer: Tokenizer, traits: Traits, kind: Kind) -> Tokenizer:
        """A tokenizer that was given stays as it is; one that was trained gets the family's frame.

        And it gets the sentinels that the objective needs.
        """
        if self.settings.tokenizer:
            return tokenizer
        framed = tokenizer.with_frame(frame_for(traits), segments=traits.segments)
        return framed.with_sentinels(kind.sentinels)

    def _new_model(self, tokenizer: Tokenizer, heads: tuple[str, ...], seconds: float | None) -> Model:
        settings = self.settings

        def create(shape: Mapping[str, Any]) -> Model:
            return Model.create(
                settings.family, {**settings.model, **shape}, tokenizer, "+".join(heads),
                max_length=settings.max_length, seed=settings.training.seed,
            )  # fmt: skip

        if seconds is None or sizing.decided(settings.model):
            return create({})
        plan = self.run.plan()
        if "model" not in plan:
            trial = sizing.fitted(
                lambda shape: create(shape.settings()).network, self.objective, self.batches,
                settings.training.optimizer, seconds=seconds, corpus_tokens=self.prepared.train.tokens,
            )  # fmt: skip
            self.reporter.say(
                f"  {trial.shape}: {trial.tokens_per_second:,.0f} tokens/s here; the largest size that the "
                "time and the text repay (model.hidden_size=... decides it yourself)"
            )
            plan |= {"model": trial.shape.settings()}
            self.run.write_plan(plan)
        return create(plan["model"])

    def evaluate(self, network: torch.nn.Module, step: int) -> list[Score]:
        """Held-out loss; what decides which checkpoint is best."""
        scores = self.memory.fitted(step, lambda rows: self.held_out.scores(network, rows))
        self.signature = scores[0].signature
        return scores

    def summary(self, outcome: Outcome, before: Mapping[str, float] | None) -> dict[str, Any]:
        """What came out, as it stands in summary.json."""
        loss = outcome.scores["loss"]
        return {
            "verb": "pretrain",
            "family": self.settings.family,
            "objective": self.settings.objective,
            **self.teacher,
            "parameters": self.model.parameters,
            "steps": outcome.steps,
            "best_step": outcome.best_step,
            "tokens": outcome.tokens,
            "seconds": round(outcome.seconds, 1),
            "loss": loss,
            **({} if before is None else self._origin(before)),
            "unigram": self.held_out.unigram,
            "bigram": self.held_out.bigram,
            "targets": self.held_out.targets,
            "held_out": self.held_out.fingerprint,
            **{name: value for name, value in outcome.scores.items() if name not in ("loss", "perplexity")},
            **self.held_out.majorities,
            "signature": self.signature,
        }

    def _origin(self, before: Mapping[str, float]) -> dict[str, Any]:
        """Where it started from, and what that was worth on the held-out text."""
        return {
            "start_from": self.settings.start_from,
            "new_heads": list(self.new_heads),
            "before": dict(before),
        }
