"""One file an objective: a feature in, a loss out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from types import ModuleType
from typing import Any

from pretune.config import build
from pretune.data.corpus.pairs import CorpusPairs, joint_of
from pretune.data.corpus.token_shards import Corpus
from pretune.data.corpus.windows import Windows
from pretune.errors import ConfigError
from pretune.objectives.wrappers.combined import Building, Combined
from pretune.objectives.wrappers.distillation import DistillationSettings as DistillationSettings
from pretune.objectives.wrappers.distillation import Distilled as Distilled
from pretune.objectives.wrappers.distillation import check_widths as check_widths
from pretune.objectives.wrappers.mixture import Mixture as Mixture
from pretune.objectives.wrappers.mixture import term_of as term_of
from pretune.objectives.wrappers.scheduled import Scheduled as Scheduled
from pretune.objectives.wrappers.scheduled import at as at
from pretune.registry import find, names
from pretune.types import (
    Example,
    Feature,
    FeatureStore,
    IntArray,
    ObjectiveLike,
    Specials,
    Traits,
    Windowing,
)

USUAL = {"encoder": "masked_lm", "decoder": "causal_lm", "encoder-decoder": "span_corruption"}
"""What a family is pretrained by, by its kind; a family may name another as its ``OBJECTIVE``."""


@dataclass(frozen=True)
class Kind:
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
    def pretrains(self) -> bool:
        """Is it learnt from a corpus? Then its loss stands beside that of n-gram models of the same text."""
        return hasattr(self.modules[0], "contexts")

    @property
    def every_token(self) -> bool:
        """Does an epoch predict every token of the text? Then its loss has a meaning per byte."""
        return bool(self.modules[0].Objective.every_token)

    def suits(self, traits: Traits) -> bool:
        """Has a family of these traits what it trains?"""
        kinds = [getattr(module, "KINDS", (traits.kind,)) for module in self.modules]
        return set(self.heads) <= set(traits.heads) and all(traits.kind in known for known in kinds)

    @property
    def scores_hidden_only(self) -> bool:
        """Is held-out text scored at hidden tokens alone, while training counts easier ones, too?"""
        return hasattr(self.modules[0], "SCORING")

    @property
    def sentinels(self) -> int:
        """How many tokens for hidden spans a tokenizer needs for it."""
        return max(getattr(module, "SENTINELS", 0) for module in self.modules)

    @property
    def columns(self) -> tuple[str, ...]:
        """The fields of a record that it learns from: one text, or a source and a target."""
        return tuple(getattr(self.modules[-1], "COLUMNS", ("text",)))

    def store(self, corpus: Corpus, specials: Specials, max_length: int) -> Windows | CorpusPairs:
        """The features of a corpus that was made of these ``columns``.

        Raises:
            DataError: it was made of others, or no document is long enough.
            UnsupportedError: the tokenizer cannot part a pair.
        """
        windowing = self.windowing(specials, max_length)
        joint = joint_of(self.columns, specials)
        return (
            Windows.of(corpus, windowing) if joint is None else CorpusPairs(corpus, windowing.length, joint)
        )

    def windowing(self, specials: Specials, max_length: int) -> Windowing:
        """How documents are cut."""
        cut: Windowing = self.modules[-1].windowing(specials, max_length)
        return cut

    def contexts(self, feature: Feature, example: Example, specials: Specials) -> tuple[IntArray, IntArray]:
        """(previous token, target) of each place that the first objective predicts."""
        found: tuple[IntArray, IntArray] = self.modules[0].contexts(feature, example, specials)
        return found

    def scoring(self, traits: Traits, specials: Specials, store: FeatureStore) -> ObjectiveLike:
        """What held-out text is scored by: default settings, the loss at hidden text alone."""
        return self.make(traits, specials, getattr(self.modules[0], "SCORING", None), store)

    def scorings(self, traits: Traits, specials: Specials, store: FeatureStore) -> dict[str, ObjectiveLike]:
        """`scoring` under no name, and what makes losses compare with another objective's under its own."""
        compared: Mapping[str, Mapping[str, Any]] = getattr(self.modules[0], "COMPARED", {})
        others = {name: self.make(traits, specials, options, store) for name, options in compared.items()}
        return {"": self.scoring(traits, specials, store), **others}

    def check(self, options: Mapping[str, Any], where: str) -> None:
        """See that the options are such as it takes.

        Raises:
            ConfigError: a key that it does not know, or a wrong value.
        """
        self._options(options, where)

    def make(
        self,
        traits: Traits,
        specials: Specials,
        options: Mapping[str, Any] | None = None,
        store: FeatureStore | None = None,
    ) -> ObjectiveLike:
        """The objective; ``store`` is where it draws other texts from.

        Raises:
            UnsupportedError: the family or the tokenizer lacks what it needs.
        """
        parts = [
            module.Objective(traits, specials, chosen, store)
            for module, chosen in zip(self.modules, self._options(options or {}, ""), strict=True)
        ]
        made: Building = parts[-1]
        for part in reversed(parts[:-1]):
            made = Combined(part, made, specials, segments=traits.segments)
        return made

    def _options(self, options: Mapping[str, Any], where: str) -> list[Any]:
        """Each part takes the options that it knows; the first one reports those that none does."""
        known = [set(module.Options.model_fields) for module in self.modules]
        others = set().union(*known[1:])
        taken = [{k: v for k, v in options.items() if k in fields} for fields in known]
        taken[0] = {key: value for key, value in options.items() if key not in others or key in known[0]}
        return [build(m.Options, v, where=where) for m, v in zip(self.modules, taken, strict=True)]


def objective_of(name: str) -> Kind:
    """The objective, or those joined by ``+``, that a setting names.

    Raises:
        ConfigError: there is none of that name, or they cannot be trained together in this order.
    """
    kind = Kind(tuple(find("objectives", part.strip()) for part in name.split("+")))
    for module in kind.modules[:-1]:
        if not hasattr(module.Objective, "hide"):
            raise ConfigError(
                f"objective = {name!r}: {module.HEAD} builds its own examples and can only come last; "
                "masked_lm can come before it, as in masked_lm+next_sentence"
            )
    return kind


def usual(family: ModuleType) -> str:
    """The objective that a family is pretrained by, where none is named."""
    return str(getattr(family, "OBJECTIVE", USUAL[family.TRAITS.kind]))


def objectives_of(heads: str) -> list[str]:
    """The objectives, or those joined by ``+``, that train just these heads, which are joined likewise."""
    known = [(name, find("objectives", name).HEAD) for name in names("objectives")]
    parts = [[name for name, trained in known if trained == head] for head in heads.split("+")]
    return ["+".join(chosen) for chosen in product(*parts)]
