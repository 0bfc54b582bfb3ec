"""The parts of a pretraining run: model, objective, batches and held-out text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from pretune.baselines.ngrams import NgramBaselines
from pretune.data.corpus.build import TokenizedCorpus
from pretune.data.corpus.pairs import CorpusPairs
from pretune.data.corpus.windows import Windows
from pretune.evaluation.language_model import DEFAULT_ROWS, HeldOutSet
from pretune.model.model import Model
from pretune.objectives import ObjectiveSpec
from pretune.objectives.wrappers.sampled_softmax import NegativeSampler, SampledSoftmaxObjective
from pretune.registry import find
from pretune.runtime.distributed import World
from pretune.runtime.progress import Reporter
from pretune.runtime.run_folder import Run
from pretune.text.tokenizer import Tokenizer, template_for
from pretune.training.dataloader import DataLoader, DataLoaderLike
from pretune.training.mixture import MixtureComponent, MixtureDataLoader
from pretune.training.oom_backoff import OOMBackoff
from pretune.training.train_state import TrainResult
from pretune.types import Score, SpecialTokens, Traits
from pretune.workflows import distillation
from pretune.workflows.pretrain import model_size
from pretune.workflows.pretrain.continue_from import load_start_model, start_tokenizer
from pretune.workflows.pretrain.mixture import merge_heads
from pretune.workflows.pretrain.settings import PretrainSettings

CorpusFeatures = Windows | CorpusPairs
"""The features of a corpus, as an objective learns from them."""
MAX_NGRAM_TOKENS = 1 << 25
"""Tokens that the n-gram models are fitted on at most, about: their pairs lie in memory."""


class PretrainSetup:
    """The parts of one pretraining run, made from settings and prepared text alone."""

    def __init__(
        self,
        settings: PretrainSettings,
        corpora: Sequence[TokenizedCorpus],
        run: Run,
        seconds: float | None,
        reporter: Reporter,
        world: World,
    ) -> None:
        """``corpora``: the text of each part. ``seconds`` are left to train, where the length is a time."""
        self.settings, self.run, self.reporter, self.world = settings, run, reporter, world
        self.signatures: dict[str, str] = {}
        self.traits: Traits = find("families", settings.family).TRAITS
        specs, heads = settings.objective_specs, merge_heads(settings.objective_specs)
        started_from = settings.start_from
        self.tokenizer = (
            start_tokenizer(started_from) if started_from else self._configure_tokenizer(corpora[0].tokenizer)
        )
        self.corpora = tuple(corpora)
        specials = self.tokenizer.specials
        stores = [
            spec.feature_store(text.train, specials, settings.max_length)
            for spec, text in zip(specs, corpora, strict=True)
        ]
        self.components = self._build_components(specs, heads, stores)
        ngrams = [_fit_ngrams(store, specials) for store in stores]
        self.components = self._with_sampled_softmax(self.components, ngrams)
        self.dataloader = self._build_dataloader()
        self.new_heads: tuple[str, ...] = ()
        if started_from:
            seed = settings.training.seed
            self.model, self.new_heads = load_start_model(started_from, heads, seed, reporter)
        else:
            self.model = self._create_model(heads, seconds)
        self.model.metadata["objective"] = specs[0].name
        if settings.components[0].columns:
            self.model.metadata["columns"] = dict(settings.components[0].columns)
        for text in corpora:
            self.model.fingerprints = text.fingerprints.merge(self.model.fingerprints)
        self.oom_backoff = OOMBackoff(
            run, "evaluation", DEFAULT_ROWS, reporter.say, single_process=world.world_size == 1
        )
        self.held_out = {
            component.name: self._build_held_out(kind, text, known)
            for component, kind, text, known in zip(self.components, specs, corpora, ngrams, strict=True)
        }

    @property
    def primary_held_out(self) -> HeldOutSet:
        """What decides which checkpoint is best: the held-out text of the first part."""
        return self.held_out[self.components[0].name]

    def _build_components(
        self, specs: Sequence[ObjectiveSpec], heads: tuple[str, ...], stores: Sequence[CorpusFeatures]
    ) -> tuple[MixtureComponent, ...]:
        """What is learnt from the text of each part; one alone may have a teacher at its side."""
        settings, specials = self.settings, self.tokenizer.specials
        student = distillation.StudentSpec(
            self.tokenizer, self.traits, heads, settings.max_length, self.world.device
        )
        teacher = distillation.Teacher.from_settings(settings.distillation, student, self.reporter)
        distillation.record_teacher(teacher, self.run)
        self.teacher_summary = distillation.teacher_summary(teacher)
        found = []
        for component, spec, store in zip(settings.components, specs, stores, strict=True):
            inner_objective = spec.build_objective(self.traits, specials, component.objective_options, store)
            name = str(component.name)
            found.append(
                MixtureComponent(
                    name, component.weight, store, distillation.wrap_objective(teacher, inner_objective)
                )
            )
            self._report_truncation(name, store)
        return tuple(found)

    def _report_truncation(self, name: str, store: CorpusFeatures) -> None:
        if isinstance(store, CorpusPairs) and store.num_truncated:
            self.reporter.say(
                f"  {name}: {store.num_truncated:,} of {len(store):,} pairs have a source or a target of "
                "more than "
                f"{store.max_length} tokens, and are cut there (max_length = {self.settings.max_length})"
            )

    def _build_dataloader(self) -> DataLoaderLike:
        settings, [component, *others] = self.settings, self.components
        if others:
            return MixtureDataLoader(
                self.components, self.traits, settings.training, settings.max_length, self.world
            )
        return DataLoader(
            component.store,
            component.objective,
            self.traits,
            settings.training,
            settings.max_length,
            self.world,
        )

    def _with_sampled_softmax(
        self, components: tuple[MixtureComponent, ...], ngrams: Sequence[NgramBaselines]
    ) -> tuple[MixtureComponent, ...]:
        """The components, their losses estimated where that is asked for and saves something."""
        sampled, size = self.settings.sampled_softmax, self.tokenizer.specials.vocabulary_size
        if sampled is None or sampled.resolve_num_sampled(size) == size:
            return components
        weighted_unigrams = [
            component.weight * known.unigram_probabilities
            for component, known in zip(components, ngrams, strict=True)
        ]
        sampler = NegativeSampler(sampled, np.sum(weighted_unigrams, 0), self.settings.training.seed)
        return tuple(replace(c, objective=SampledSoftmaxObjective(c.objective, sampler)) for c in components)

    def _build_held_out(
        self, spec: ObjectiveSpec, corpus: TokenizedCorpus, ngrams: NgramBaselines
    ) -> HeldOutSet:
        """The held-out text of a part, with the n-gram models of its training text."""
        settings, specials = self.settings, self.tokenizer.specials
        held = spec.feature_store(corpus.validation, specials, settings.max_length)
        found = HeldOutSet(
            held, spec.evaluation_objective(self.traits, specials, held), spec.ngram_contexts, self.tokenizer,
            max_tokens=settings.evaluation_tokens, max_length=settings.max_length,
            every_token=spec.predicts_every_token, packing=self.traits.supports_packing, world=self.world,
        )  # fmt: skip
        found.measure_baselines(ngrams)
        return found

    def _configure_tokenizer(self, tokenizer: Tokenizer) -> Tokenizer:
        """A tokenizer that was given stays as it is; one that was trained gets the family's frame.

        And it gets the sentinels that the objectives need.
        """
        if self.settings.tokenizer:
            return tokenizer
        configured = tokenizer.with_template(
            template_for(self.traits), segments=self.traits.has_segment_embeddings
        )
        return configured.with_sentinels(self.settings.num_sentinels)

    def _create_model(self, heads: tuple[str, ...], seconds: float | None) -> Model:
        settings = self.settings

        def create(shape: Mapping[str, Any]) -> Model:
            return Model.create(
                settings.family, {**settings.model, **shape}, self.tokenizer, "+".join(heads),
                max_length=settings.max_length, seed=settings.training.seed,
            )  # fmt: skip

        if seconds is None or model_size.is_size_given(settings.model):
            return create({})
        plan = self.run.read_plan()
        if "model" not in plan:
            trial = model_size.choose_size(
                lambda shape: create(shape.to_settings()).network, self.dataloader,
                settings.training.optimizer, seconds=seconds,
                corpus_tokens=sum(text.train.num_tokens for text in self.corpora),
            )  # fmt: skip
            self.reporter.say(
                f"  {trial.shape}: {trial.tokens_per_second:,.0f} tokens/s here; the largest size that the "
                "time and the text repay (model.hidden_size=... decides it yourself)"
            )
            plan |= {"model": trial.shape.to_settings()}
            self.run.write_plan(plan)
        return create(plan["model"])

    def training_reference_losses(self) -> dict[str, float]:
        """The losses of the n-gram models, those of several parts added up by their shares."""
        total_weight = sum(part.weight for part in self.components)
        held = [
            (component.weight / total_weight, self.held_out[component.name]) for component in self.components
        ]
        return {
            "unigram": sum(share * found.unigram_loss for share, found in held),
            "bigram": sum(share * found.bigram_loss for share, found in held),
        }

    def evaluate(self, network: torch.nn.Module, step: int) -> list[Score]:
        """Held-out losses; the first part's decides which checkpoint is best."""
        found = self.oom_backoff.run_with_backoff(
            step, lambda rows: {part: held.evaluate(network, rows) for part, held in self.held_out.items()}
        )
        self.signatures = {component: scores[0].signature for component, scores in found.items()}
        return [
            replace(score, name=self._score_name(score.name, part))
            for part, scores in found.items()
            for score in scores
        ]

    def _score_name(self, score: str, component: str) -> str:
        """The name of a part's score beside those of the others: ``loss/prefix_lm``."""
        return f"{score}/{component}" if len(self.components) > 1 else score

    def component_scores(self, scores: Mapping[str, float], component: str) -> dict[str, float]:
        """The scores of one part, by the names that they have without a mixture."""
        end = self._score_name("", component)
        return {name.removesuffix(end): value for name, value in scores.items() if name.endswith(end)}

    def summary(self, result: TrainResult, initial_scores: Mapping[str, float] | None) -> dict[str, Any]:
        """What came out, as it stands in summary.json."""
        [first, *others] = self.held_out
        return {
            "verb": "pretrain",
            "family": self.settings.family,
            "objective": self.settings.objective,
            **self.teacher_summary,
            "parameters": self.model.num_parameters,
            "steps": result.steps,
            "best_step": result.best_step,
            "tokens": result.tokens,
            "seconds": round(result.seconds, 1),
            **self._component_summary(first, result),
            **(
                {}
                if initial_scores is None
                else self._start_summary(self.component_scores(initial_scores, first))
            ),
            **({"mixture": self._mixture_summary(result)} if others else {}),
        }

    def _component_summary(self, component: str, result: TrainResult) -> dict[str, Any]:
        """A part's scores and what stands beside them."""
        held, scores = self.held_out[component], self.component_scores(result.best_scores, component)
        return {
            "loss": scores["loss"],
            "unigram_loss": held.unigram_loss,
            "bigram_loss": held.bigram_loss,
            "num_targets": held.num_targets,
            "held_out_fingerprint": held.fingerprint,
            **{name: value for name, value in scores.items() if name not in ("loss", "perplexity")},
            **held.majority_shares,
            "signature": self.signatures.get(component, ""),
        }

    def _mixture_summary(self, result: TrainResult) -> dict[str, Any]:
        """Each part by its name: what it was, its share of the run, its scores."""
        total_weight = sum(component.weight for component in self.components)
        return {
            str(part.name): {
                "objective": part.objective,
                "corpus": list(text.sources),
                "share": round(part.weight / total_weight, 6),
                **self._component_summary(str(part.name), result),
            }
            for part, text in zip(self.settings.components, self.corpora, strict=True)
        }

    def _start_summary(self, initial_scores: Mapping[str, float]) -> dict[str, Any]:
        """Where it started from, and what that was worth on the held-out text."""
        return {
            "start_from": self.settings.start_from,
            "new_heads": list(self.new_heads),
            "initial_scores": dict(initial_scores),
        }


def _fit_ngrams(store: CorpusFeatures, specials: SpecialTokens) -> NgramBaselines:
    """Fitted on what a store tells; of very much, on documents evenly apart."""
    every = max(1, -(-int(store.lengths[:, -1].sum()) // MAX_NGRAM_TOKENS))
    return NgramBaselines.fit(
        store.iter_targets(specials, every), specials.vocabulary_size, bos_id=store.bos_id
    )
