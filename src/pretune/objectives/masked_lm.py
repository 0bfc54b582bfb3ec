"""Masked language modelling: predict the tokens that were hidden (Devlin et al. 2018, section 3.1).

Of the places of a text, 15 % are chosen anew each time it is seen; of those 80 % become the mask, 10 % a
random token, 10 % stay. Unlike the paper's code, which counts places in one sequence of 512 and rounds,
each text here gets the nearest whole number of its own 15 %, and at least one.

With ``whole_words`` all tokens of a word are predicted together, in English and in Chinese (Cui et al. 2019,
"Pre-training with whole word masking for Chinese BERT"). The last word that is drawn is taken with just the
probability that keeps the share of places at 15 % on average. As in Google's whole-word BERT and theirs,
each token of a word meets its own fate: mask, random or unchanged.

With ``max_ngram`` stretches of up to so many tokens (or words) are predicted together, as in ALBERT's code
(Lan et al. 2020, section 3.1): a stretch of n has a chance in proportion to 1/n, none overlaps another, and
towards the end of the share shorter ones are tried.

With ``final_mask_rate`` the share goes from ``mask_rate`` to ``final_mask_rate`` in a straight line over the
run, as Yang et al. 2023 let it fall ("Learning Better Masking for Better Language Model Pre-training",
section 3.1).
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Self

import numpy as np
import numpy.typing as npt
import pydantic

from pretune.config import Settings
from pretune.errors import DataError, UnsupportedError
from pretune.objectives.base import LanguageModelObjective, LanguageModelOptions, Recipe
from pretune.text.segmentation import WORD_START
from pretune.types import (
    BoolArray,
    Example,
    Feature,
    FeatureStore,
    IntArray,
    Row,
    SpecialTokens,
    Traits,
    add_special_token_starts,
    add_special_tokens,
)

HEAD = "masked_lm"


class Options(LanguageModelOptions):
    """Settings of masked language modelling."""

    mask_rate: float = pydantic.Field(default=0.15, gt=0, lt=1)
    """Share of the places that are predicted."""
    final_mask_rate: float | None = pydantic.Field(default=None, gt=0, lt=1)
    """What ``mask_rate`` has become at the end of the run, in a straight line; None: it stays."""
    mask_replace_probability: float = pydantic.Field(default=0.8, ge=0, le=1)
    random_replace_probability: float = pydantic.Field(default=0.1, ge=0, le=1)
    """Of the predicted places, the shares that become the mask and a random token; the rest stay."""
    whole_words: bool = False
    """Predict all tokens of a word together."""
    max_ngram: int = pydantic.Field(default=1, ge=1)
    """Predict up to so many tokens, or whole words, in a row (ALBERT: 3)."""


class Objective(LanguageModelObjective):
    """Masked language modelling over windows of text, packed or not."""

    heads = (HEAD,)
    options_type = Options
    options: Options
    recipe = Recipe(
        # From random weights twice the share of the paper is hidden, so that the model stays for less long at
        # how often each token comes (docs/lab-notes.md). A checkpoint goes on with the paper's.
        options={"mask_rate": 0.3},
        optimizer={"learning_rate": 2e-3, "betas": (0.9, 0.995), "muon_every": 2},
        sampled_softmax=True,
    )
    is_masking = True
    is_distillable = True

    def __init__(
        self,
        traits: Traits,
        specials: SpecialTokens,
        options: Settings | None = None,
        store: FeatureStore | None = None,
    ) -> None:
        super().__init__(traits, specials, options, store)
        if specials.mask_id is None:
            raise UnsupportedError("masked_lm needs a tokenizer with a mask token; this one has none")
        self._mask_id = specials.mask_id
        self._maskable = ~np.isin(np.arange(specials.vocabulary_size), specials.all_ids)  # (V,)
        self._random_ids = np.flatnonzero(self._maskable)

    def at_step(self, step: int, progress: float) -> Self:
        """With the rate that holds where the share ``progress`` of a run is done."""
        if self.options.final_mask_rate is None:
            return self
        moved = copy.copy(self)
        rate = self.options.mask_rate + progress * (self.options.final_mask_rate - self.options.mask_rate)
        moved.options = self.options.model_copy(update={"mask_rate": rate})
        return moved

    def build(self, feature: Feature, rng: np.random.Generator) -> Example:
        """Frame the text, choose places, hide what stands there."""
        tokens, _ = add_special_tokens(self.specials, feature.sequences[:1])  # (T,)
        starts = (
            None
            if feature.word_starts is None
            else add_special_token_starts(self.specials, feature.word_starts[:1])
        )
        return self.mask_tokens(Example(feature.record, (Row(tokens, {}, {}, word_starts=starts),)), rng)

    def mask_tokens(self, example: Example, rng: np.random.Generator) -> Example:
        """The example of another objective with ordinary tokens of its rows hidden, to be predicted.

        Raises:
            DataError: whole words are asked for, and a row says nothing of words.
        """
        return replace(example, rows=tuple(self._mask_row(row, rng) for row in example.rows))

    def _mask_row(self, row: Row, rng: np.random.Generator) -> Row:
        candidates = np.flatnonzero(self._maskable[row.tokens])
        positions = self._choose_positions(candidates, row.word_starts, rng)  # (n,)
        draws = rng.random(len(positions))
        masked = draws < self.options.mask_replace_probability
        random = ~masked & (
            draws < self.options.mask_replace_probability + self.options.random_replace_probability
        )
        corrupted = row.tokens.copy()
        corrupted[positions[masked]] = self._mask_id
        corrupted[positions[random]] = rng.choice(self._random_ids, int(random.sum()))
        return replace(
            row,
            tokens=corrupted,
            positions={**row.positions, HEAD: positions},
            targets={**row.targets, HEAD: row.tokens[positions]},
        )

    def _choose_positions(
        self, candidates: IntArray, word_starts: npt.NDArray[np.uint8] | None, rng: np.random.Generator
    ) -> IntArray:
        """The places to predict, in order; none of a text of nothing but special tokens."""
        if len(candidates) == 0:
            return candidates
        num_targets = max(1, round(self.options.mask_rate * len(candidates)))
        if not self.options.whole_words and self.options.max_ngram == 1:
            return np.sort(rng.choice(candidates, num_targets, replace=False))
        words = self._word_ids(candidates, word_starts)
        if self.options.max_ngram > 1:
            return np.asarray(
                candidates[ngram_mask(candidates, words, num_targets, self.options.max_ngram, rng)]
            )
        sizes = np.bincount(words)
        order = rng.permutation(len(sizes))
        ends = np.cumsum(sizes[order])
        last = int(np.searchsorted(ends, num_targets))  # the word with which the number is reached
        surplus = int(ends[last]) - num_targets
        num_words = last + 1 if last == 0 or rng.random() * sizes[order[last]] >= surplus else last
        return np.asarray(candidates[np.isin(words, order[:num_words])])

    def _word_ids(self, candidates: IntArray, word_starts: npt.NDArray[np.uint8] | None) -> IntArray:
        """(candidates,) number of the word of each, from 0 on; each is one where words do not matter."""
        if not self.options.whole_words:
            return np.arange(len(candidates), dtype=np.int64)
        if word_starts is None:
            raise DataError("whole_words needs to know where words start, and this text says nothing of it")
        words = np.cumsum(word_starts & WORD_START)[candidates]
        return np.unique(words, return_inverse=True)[1].astype(np.int64)

    @classmethod
    def ngram_contexts(
        cls, feature: Feature, example: Example, specials: SpecialTokens
    ) -> tuple[IntArray, IntArray]:
        """(previous true token, target) of each predicted position; -1 at the start."""
        row = example.rows[0]
        positions, targets = row.positions[HEAD], row.targets[HEAD]
        tokens = row.tokens.copy()
        tokens[positions] = targets
        previous = tokens[np.maximum(positions - 1, 0)]
        return np.where((positions > 0) & ~np.isin(previous, specials.all_ids), previous, -1), targets


def ngram_mask(
    candidates: IntArray, word_ids: IntArray, num_targets: int, max_words: int, rng: np.random.Generator
) -> BoolArray:
    """(candidates,) which of them lie in stretches of up to ``max_words`` words, ``num_targets`` of them in
    all.

    Where no word alone fits into ``num_targets``, the first one that is drawn is taken.
    """
    bounds = np.append(np.flatnonzero(np.diff(word_ids, prepend=-1)), len(word_ids))  # (words + 1,)
    cumulative = np.cumsum(1 / np.arange(1, max_words + 1))
    chosen = np.zeros(len(candidates), bool)
    left, order = num_targets, rng.permutation(len(bounds) - 1)
    for word in order.tolist():
        if not left:
            break
        max_length = 1 + int(np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right"))
        ends = bounds[min(word + max_length, len(bounds) - 1) : word : -1]
        begin, fitting_ends = int(bounds[word]), ends[ends - bounds[word] <= left]
        if len(fitting_ends) == 0 or chosen[begin : fitting_ends[0]].any():
            continue
        end = int(fitting_ends[0])
        if candidates[end - 1] - candidates[begin] == end - 1 - begin:  # no special token between
            chosen[begin:end] = True
            left -= end - begin
    if not chosen.any():
        chosen[bounds[order[0]] : bounds[order[0] + 1]] = True
    return chosen
