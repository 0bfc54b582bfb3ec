"""Masked language modelling: predict the tokens that were hidden (Devlin et al. 2018, section 3.1).

Of the places of a text, 15 % are chosen anew each time it is seen; of those 80 % become the mask, 10 % a
random token, 10 % stay. Unlike the paper's code, which counts places in one sequence of 512 and rounds,
each text here gets the nearest whole number of its own 15 %, and at least one.

With ``whole_words`` all tokens of a word are predicted together, in English and in Chinese (Cui et al. 2019,
"Pre-training with whole word masking for Chinese BERT"). The last word that is drawn is taken with just the
probability that keeps the share of places at 15 % on average. As in Google's whole-word BERT and theirs,
each token of a word meets its own fate: mask, random or unchanged.

With ``ngram`` stretches of up to so many tokens (or words) are predicted together, as in ALBERT's code (Lan
et al. 2020, section 3.1): a stretch of n has a chance in proportion to 1/n, none overlaps another, and
towards the end of the share shorter ones are tried.

With ``rate_end`` the share goes from ``rate`` to ``rate_end`` in a straight line over the run, as Yang et al.
2023 let it fall ("Learning Better Masking for Better Language Model Pre-training", section 3.1).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Self

import numpy as np
import numpy.typing as npt
import pydantic

from pretune.config import Settings
from pretune.data.packing import collate
from pretune.errors import DataError, UnsupportedError
from pretune.text.segmentation import WORD
from pretune.types import (
    Batch,
    BoolArray,
    Example,
    Feature,
    FeatureStore,
    IntArray,
    Loss,
    LossTerms,
    NetworkLike,
    Outputs,
    Row,
    Specials,
    Traits,
    Windowing,
    framed,
    framed_starts,
)

HEAD = "masked_lm"


class Options(Settings):
    """Settings of masked language modelling."""

    rate: float = pydantic.Field(default=0.15, gt=0, lt=1)
    """Share of the places that are predicted."""
    rate_end: float | None = pydantic.Field(default=None, gt=0, lt=1)
    """What ``rate`` has become at the end of the run, in a straight line; None: it stays."""
    mask_share: float = pydantic.Field(default=0.8, ge=0, le=1)
    random_share: float = pydantic.Field(default=0.1, ge=0, le=1)
    """Of the predicted places, the shares that become the mask and a random token; the rest stay."""
    whole_words: bool = False
    """Predict all tokens of a word together."""
    ngram: int = pydantic.Field(default=1, ge=1)
    """Predict up to so many tokens, or whole words, in a row (ALBERT: 3)."""
    label_smoothing: float = pydantic.Field(default=0.0, ge=0, lt=1)
    """Share of each target that is spread over the vocabulary, in training; held-out losses are without."""


def windowing(specials: Specials, max_length: int) -> Windowing:
    """Windows that leave room for the frame; none overlaps, so that each token lies in one."""
    before, after = specials.single
    return Windowing(length=max_length - len(before) - len(after))


class Objective:
    """Masked language modelling over windows of text, packed or not."""

    heads = (HEAD,)
    distils = True
    packs = True
    every_token = False
    """Does an epoch predict every token of the text? Then its loss has a meaning per byte."""

    def __init__(
        self,
        traits: Traits,
        specials: Specials,
        options: Options | None = None,
        store: FeatureStore | None = None,
    ) -> None:
        if HEAD not in traits.heads:
            raise UnsupportedError(
                f"masked_lm needs a family with a {HEAD!r} head; this one has {traits.heads}"
            )
        if specials.mask is None:
            raise UnsupportedError("masked_lm needs a tokenizer with a mask token; this one has none")
        self.specials, self._mask = specials, specials.mask
        self.options = options or Options()
        self._ordinary = ~np.isin(np.arange(specials.vocabulary_size), specials.all)  # (V,)
        self._replacements = np.flatnonzero(self._ordinary)

    def at(self, progress: float) -> Self:
        """With the rate that holds where the share ``progress`` of a run is done."""
        if self.options.rate_end is None:
            return self
        moved = copy.copy(self)
        rate = self.options.rate + progress * (self.options.rate_end - self.options.rate)
        moved.options = self.options.model_copy(update={"rate": rate})
        return moved

    def length_bounds(self, lengths: IntArray) -> IntArray:
        """Places that each feature needs, (n,), of its token counts, (n, 1)."""
        before, after = self.specials.single
        return np.asarray(lengths.sum(1) + len(before) + len(after))

    def build(self, feature: Feature, rng: np.random.Generator) -> Example:
        """Frame the text, choose places, hide what stands there."""
        tokens, _ = framed(self.specials, feature.sequences[:1])  # (T,)
        starts = None if feature.starts is None else framed_starts(self.specials, feature.starts[:1])
        return self.hide(Example(feature.record, (Row(tokens, {}, {}, starts=starts),)), rng)

    def hide(self, example: Example, rng: np.random.Generator) -> Example:
        """The example of another objective with ordinary tokens of its rows hidden, to be predicted.

        Raises:
            DataError: whole words are asked for, and a row says nothing of words.
        """
        return replace(example, rows=tuple(self._hidden(row, rng) for row in example.rows))

    def _hidden(self, row: Row, rng: np.random.Generator) -> Row:
        candidates = np.flatnonzero(self._ordinary[row.tokens])
        places = self._choose(candidates, row.starts, rng)  # (n,)
        fate = rng.random(len(places))
        masked = fate < self.options.mask_share
        random = ~masked & (fate < self.options.mask_share + self.options.random_share)
        shown = row.tokens.copy()
        shown[places[masked]] = self._mask
        shown[places[random]] = rng.choice(self._replacements, int(random.sum()))
        return replace(
            row,
            tokens=shown,
            places={**row.places, HEAD: places},
            targets={**row.targets, HEAD: row.tokens[places]},
        )

    def _choose(
        self, candidates: IntArray, starts: npt.NDArray[np.uint8] | None, rng: np.random.Generator
    ) -> IntArray:
        """The places to predict, in order; none of a text of nothing but special tokens."""
        if len(candidates) == 0:
            return candidates
        number = max(1, round(self.options.rate * len(candidates)))
        if not self.options.whole_words and self.options.ngram == 1:
            return np.sort(rng.choice(candidates, number, replace=False))
        words = self._words(candidates, starts)
        if self.options.ngram > 1:
            return np.asarray(candidates[stretches(candidates, words, number, self.options.ngram, rng)])
        sizes = np.bincount(words)
        order = rng.permutation(len(sizes))
        ends = np.cumsum(sizes[order])
        last = int(np.searchsorted(ends, number))  # the word with which the number is reached
        surplus = int(ends[last]) - number
        taken = last + 1 if last == 0 or rng.random() * sizes[order[last]] >= surplus else last
        return np.asarray(candidates[np.isin(words, order[:taken])])

    def _words(self, candidates: IntArray, starts: npt.NDArray[np.uint8] | None) -> IntArray:
        """(candidates,) number of the word of each, from 0 on; each is one where words do not matter."""
        if not self.options.whole_words:
            return np.arange(len(candidates), dtype=np.int64)
        if starts is None:
            raise DataError("whole_words needs to know where words start, and this text says nothing of it")
        words = np.cumsum(starts & WORD)[candidates]
        return np.unique(words, return_inverse=True)[1].astype(np.int64)

    def collate(self, groups: Sequence[Sequence[Example]]) -> Batch:
        """A group of examples a row of the grid."""
        batch = collate(groups, pad=self.specials.pad, heads=self.heads)
        return replace(batch, smoothing=self.smoothing)

    @property
    def smoothing(self) -> dict[str, float]:
        """Head to the share of its targets that is spread over the vocabulary."""
        return {HEAD: self.options.label_smoothing}

    def loss(self, network: NetworkLike, batch: Batch) -> Iterator[Loss]:
        """Cross-entropy in nats, summed over the predicted places."""
        yield Loss(self.terms(network(batch, heads=self.heads, targets=batch.targets), batch))

    def terms(self, outputs: Outputs, batch: Batch) -> LossTerms:
        """Of outputs of a network that was handed the targets."""
        return {HEAD: (outputs.sums[HEAD], 1.0)}


def stretches(
    candidates: IntArray, words: IntArray, number: int, longest: int, rng: np.random.Generator
) -> BoolArray:
    """(candidates,) which of them lie in stretches of up to ``longest`` words, ``number`` of them in all.

    Where no word alone fits into ``number``, the first one that is drawn is taken.
    """
    bounds = np.append(np.flatnonzero(np.diff(words, prepend=-1)), len(words))  # (words + 1,)
    chances = np.cumsum(1 / np.arange(1, longest + 1))
    chosen = np.zeros(len(candidates), bool)
    left, order = number, rng.permutation(len(bounds) - 1)
    for word in order.tolist():
        if not left:
            break
        most = 1 + int(np.searchsorted(chances, rng.random() * chances[-1], side="right"))
        ends = bounds[min(word + most, len(bounds) - 1) : word : -1]
        begin, fitting = int(bounds[word]), ends[ends - bounds[word] <= left]
        if len(fitting) == 0 or chosen[begin : fitting[0]].any():
            continue
        end = int(fitting[0])
        if candidates[end - 1] - candidates[begin] == end - 1 - begin:  # no special token between
            chosen[begin:end] = True
            left -= end - begin
    if not chosen.any():
        chosen[bounds[order[0]] : bounds[order[0] + 1]] = True
    return chosen


def contexts(feature: Feature, example: Example, specials: Specials) -> tuple[IntArray, IntArray]:
    """(previous true token, target) of each predicted place, for the n-gram baselines; -1 at the start."""
    row = example.rows[0]
    places, targets = row.places[HEAD], row.targets[HEAD]
    tokens = row.tokens.copy()
    tokens[places] = targets
    previous = tokens[np.maximum(places - 1, 0)]
    return np.where((places > 0) & ~np.isin(previous, specials.all), previous, -1), targets
