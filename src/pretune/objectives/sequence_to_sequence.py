"""Sequence to sequence: write the target of a source, by teacher forcing (Sutskever et al. 2014, section 2).

The decoder reads the true target shifted by one, as stock `transformers` shifts the labels: first the
family's decoder start token, last all but the target's end.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pydantic

from pretune.config import Settings
from pretune.errors import DataError
from pretune.objectives._pairs import HEAD as HEAD
from pretune.objectives._pairs import SourceTargetBuilder
from pretune.types import (
    Batch,
    Example,
    Feature,
    FeatureStore,
    IntArray,
    Loss,
    NetworkLike,
    SpecialTokens,
    Traits,
    WindowSpec,
)

ARCHITECTURES = ("encoder-decoder",)
COLUMNS = ("source", "target")
"""The fields of its records."""


class Options(Settings):
    """Settings of sequence to sequence."""

    label_smoothing: float = pydantic.Field(default=0.0, ge=0, lt=1)
    """Share of each target that is spread over the vocabulary, in training (Vaswani et al. 2017: 0.1)."""


def window_spec(specials: SpecialTokens, max_length: int) -> WindowSpec:
    """Sources and targets are cut to what leaves room for the frame."""
    before, after = specials.single
    return WindowSpec(length=max_length - len(before) - len(after))


def ngram_contexts(feature: Feature, example: Example, specials: SpecialTokens) -> tuple[IntArray, IntArray]:
    """(previous token, token) of each target, for the n-gram baselines; -1 at the start."""
    [row] = example.rows
    targets = row.targets[HEAD].astype(np.int64)
    return np.append(np.int64(-1), targets[:-1]), targets


class Objective:
    """A source and a target, each framed as the tokenizer frames a text."""

    heads = (HEAD,)
    predicts_every_token = False

    def __init__(
        self,
        traits: Traits,
        specials: SpecialTokens,
        options: Options | None = None,
        store: FeatureStore | None = None,
    ) -> None:
        self.options = options or Options()
        self.builder = SourceTargetBuilder(
            "sequence_to_sequence", traits, specials, self.options.label_smoothing
        )
        self.supports_packing = self.builder.supports_packing

    def length_bounds(self, lengths: IntArray) -> IntArray:
        """Places that each feature needs, (n,), of its token counts, (n, 2): of source or target the more."""
        return np.asarray(lengths.max(1) + self.builder.num_special_tokens)

    def build(self, feature: Feature, rng: np.random.Generator) -> Example:
        """Source and target as they are.

        Raises:
            DataError: the feature is no pair.
        """
        if len(feature.sequences) != 2:
            raise DataError(
                f"sequence_to_sequence learns from a source and a target; record {feature.record} holds "
                f"{len(feature.sequences)} text(s)"
            )
        source, target = (self.builder.add_special_tokens(sequence) for sequence in feature.sequences)
        return self.builder.build_example(feature.record, source, target, np.ones(len(target), bool))

    def collate(self, groups: Sequence[Sequence[Example]]) -> Batch:
        """A group of examples a row of the grid."""
        return self.builder.collate(groups)

    def loss(self, network: NetworkLike, batch: Batch) -> Iterator[Loss]:
        """Cross-entropy in nats, summed over the target tokens."""
        yield from self.builder.loss(network, batch)
