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
    SpecialTokens,
    Traits,
    WindowSpec,
)

HEAD = "causal_lm"
ARCHITECTURES = ("decoder",)


class Options(Settings):
    """Settings of causal language modelling."""

    label_smoothing: float = pydantic.Field(default=0.0, ge=0, lt=1)
    """Share of each target that is spread over the vocabulary, in training; held-out losses are without."""


def window_spec(specials: SpecialTokens, max_length: int) -> WindowSpec:
    """Windows one token longer than the model, overlapping by one: inputs and their shifted targets."""
    start = specials.bos_id if specials.bos_id is not None else specials.eos_id
    return WindowSpec(length=max_length + 1, overlap=1, bos_id=start, eos_id=specials.eos_id)


class Objective:
    """Next-token prediction over windows of text, packed or not."""

    heads = (HEAD,)
    distillable = True
    supports_packing = True
    predicts_every_token = True

    def __init__(
        self,
        traits: Traits,
        specials: SpecialTokens,
        options: Options | None = None,
        store: FeatureStore | None = None,
    ) -> None:
        if HEAD not in traits.heads:
            raise UnsupportedError(
                f"causal_lm needs a family with a {HEAD!r} head; this one has {traits.heads}"
            )
        if traits.architecture not in ARCHITECTURES:
            raise UnsupportedError(
                f"causal_lm needs a decoder; this family is an {traits.architecture}, which reads a source: "
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
        batch = collate(groups, pad_id=self.specials.pad_id, heads=self.heads)
        return replace(batch, label_smoothing={HEAD: self.options.label_smoothing})

    def loss(self, network: NetworkLike, batch: Batch) -> Iterator[Loss]:
        """Cross-entropy in nats, summed over all places."""
        outputs = network(batch, heads=self.heads, targets=batch.targets)
        yield Loss({HEAD: (outputs.sums[HEAD], 1.0)})


def ngram_contexts(feature: Feature, example: Example, specials: SpecialTokens) -> tuple[IntArray, IntArray]:
    """(previous token, target) of each predicted place, for the n-gram baselines."""
    window = feature.sequences[0]
    return window[:-1], window[1:]
