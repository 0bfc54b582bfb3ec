"""Masked language modelling: predict the tokens that were hidden (Devlin et al. 2018, section 3.1).

Of the places of a text, 15 % are chosen anew each time it is seen; of those 80 % become the mask, 10 % a
random token, 10 % stay. Unlike the paper's code, which counts places in one sequence of 512 and rounds,
each text here gets the nearest whole number of its own 15 %, and at least one.
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
    IntArray,
    Loss,
    NetworkLike,
    Row,
    Specials,
    Traits,
    Windowing,
)

HEAD = "masked_lm"


class Options(Settings):
    """Settings of masked language modelling."""

    rate: float = pydantic.Field(default=0.15, gt=0, lt=1)
    """Share of the places that are predicted."""
    mask_share: float = pydantic.Field(default=0.8, ge=0, le=1)
    random_share: float = pydantic.Field(default=0.1, ge=0, le=1)
    """Of the predicted places, the shares that become the mask and a random token; the rest stay."""
    label_smoothing: float = pydantic.Field(default=0.0, ge=0, lt=1)
    """Share of each target that is spread over the vocabulary, in training; held-out losses are without."""


def windowing(specials: Specials, max_length: int) -> Windowing:
    """Windows that leave room for the frame; none overlaps, so that each token lies in one."""
    before, after = specials.single
    return Windowing(length=max_length - len(before) - len(after))


class Objective:
    """Masked language modelling over windows of text, packed or not."""

    heads = (HEAD,)
    packs = True
    every_token = False
    """Does an epoch predict every token of the text? Then its loss has a meaning per byte."""

    def __init__(self, traits: Traits, specials: Specials, options: Options | None = None) -> None:
        if HEAD not in traits.heads:
            raise UnsupportedError(
                f"masked_lm needs a family with a {HEAD!r} head; this one has {traits.heads}"
            )
        if specials.mask is None:
            raise UnsupportedError("masked_lm needs a tokenizer with a mask token; this one has none")
        self.specials, self._mask = specials, specials.mask
        self.options = options or Options()
        self._replacements = np.setdiff1d(
            np.arange(specials.vocabulary_size), np.array(specials.all, np.int64)
        )

    def length_bounds(self, lengths: IntArray) -> IntArray:
        """Places that each feature needs, (n,), of its token counts, (n, 1)."""
        before, after = self.specials.single
        return np.asarray(lengths.sum(1) + len(before) + len(after))

    def build(self, feature: Feature, rng: np.random.Generator) -> Example:
        """Frame the text, choose places, hide what stands there."""
        before, after = self.specials.single
        tokens = np.concatenate([before, feature.sequences[0], after]).astype(np.int64)  # (T,)
        candidates = np.flatnonzero(~np.isin(tokens, self.specials.all))
        if len(candidates) == 0:  # a text of nothing but special tokens teaches nothing
            return Example(feature.record, (Row(tokens, {HEAD: candidates}, {HEAD: tokens[:0]}),))
        number = max(1, round(self.options.rate * len(candidates)))
        places = np.sort(rng.choice(candidates, number, replace=False))  # (n,)
        targets = tokens[places]
        fate = rng.random(number)
        masked = fate < self.options.mask_share
        random = ~masked & (fate < self.options.mask_share + self.options.random_share)
        shown = tokens.copy()
        shown[places[masked]] = self._mask
        shown[places[random]] = rng.choice(self._replacements, int(random.sum()))
        return Example(feature.record, (Row(shown, {HEAD: places}, {HEAD: targets}),))

    def collate(self, groups: Sequence[Sequence[Example]]) -> Batch:
        """A group of examples a row of the grid."""
        batch = collate(groups, pad=self.specials.pad, heads=self.heads)
        return replace(batch, smoothing={HEAD: self.options.label_smoothing})

    def loss(self, network: NetworkLike, batch: Batch) -> Iterator[Loss]:
        """Cross-entropy in nats, summed over the predicted places."""
        outputs = network(batch, heads=self.heads, targets=batch.targets)
        yield Loss({HEAD: (outputs.sums[HEAD], 1.0)})


def contexts(feature: Feature, example: Example, specials: Specials) -> tuple[IntArray, IntArray]:
    """(previous true token, target) of each predicted place, for the n-gram baselines; -1 at the start."""
    before, _ = specials.single
    ids = feature.sequences[0]
    places = example.rows[0].places[HEAD] - len(before)
    previous = np.where(places > 0, ids[np.maximum(places - 1, 0)], -1)
    return previous, ids[places]
