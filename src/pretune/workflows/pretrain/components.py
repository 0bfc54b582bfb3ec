"""The parts of a pretraining run: model, objective, batches and held-out text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from pretune.baselines.ngrams import NgramBaselines
from pretune.data.corpus.build import Prepared
from pretune.data.corpus.pairs import CorpusPairs
from pretune.data.corpus.windows import Windows
from pretune.evaluation.language_model import ROWS, HeldOut
from pretune.model.model import Model
from pretune.objectives import Kind, Mixture
from pretune.registry import find
from pretune.runtime.distributed import World
from pretune.runtime.progress import Reporter
from pretune.runtime.run_folder import Run
from pretune.text.tokenizer import Tokenizer, frame_for
from pretune.training.dataloader import Batches, StepBatches
from pretune.training.mixture import MixedBatches, Part
from pretune.training.oom_backoff import Memory
from pretune.training.sampled_softmax import SampledBatches
from pretune.training.train_state import Outcome
from pretune.types import Learning, Score, Specials, Traits
from pretune.workflows import distillation
from pretune.workflows.pretrain import model_size
from pretune.workflows.pretrain.continue_from import load, tokenizer_of
from pretune.workflows.pretrain.mixture import heads_of
from pretune.workflows.pretrain.settings import PretrainSettings

Store = Windows | CorpusPairs
"""The features of a corpus, as an objective learns from them."""
COUNTED = 1 << 25
"""Tokens that the n-gram models are fitted on at most, about: their pairs lie in memory."""


class Pretraining:
    """The parts of one pretraining run, made from settings and prepared text alone."""

    def __init__(
        self,
        settings: PretrainSettings,
        prepared: Sequence[Prepared],
        run: Run,
        seconds: float | None,
        reporter: Reporter,
        world: World,
    ) -> None:
        """``prepared``: the text of each part. ``seconds`` are left to train, where the length is a time."""
        self.settings, self.run, self.reporter, self.world = settings, run, reporter, world
        self.signatures: dict[str, str] = {}
        self.traits: Traits = find("families", settings.family).TRAITS
        kinds, heads = settings.kinds, heads_of(settings.kinds)
        started_from = settings.start_from
        self.tokenizer = tokenizer_of(started_from) if started_from else self._framed(prepared[0].tokenizer)
        self.prepared = tuple(prepared)
        specials = self.tokenizer.specials
        stores = [
            kind.store(text.train, specials, settings.max_length)
            for kind, text in zip(kinds, prepared, strict=True)
        ]
        self.parts = self._parts(kinds, heads, stores)
        self.objective: Learning = self.parts[0].objective
        ngrams = [_ngrams(store, specials) for store in stores]
        self.batches: Batches = self._sampled(self._batches(), ngrams)
        if len(self.parts) > 1:
            self.objective = Mixture({part.name: part.objective for part in self.parts})
        self.new_heads: tuple[str, ...] = ()
        if started_from:
            seed = settings.training.seed
            self.model, self.new_heads = load(started_from, heads, seed, reporter)
        else:
            self.model = self._new_model(heads, seconds)
        self.model.about["objective"] = kinds[0].name
        if settings.parts[0].columns:
            self.model.about["columns"] = dict(settings.parts[0].columns)
        for text in prepared:
            self.model.fingerprints = text.fingerprints.merged(self.model.fingerprints)
        self.memory = Memory(run, "evaluation", ROWS, reporter.say, alone=world.size == 1)
        self.held_out = {
            part.name: self._held_out(kind, text, known)
            for part, kind, text, known in zip(self.parts, kinds, prepared, ngrams, strict=True)
        }

    @property
    def first(self) -> HeldOut:
        """What decides which checkpoint is best: the held-out text of the first part."""
        return self.held_out[self.parts[0].name]

    def _parts(
        self, kinds: Sequence[Kind], heads: tuple[str, ...], stores: Sequence[Store]
    ) -> tuple[Part, ...]:
        """What is learnt from the text of each part; one alone may have a teacher at its side."""
        settings, specials = self.settings, self.tokenizer.specials
        student = distillation.Student(
            self.tokenizer, self.traits, heads, settings.max_length, self.world.device
        )
        teacher = distillation.Teacher.named(settings.distillation, student, self.reporter)
        distillation.keep(teacher, self.run)
        self.teacher = distillation.told(teacher)
        found = []
        for part, kind, store in zip(settings.parts, kinds, stores, strict=True):
            made = kind.make(self.traits, specials, part.objective_options, store)
            name = str(part.name)
            found.append(Part(name, part.weight, store, distillation.beside(teacher, made)))
            self._say_what_is_cut(name, store)
        return tuple(found)

    def _say_what_is_cut(self, name: str, store: Store) -> None:
        if isinstance(store, CorpusPairs) and store.cut:
            self.reporter.say(
                f"  {name}: {store.cut:,} of {len(store):,} pairs have a source or a target of more than "
                f"{store.length} tokens, and are cut there (max_length = {self.settings.max_length})"
            )

    def _batches(self) -> Batches:
        settings, [part, *others] = self.settings, self.parts
        if others:
            return MixedBatches(self.parts, self.traits, settings.training, settings.max_length, self.world)
        return StepBatches(
            part.store, part.objective, self.traits, settings.training, settings.max_length, self.world
        )

    def _sampled(self, batches: Batches, ngrams: Sequence[NgramBaselines]) -> Batches:
        """The batches, with words to estimate losses from where that is asked for and saves something."""
        sampled, size = self.settings.sampled_softmax, self.tokenizer.specials.vocabulary_size
        if sampled is None or sampled.drawn_of(size) == size:
            return batches
        weighed = [part.weight * known.unigram for part, known in zip(self.parts, ngrams, strict=True)]
        return SampledBatches(batches, sampled, np.sum(weighed, 0), self.settings.training.seed)

    def _held_out(self, kind: Kind, text: Prepared, ngrams: NgramBaselines) -> HeldOut:
        """The held-out text of a part, with the n-gram models of its training text."""
        settings, specials = self.settings, self.tokenizer.specials
        held = kind.store(text.validation, specials, settings.max_length)
        found = HeldOut(
            held, kind.scoring(self.traits, specials, held), kind.contexts, self.tokenizer,
            max_tokens=settings.evaluation_tokens, max_length=settings.max_length,
            every_token=kind.every_token, packing=self.traits.packing, world=self.world,
        )  # fmt: skip
        found.measure_baselines(ngrams)
        return found

    def _framed(self, tokenizer: Tokenizer) -> Tokenizer:
        """A tokenizer that was given stays as it is; one that was trained gets the family's frame.

        And it gets the sentinels that the objectives need.
        """
        if self.settings.tokenizer:
            return tokenizer
        framed = tokenizer.with_frame(frame_for(self.traits), segments=self.traits.segments)
        return framed.with_sentinels(self.settings.sentinels)

    def _new_model(self, heads: tuple[str, ...], seconds: float | None) -> Model:
        settings = self.settings

        def create(shape: Mapping[str, Any]) -> Model:
            return Model.create(
                settings.family, {**settings.model, **shape}, self.tokenizer, "+".join(heads),
                max_length=settings.max_length, seed=settings.training.seed,
            )  # fmt: skip

        if seconds is None or model_size.decided(settings.model):
            return create({})
        plan = self.run.plan()
        if "model" not in plan:
            trial = model_size.fitted(
                lambda shape: create(shape.settings()).network, self.objective, self.batches,
                settings.training.optimizer, seconds=seconds,
                corpus_tokens=sum(text.train.tokens for text in self.prepared),
            )  # fmt: skip
            self.reporter.say(
                f"  {trial.shape}: {trial.tokens_per_second:,.0f} tokens/s here; the largest size that the "
                "time and the text repay (model.hidden_size=... decides it yourself)"
            )
            plan |= {"model": trial.shape.settings()}
            self.run.write_plan(plan)
        return create(plan["model"])

    def levels_in_training(self) -> dict[str, float]:
        """The losses of the n-gram models, those of several parts added up by their shares."""
        whole = sum(part.weight for part in self.parts)
        held = [(part.weight / whole, self.held_out[part.name]) for part in self.parts]
        return {
            "unigram": sum(share * found.unigram for share, found in held),
            "bigram": sum(share * found.bigram for share, found in held),
        }

    def evaluate(self, network: torch.nn.Module, step: int) -> list[Score]:
        """Held-out losses; the first part's decides which checkpoint is best."""
        found = self.memory.fitted(
            step, lambda rows: {part: held.scores(network, rows) for part, held in self.held_out.items()}
        )
        self.signatures = {part: scores[0].signature for part, scores in found.items()}
        return [
            replace(score, name=self._called(score.name, part))
            for part, scores in found.items()
            for score in scores
        ]

    def _called(self, score: str, part: str) -> str:
        """The name of a part's score beside those of the others: ``loss/prefix_lm``."""
        return f"{score}/{part}" if len(self.parts) > 1 else score

    def of_part(self, scores: Mapping[str, float], part: str) -> dict[str, float]:
        """The scores of one part, by the names that they have without a mixture."""
        end = self._called("", part)
        return {name.removesuffix(end): value for name, value in scores.items() if name.endswith(end)}

    def summary(self, outcome: Outcome, before: Mapping[str, float] | None) -> dict[str, Any]:
        """What came out, as it stands in summary.json."""
        [first, *others] = self.held_out
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
            **self._measured(first, outcome),
            **({} if before is None else self._origin(self.of_part(before, first))),
            **({"mixture": self._mixture(outcome)} if others else {}),
        }

    def _measured(self, part: str, outcome: Outcome) -> dict[str, Any]:
        """A part's scores and what stands beside them."""
        held, scores = self.held_out[part], self.of_part(outcome.scores, part)
        return {
            "loss": scores["loss"],
            "unigram": held.unigram,
            "bigram": held.bigram,
            "targets": held.targets,
            "held_out": held.fingerprint,
            **{name: value for name, value in scores.items() if name not in ("loss", "perplexity")},
            **held.majorities,
            "signature": self.signatures.get(part, ""),
        }

    def _mixture(self, outcome: Outcome) -> dict[str, Any]:
        """Each part by its name: what it was, its share of the run, its scores."""
        whole = sum(part.weight for part in self.parts)
        return {
            str(part.name): {
                "objective": part.objective,
                "corpus": list(text.sources),
                "share": round(part.weight / whole, 6),
                **self._measured(str(part.name), outcome),
            }
            for part, text in zip(self.settings.parts, self.prepared, strict=True)
        }

    def _origin(self, before: Mapping[str, float]) -> dict[str, Any]:
        """Where it started from, and what that was worth on the held-out text."""
        return {
            "start_from": self.settings.start_from,
            "new_heads": list(self.new_heads),
            "before": dict(before),
        }


def _ngrams(store: Store, specials: Specials) -> NgramBaselines:
    """Fitted on what a store tells; of very much, on documents evenly apart."""
    apart = max(1, -(-int(store.lengths[:, -1].sum()) // COUNTED))
    return NgramBaselines.fit(store.told(specials, apart), specials.vocabulary_size, start=store.start)
