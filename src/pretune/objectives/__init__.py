"""One file an objective: a feature in, a loss out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from types import ModuleType
from typing import Any

from pretune.config import build_settings
from pretune.data.corpus.pairs import CorpusPairs, pair_separator_id
from pretune.data.corpus.token_shards import Corpus
from pretune.data.corpus.windows import Windows
from pretune.errors import ConfigError
from pretune.objectives.wrappers.combined import CombinedObjective, ExampleBuilder
from pretune.objectives.wrappers.distillation import DistillationObjective as DistillationObjective
from pretune.objectives.wrappers.distillation import DistillationSettings as DistillationSettings
from pretune.objectives.wrappers.distillation import check_hidden_sizes as check_hidden_sizes
from pretune.objectives.wrappers.mixture import MixtureObjective as MixtureObjective
from pretune.objectives.wrappers.mixture import mixture_term as mixture_term
from pretune.objectives.wrappers.scheduled import Scheduled as Scheduled
from pretune.objectives.wrappers.scheduled import at_progress as at_progress
from pretune.registry import find, list_names
from pretune.types import (
    Example,
    Feature,
    FeatureStore,
    IntArray,
    ObjectiveLike,
    SpecialTokens,
    Traits,
    WindowSpec,
)

DEFAULT_OBJECTIVES = {"encoder": "masked_lm", "decoder": "causal_lm", "encoder-decoder": "span_corruption"}
"""What a family is pretrained by, by its kind; a family may name another as its ``OBJECTIVE``."""


@dataclass(frozen=True)
class ObjectiveSpec:
    """An objective by its name, or several that are trained together: ``masked_lm+next_sentence``.

    Of several the last builds the examples, and each before it hides what it asks for.
    """

    modules: tuple[ModuleType, ...]

    @property
    def name(self) -> str:
        """As a setting says it."""
        return "+".join(module.__name__.rpartition(".")[2] for module in self.modules)

    @property
    def heads(self) -> tuple[str, ...]:
        """Heads that it trains, the first one first."""
        return tuple(module.HEAD for module in self.modules)

    @property
    def is_pretraining(self) -> bool:
        """Is it learnt from a corpus? Then its loss stands beside that of n-gram models of the same text."""
        return hasattr(self.modules[0], "ngram_contexts")

    @property
    def predicts_every_token(self) -> bool:
        """Does an epoch predict every token of the text? Then its loss has a meaning per byte."""
        return bool(self.modules[0].Objective.predicts_every_token)

    def is_supported_by(self, traits: Traits) -> bool:
        """Has a family of these traits what it trains?"""
        architectures = [getattr(module, "ARCHITECTURES", (traits.architecture,)) for module in self.modules]
        return set(self.heads) <= set(traits.heads) and all(
            traits.architecture in known for known in architectures
        )

    @property
    def evaluates_hidden_only(self) -> bool:
        """Is held-out text scored at hidden tokens alone, while training counts easier ones, too?"""
        return hasattr(self.modules[0], "EVALUATION_OPTIONS")

    @property
    def num_sentinels(self) -> int:
        """How many tokens for hidden spans a tokenizer needs for it."""
        return max(getattr(module, "NUM_SENTINELS", 0) for module in self.modules)

    @property
    def columns(self) -> tuple[str, ...]:
        """The fields of a record that it learns from: one text, or a source and a target."""
        return tuple(getattr(self.modules[-1], "COLUMNS", ("text",)))

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

    def window_spec(self, specials: SpecialTokens, max_length: int) -> WindowSpec:
        """How documents are cut."""
        cut: WindowSpec = self.modules[-1].window_spec(specials, max_length)
        return cut

    def ngram_contexts(
        self, feature: Feature, example: Example, specials: SpecialTokens
    ) -> tuple[IntArray, IntArray]:
        """(previous token, target) of each place that the first objective predicts."""
        found: tuple[IntArray, IntArray] = self.modules[0].ngram_contexts(feature, example, specials)
        return found

    def evaluation_objective(
        self, traits: Traits, specials: SpecialTokens, store: FeatureStore
    ) -> ObjectiveLike:
        """What held-out text is scored by: default settings, the loss at hidden text alone."""
        return self.build_objective(
            traits, specials, getattr(self.modules[0], "EVALUATION_OPTIONS", None), store
        )

    def evaluation_objectives(
        self, traits: Traits, specials: SpecialTokens, store: FeatureStore
    ) -> dict[str, ObjectiveLike]:
        """`evaluation_objective` under no name, and what makes losses compare with another objective's
        under its own.
        """
        extra: Mapping[str, Mapping[str, Any]] = getattr(self.modules[0], "EXTRA_EVALUATIONS", {})
        others = {
            name: self.build_objective(traits, specials, options, store) for name, options in extra.items()
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
    ) -> ObjectiveLike:
        """The objective; ``store`` is where it draws other texts from.

        Raises:
            UnsupportedError: the family or the tokenizer lacks what it needs.
        """
        objectives = [
            module.Objective(traits, specials, chosen, store)
            for module, chosen in zip(self.modules, self._parse_options(options or {}, ""), strict=True)
        ]
        combined: ExampleBuilder = objectives[-1]
        for objective in reversed(objectives[:-1]):
            combined = CombinedObjective(
                objective, combined, specials, segments=traits.has_segment_embeddings
            )
        return combined

    def _parse_options(self, options: Mapping[str, Any], where: str) -> list[Any]:
        """Each part takes the options that it knows; the first one reports those that none does."""
        known = [set(module.Options.model_fields) for module in self.modules]
        others = set().union(*known[1:])
        split_options = [{k: v for k, v in options.items() if k in fields} for fields in known]
        split_options[0] = {
            key: value for key, value in options.items() if key not in others or key in known[0]
        }
        return [
            build_settings(m.Options, v, where=where)
            for m, v in zip(self.modules, split_options, strict=True)
        ]


def parse_objective(name: str) -> ObjectiveSpec:
    """The objective, or those joined by ``+``, that a setting names.

    Raises:
        ConfigError: there is none of that name, or they cannot be trained together in this order.
    """
    spec = ObjectiveSpec(tuple(find("objectives", module_name.strip()) for module_name in name.split("+")))
    for module in spec.modules[:-1]:
        if not hasattr(module.Objective, "mask_tokens"):
            raise ConfigError(
                f"objective = {name!r}: {module.HEAD} builds its own examples and can only come last; "
                "masked_lm can come before it, as in masked_lm+next_sentence"
            )
    return spec


def default_objective(family: ModuleType) -> str:
    """The objective that a family is pretrained by, where none is named."""
    return str(getattr(family, "OBJECTIVE", DEFAULT_OBJECTIVES[family.TRAITS.architecture]))


def objectives_for_heads(heads: str) -> list[str]:
    """The objectives, or those joined by ``+``, that train just these heads, which are joined likewise."""
    known = [(name, find("objectives", name).HEAD) for name in list_names("objectives")]
    choices = [[name for name, trained in known if trained == head] for head in heads.split("+")]
    return ["+".join(chosen) for chosen in product(*choices)]
