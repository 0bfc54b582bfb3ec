"""One file an objective: a feature in, a loss out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from types import ModuleType
from typing import Any

from pretune.config import Settings, build_settings
from pretune.data.corpus.pairs import CorpusPairs, pair_separator_id
from pretune.data.corpus.token_shards import Corpus
from pretune.data.corpus.windows import Windows
from pretune.errors import ConfigError
from pretune.objectives.base import Objective as Objective
from pretune.objectives.base import Recipe
from pretune.objectives.wrappers.combined import CombinedObjective
from pretune.objectives.wrappers.distillation import DistillationObjective as DistillationObjective
from pretune.objectives.wrappers.distillation import DistillationSettings as DistillationSettings
from pretune.objectives.wrappers.distillation import check_hidden_sizes as check_hidden_sizes
from pretune.registry import find, list_names
from pretune.types import Example, Feature, FeatureStore, IntArray, SpecialTokens, Traits, WindowSpec

DEFAULT_OBJECTIVES = {"encoder": "masked_lm", "decoder": "causal_lm", "encoder-decoder": "span_corruption"}
"""What a family is pretrained by, by its architecture; a family may name another in its traits."""


@dataclass(frozen=True)
class ObjectiveSpec:
    """An objective by its name, or several that are trained together: ``masked_lm+next_sentence``.

    Of several the last builds the examples, and each before it hides what it asks for.
    """

    classes: tuple[type[Objective], ...]

    @property
    def first(self) -> type[Objective]:
        """The one whose loss is reported."""
        return self.classes[0]

    @property
    def name(self) -> str:
        """As a setting says it."""
        return "+".join(objective.name() for objective in self.classes)

    @property
    def heads(self) -> tuple[str, ...]:
        """Heads that it trains, the first one first."""
        return tuple(head for objective in self.classes for head in objective.heads)

    @property
    def is_pretraining(self) -> bool:
        """Is it learnt from a corpus? Then its loss stands beside that of n-gram models of the same text."""
        return self.first.is_pretraining

    @property
    def predicts_every_token(self) -> bool:
        """Does an epoch predict every token of the text? Then its loss has a meaning per byte."""
        return self.first.predicts_every_token

    @property
    def recipe(self) -> Recipe:
        """What training from random weights does, where the settings leave it open."""
        return self.first.recipe

    @property
    def uses_sampled_softmax(self) -> bool:
        """Does the recipe estimate its loss from a part of the vocabulary?"""
        return all(objective.recipe.sampled_softmax for objective in self.classes)

    def is_supported_by(self, traits: Traits) -> bool:
        """Has a family of these traits what it trains?"""
        return set(self.heads) <= set(traits.heads) and all(
            traits.architecture in objective.architectures for objective in self.classes
        )

    @property
    def evaluates_hidden_only(self) -> bool:
        """Is held-out text scored at hidden tokens alone, while training counts easier ones, too?"""
        return bool(self.first.evaluation_options)

    @property
    def num_sentinels(self) -> int:
        """How many tokens for hidden spans a tokenizer needs for it."""
        return max(objective.num_sentinels for objective in self.classes)

    @property
    def columns(self) -> tuple[str, ...]:
        """The fields of a record that it learns from: one text, or a source and a target."""
        return self.classes[-1].fields

    def feature_store(
        self, corpus: Corpus, specials: SpecialTokens, max_length: int
    ) -> Windows | CorpusPairs:
        """The features of a corpus that was made of these ``columns``.

        Raises:
            DataError: it was made of others, or no document is long enough.
            UnsupportedError: the tokenizer cannot part a pair.
        """
        windowing = self.window_spec(specials, max_length)
        joint = pair_separator_id(self.columns, specials)
        return (
            Windows.from_windowing(corpus, windowing)
            if joint is None
            else CorpusPairs(corpus, windowing.length, joint)
        )

    @property
    def sample_labels(self) -> tuple[str, ...]:
        """The labels that `sample` chooses from, if it learns from labelled records."""
        return self.classes[-1].sample_labels

    def sample(self, record: int, tokens: IntArray, label: int) -> Feature:
        """A feature that it can learn from, made of any text (`Objective.sample`)."""
        return self.classes[-1].sample(record, tokens, label)

    def window_spec(self, specials: SpecialTokens, max_length: int) -> WindowSpec:
        """How documents are cut."""
        return self.classes[-1].window_spec(specials, max_length)

    def ngram_contexts(
        self, feature: Feature, example: Example, specials: SpecialTokens
    ) -> tuple[IntArray, IntArray]:
        """(previous token, target) of each position that the first objective predicts."""
        return self.first.ngram_contexts(feature, example, specials)

    def evaluation_objective(self, traits: Traits, specials: SpecialTokens, store: FeatureStore) -> Objective:
        """What held-out text is scored by: default settings, the loss at hidden text alone."""
        return self.build_objective(traits, specials, self.first.evaluation_options, store)

    def evaluation_objectives(
        self, traits: Traits, specials: SpecialTokens, store: FeatureStore
    ) -> dict[str, Objective]:
        """`evaluation_objective` under no name, and those whose losses compare with another objective's."""
        others = {
            name: self.build_objective(traits, specials, options, store)
            for name, options in self.first.extra_evaluations.items()
        }
        return {"": self.evaluation_objective(traits, specials, store), **others}

    def check_options(self, options: Mapping[str, Any], where: str) -> None:
        """See that the options are such as it takes.

        Raises:
            ConfigError: a key that it does not know, or a wrong value.
        """
        self._parse_options(options, where)

    def build_objective(
        self,
        traits: Traits,
        specials: SpecialTokens,
        options: Mapping[str, Any] | None = None,
        store: FeatureStore | None = None,
    ) -> Objective:
        """The objective; ``store`` is where it draws other texts from.

        Raises:
            UnsupportedError: the family or the tokenizer lacks what it needs.
        """
        objectives = [
            objective(traits, specials, chosen, store)
            for objective, chosen in zip(self.classes, self._parse_options(options or {}, ""), strict=True)
        ]
        combined = objectives[-1]
        for objective in reversed(objectives[:-1]):
            combined = CombinedObjective(objective, combined)
        return combined

    def _parse_options(self, options: Mapping[str, Any], where: str) -> list[Settings]:
        """Each part takes the options that it knows; the first one reports those that none does."""
        known = [set(objective.options_type.model_fields) for objective in self.classes]
        others = set().union(*known[1:])
        split_options = [{k: v for k, v in options.items() if k in fields} for fields in known]
        split_options[0] = {
            key: value for key, value in options.items() if key not in others or key in known[0]
        }
        return [
            build_settings(objective.options_type, chosen, where=where)
            for objective, chosen in zip(self.classes, split_options, strict=True)
        ]


