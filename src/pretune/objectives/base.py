"""What every objective is: a feature in, an example; examples in, a batch; a batch in, its loss."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import numpy as np
import pydantic
from torch import Tensor

from pretune.config import Settings
from pretune.data.packing import collate
from pretune.errors import UnsupportedError
from pretune.types import (
    Architecture,
    Batch,
    Example,
    Feature,
    FeatureStore,
    IntArray,
    Loss,
    LossOptions,
    LossTerms,
    NetworkLike,
    Outputs,
    SpecialTokens,
    Traits,
    WindowSpec,
    add_special_tokens,
)


class NoOptions(Settings):
    """An objective without settings of its own."""


class LanguageModelOptions(Settings):
    """Settings of every objective that predicts tokens."""

    label_smoothing: float = pydantic.Field(default=0.0, ge=0, lt=1)
    """Share of each target that is spread over the vocabulary, in training; held-out losses are without."""


@dataclass(frozen=True)
class Recipe:
    """What training from random weights does by this objective, where the settings leave it open."""

    options: Mapping[str, Any] = field(default_factory=dict)
    optimizer: Mapping[str, Any] = field(default_factory=dict)
    sampled_softmax: bool = False
    """Is the loss estimated from a part of the vocabulary?"""


class Objective:
    """The base of all objectives; a file of this folder holds one subclass, under this name.

    A subclass says in its attributes what it needs, and writes `build`; the defaults of the other methods are
    those of an objective that predicts tokens.

    Args:
        traits: what the family can do.
        specials: the special ids of the tokenizer.
        options: an ``options_type``; None: its defaults.
        store: the features that it is trained on, for an objective that draws other texts or counts labels.

    Raises:
        UnsupportedError: the family or the tokenizer lacks what it needs.
    """

    heads: tuple[str, ...] = ()
    """Heads of the network that it trains, the first one first."""
    architectures: ClassVar[tuple[Architecture, ...]] = ("encoder", "decoder", "encoder-decoder")
    """Those of families that it can train."""
    options_type: ClassVar[type[Settings]] = NoOptions
    fields: ClassVar[tuple[str, ...]] = ("text",)
    """The fields of a record that it learns from: one text, or a source and a target."""
    recipe: ClassVar[Recipe] = Recipe()
    supports_packing: bool = True
    """May several of its examples share a row of the grid?"""
    pad_to_multiple_of: int = 1
    """What the width of its batches is rounded up to."""
    num_sentinels: ClassVar[int] = 0
    """How many tokens for hidden spans its tokenizer needs."""

    is_pretraining: ClassVar[bool] = False
    """Is it learnt from plain text? Then it has `ngram_contexts`, and n-gram models stand beside its loss."""
    predicts_every_token: ClassVar[bool] = False
    """Does an epoch predict every token of the text? Then its loss has a meaning per byte."""
    evaluation_options: ClassVar[Mapping[str, Any]] = {}
    """Options by which held-out text is scored."""
    extra_evaluations: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Name to options by which it is scored besides, so that losses compare with another objective's."""

    is_masking: ClassVar[bool] = False
    """Can it hide tokens of another objective's examples (`mask_tokens`)? Then it can come before another."""
    is_distillable: bool = False
    """Are its targets a distribution over its heads' logits, which a teacher's can be compared with?"""
    needs_whole_step: bool = False
    """Does the loss of an example depend on all others of the step, on all ranks? Then `representations` and
    `whole_step_loss` take the place of `loss`."""
    cost_changes_at: float | None = None
    """Share of the run from which on its steps cost something else than before; None: all cost the same."""
    sample_labels: ClassVar[tuple[str, ...]] = ()
    """The labels that `sample` chooses from, of an objective of labelled records."""

    options: Settings

    def __init__(
        self,
        traits: Traits,
        specials: SpecialTokens,
        options: Settings | None = None,
        store: FeatureStore | None = None,
    ) -> None:
        self.traits, self.specials, self.store = traits, specials, store
        self.options = self.options_type() if options is None else options
        self.check_support()

    @classmethod
    def name(cls) -> str:
        """As a setting says it: the name of its file."""
        return cls.__module__.rpartition(".")[2]

    @property
    def loss_options(self) -> LossOptions:
        """How the network computes the loss of a vocabulary head."""
        return LossOptions()

    def check_support(self) -> None:
        """See that family and tokenizer have what it needs.

        Raises:
            UnsupportedError: they have not.
        """
        for head in self.heads:
            if head not in self.traits.heads:
                raise UnsupportedError(
                    f"{self.name()} needs a family with a {head!r} head; this one has {self.traits.heads}"
                )

    @classmethod
    def window_spec(cls, specials: SpecialTokens, max_length: int) -> WindowSpec:
        """How documents are cut: into windows that leave room for the special tokens, none overlapping."""
        return WindowSpec(length=max_length - num_special_tokens(specials, 1))

    @classmethod
    def sample(cls, record: int, tokens: IntArray, label: int) -> Feature:
        """A feature that it can learn from, made of any text.

        Args:
            tokens: (T,)
            label: index into ``sample_labels``, where it has any.
        """
        word_starts = np.where(np.arange(len(tokens)) % 3 == 0, 3, 1).astype(np.uint8)
        return Feature(record, 0, (tokens,), word_starts=(word_starts,))

    def at_step(self, step: int, progress: float) -> Self:
        """The objective as it is in ``step``, before which the share ``progress`` of the run is done, 0 to 1.

        It may depend on these and on nothing else, so that a resume is exact.
        """
        return self

    def length_bounds(self, lengths: IntArray) -> IntArray:
        """Positions that each feature needs at most, (n,), of its token counts, (n, sequences)."""
        return np.asarray(lengths.sum(1) + num_special_tokens(self.specials, lengths.shape[1]))

    def build(self, feature: Feature, rng: np.random.Generator) -> Example:
        """Feature in, example out; all randomness comes from ``rng``."""
        raise NotImplementedError

    def mask_tokens(self, example: Example, rng: np.random.Generator) -> Example:
        """The example of another objective with tokens of its rows hidden, to be predicted."""
        raise NotImplementedError

    def collate(self, groups: Sequence[Sequence[Example]]) -> Batch:
        """A group of examples a row of the grid; draws nothing."""
        return collate(
            groups, pad_id=self.specials.pad_id, heads=self.heads, pad_to_multiple_of=self.pad_to_multiple_of,
            segments=self.traits.has_segment_embeddings,
        )  # fmt: skip

    def loss(self, network: NetworkLike, batch: Batch) -> Iterator[Loss]:
        """One loss or several, each to be backpropagated before the next is computed."""
        outputs = network(batch, heads=self.heads, targets=batch.targets, loss=self.loss_options)
        yield Loss(self.loss_terms(outputs, batch))

    def loss_terms(self, outputs: Outputs, batch: Batch) -> LossTerms:
        """Its terms, of outputs of a network that was handed the targets: summed cross-entropies in nats."""
        return {head: (outputs.sums[head], 1.0) for head in self.heads}

    def representations(self, network: NetworkLike, batch: Batch) -> Tensor:
        """What the loss of the whole step is computed from, (E, ...), one entry an example of the batch."""
        raise NotImplementedError

    def whole_step_loss(self, representations: Tensor) -> Loss:
        """The loss of a step from the representations of all its examples, (E, ...), in any order."""
        raise NotImplementedError

    @classmethod
    def ngram_contexts(
        cls, feature: Feature, example: Example, specials: SpecialTokens
    ) -> tuple[IntArray, IntArray]:
        """(previous token, target) of each counted target, for the n-gram baselines; -1 where none is."""
        raise NotImplementedError


class LanguageModelObjective(Objective):
    """The base of the objectives that predict tokens of plain text."""

    options_type = LanguageModelOptions
    options: LanguageModelOptions
    is_pretraining = True

    @property
    def loss_options(self) -> LossOptions:
        """With the share of each target that is spread over the vocabulary."""
        return LossOptions(label_smoothing=self.options.label_smoothing)


def num_special_tokens(specials: SpecialTokens, num_sequences: int) -> int:
    """Special tokens around one text or a pair."""
    return len(add_special_tokens(specials, (np.zeros(0, np.int64),) * num_sequences)[0])
