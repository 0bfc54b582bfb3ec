"""Causal language modelling: predict the next token (Radford et al. 2018, section 3.1).

A document begins with its start token and ends with its end token, both once; its windows overlap by one
token, so that each token of the document is predicted exactly once an epoch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pydantic

from pretune.config import Settings
from pretune.data.packing import collate
from pretune.errors import UnsupportedError
from pretune.types import (
    Batch,
    Example,
    Feature,
    FeatureStore,
    IntArray,
    Loss,
    NetworkLike,
    Row,
    Specials,
    Traits,
    Windowing,
)

HEAD = "causal_lm"
KINDS = ("decoder",)


class Options(Settings):
    """Settings of causal language modelling."""

    label_smoothing: float = pydantic.Field(default=0.0, ge=0, lt=1)
    """Share of each target that is spread over the vocabulary, in training; held-out losses are without."""


def windowing(specials: Specials, max_length: int) -> Windowing:
    """Windows one token longer than the model, overlapping by one: inputs and their shifted targets."""
    start = specials.start if specials.start is not None else specials.end
    return Windowing(length=max_length + 1, overlap=1, start=start, end=specials.end)


class Objective:
    """Next-token prediction over windows of text, packed or not."""

    heads = (HEAD,)
    distils = True
    packs = True
    every_token = True

    def __init__(
        self,
        traits: Traits,
        specials: Specials,
        options: Options | None = None,
        store: FeatureStore | None = None,
    ) -> None:
        if HEAD not in traits.heads:
            raise UnsupportedError(
                f"causal_lm needs a family with a {HEAD!r} head; this one has {traits.heads}"
            )
        if traits.kind not in KINDS:
            raise UnsupportedError(
                f"causal_lm needs a decoder; this family is an {traits.kind}, which reads a source: "
                "span_corruption, denoising, prefix_lm and sequence_to_sequence train it"
            )
        self.specials, self.options = specials, options or Options()

    def length_bounds(self, lengths: IntArray) -> IntArray:
        """Places that each feature needs, (n,), of its token counts, (n, 1)."""
        return np.asarray(lengths.sum(1) - 1)

    def build(self, feature: Feature, rng: np.random.Generator) -> Example:
        """Inputs are the window without its last token, targets the window without its first."""
        window = feature.sequences[0]
        tokens = window[:-1]  # (T,)
        row = Row(tokens, {HEAD: np.arange(len(tokens), dtype=np.int64)}, {HEAD: window[1:]})
        return Example(feature.record, (row,))

    def collate(self, groups: Sequence[Sequence[Example]]) -> Batch:
        """A group of examples a row of the grid."""
        batch = collate(groups, pad=self.specials.pad, heads=self.heads)
        return replace(batch, smoothing={HEAD: self.options.label_smoothing})

    def loss(self, network: NetworkLike, batch: Batch) -> Iterator[Loss]:
        """Cross-entropy in nats, summed over all places."""
        outputs = network(batch, heads=self.heads, targets=batch.targets)
        yield Loss({HEAD: (outputs.sums[HEAD], 1.0)})


def contexts(feature: Feature, example: Example, specials: Specials) -> tuple[IntArray, IntArray]:
    """(previous token, target) of each predicted place, for the n-gram baselines."""
    window = feature.sequences[0]
    return window[:-1], window[1:]