def find_objective(name: str) -> type[Objective]:
    """The objective of a file of this folder.

    Raises:
        ConfigError: there is none of that name.
    """
    found: type[Objective] = find("objectives", name).Objective
    return found


def list_objectives() -> list[str]:
    """The names of the objectives, in alphabetical order."""
    return list_names("objectives")


def parse_objective(name: str) -> ObjectiveSpec:
    """The objective, or those joined by ``+``, that a setting names.

    Raises:
        ConfigError: there is none of that name, or they cannot be trained together in this order.
    """
    spec = ObjectiveSpec(tuple(find_objective(part.strip()) for part in name.split("+")))
    for objective in spec.classes[:-1]:
        if not objective.is_masking:
            raise ConfigError(
                f"objective = {name!r}: {objective.heads[0]} builds its own examples and can only come last; "
                "masked_lm can come before it, as in masked_lm+next_sentence"
            )
    return spec


def default_objective(family: ModuleType) -> str:
    """The objective that a family is pretrained by, where none is named."""
    traits: Traits = family.TRAITS
    return traits.objective or DEFAULT_OBJECTIVES[traits.architecture]


def objectives_for_heads(heads: str) -> list[str]:
    """The objectives, or those joined by ``+``, that train just these heads, which are joined likewise."""
    known = [(name, find_objective(name).heads) for name in list_objectives()]
    choices = [[name for name, trained in known if trained == (head,)] for head in heads.split("+")]
    return ["+".join(chosen) for chosen in product(*choices)]
