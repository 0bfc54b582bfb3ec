"""Span corruption: write the spans that were cut out of a text (Raffel et al. 2020, section 3.1.4).

Of a window's tokens 15 % are hidden, in spans of three on average. In the source each span is one sentinel;
the target says each sentinel and what it stands for::

    source   Thank you <extra_id_0> me to your party <extra_id_1> week.
    target   <extra_id_0> for inviting <extra_id_1> last

Number and lengths of the spans are those of the authors' `random_spans_noise_mask`: spans alternate with what
stays, beginning with what stays and ending with a span. Unlike their code, which cuts windows so that the
source is just as long as the model reads, the window itself is that long, and its source a tenth shorter.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import pydantic

from pretune.config import Settings
from pretune.errors import ConfigError, UnsupportedError
from pretune.objectives._pairs import HEAD as HEAD
from pretune.objectives._pairs import SourceTargetObjective, text_mask
from pretune.objectives.base import LanguageModelOptions, num_special_tokens
from pretune.types import (
    IGNORE_INDEX,
    BoolArray,
    Example,
    Feature,
    FeatureStore,
    IntArray,
    SpecialTokens,
    Traits,
)


class Options(LanguageModelOptions):
    """Settings of span corruption."""

    noise_density: float = pydantic.Field(default=0.15, gt=0, lt=1)
    """Share of the tokens that are hidden."""
    mean_span_length: float = pydantic.Field(default=3.0, ge=1)
    """Tokens of a span, on average."""
    masked_only: bool = False
    """Count the loss at the hidden tokens alone, not at sentinels and the end."""


class Objective(SourceTargetObjective):
    """Spans of a window are cut out of the source and said by the target."""

    options_type = Options
    options: Options
    num_sentinels = 100
    """As many as T5 has; they stand for the spans of a text that reads 2,000 tokens."""
    evaluation_options: ClassVar[Mapping[str, Any]] = {"masked_only": True}
    """A sentinel says nothing of the language."""

    def __init__(
        self,
        traits: Traits,
        specials: SpecialTokens,
        options: Settings | None = None,
        store: FeatureStore | None = None,
    ) -> None:
        super().__init__(traits, specials, options, store)
        if not specials.sentinel_ids:
            raise UnsupportedError(
                "span_corruption needs a tokenizer with sentinels (<extra_id_0>, <extra_id_1> ...); this one "
                "has none: train one with pretune tokenizer train --sentinels 100, or leave the tokenizer out"
            )
        self._sentinels = np.array(specials.sentinel_ids, np.int64)
        longest = 0 if store is None else int(store.lengths.sum(1).max())
        if longest and self.noise_counts(longest)[1] > len(self._sentinels):
            raise ConfigError(
                f"span_corruption: noise_density = {self.options.noise_density}, "
                f"mean_span_length = {self.options.mean_span_length}: "
                f"{longest} tokens have {self.noise_counts(longest)[1]} spans, the tokenizer has "
                f"{len(self._sentinels)} sentinels; make the spans longer or fewer, or the windows shorter"
            )

    def length_bounds(self, lengths: IntArray) -> IntArray:
        """Places that each feature needs, (n,), of its token counts, (n, 1): of source or target the more."""
        known, which = np.unique(lengths.sum(1), return_inverse=True)
        sizes = np.array([self._max_row_length(length) for length in known.tolist()], np.int64)
        return np.asarray(sizes[which])

    def build(self, feature: Feature, rng: np.random.Generator) -> Example:
        """Choose spans, cut them out, say them."""
        tokens = feature.sequences[0]
        hidden = noise_mask(len(tokens), self.noise_counts(len(tokens)), rng)  # (T,)
        source = self.add_special_tokens(insert_sentinels(tokens, hidden, self._sentinels))
        target_text = insert_sentinels(tokens, ~hidden, self._sentinels)
        target = self.add_special_tokens(target_text)
        target_mask = np.ones(len(target), bool)
        if self.options.masked_only:
            target_mask = text_mask(len(target), self.specials) & ~np.isin(target, self._sentinels)
        return self.build_example(feature.record, source, target, target_mask)

    @classmethod
    def ngram_contexts(
        cls, feature: Feature, example: Example, specials: SpecialTokens
    ) -> tuple[IntArray, IntArray]:
        """(previous true token, target) of each counted target; -1 where none is before."""
        row, text = example.rows[0], feature.sequences[0]
        targets = row.targets[HEAD]
        assert row.source_tokens is not None
        true_targets = np.append(row.tokens[1:], targets[-1])  # the target, ignored or not
        sentinel_positions = np.flatnonzero(np.isin(true_targets, specials.sentinel_ids))
        text_positions = text_mask(len(true_targets), specials)
        spans = np.diff(np.append(sentinel_positions, text_positions.sum() + len(specials.single[0]))) - 1
        visible = row.source_tokens[text_mask(len(row.source_tokens), specials)]
        widths = np.ones(len(visible), np.int64)
        is_sentinel = np.isin(visible, specials.sentinel_ids)
        widths[is_sentinel] = spans[: int(is_sentinel.sum())]
        hidden = np.flatnonzero(np.repeat(is_sentinel, widths))  # places of the window
        previous = np.full(len(true_targets), -1, np.int64)
        text_positions[sentinel_positions] = False
        previous[text_positions] = np.where(hidden > 0, text[hidden - 1], -1)
        counted = targets != IGNORE_INDEX
        return previous[counted], targets[counted]

    def noise_counts(self, length: int) -> tuple[int, int]:
        """(hidden tokens, spans) of a text; at least one of each, and something stays before each span."""
        length = max(length, 2)
        hidden = min(max(round(length * self.options.noise_density), 1), length - 1)
        spans = max(round(hidden / self.options.mean_span_length), 1)
        return hidden, min(spans, length - hidden)

    def _max_row_length(self, length: int) -> int:
        hidden, spans = self.noise_counts(length)
        return max(length - hidden, hidden) + spans + num_special_tokens(self.specials, 1)


def noise_mask(length: int, counts: tuple[int, int], rng: np.random.Generator) -> BoolArray:
    """(T,) what is hidden: (hidden tokens, spans) as ``counts`` says, all such masks equally likely.

    A text of a single token is not hidden.
    """
    hidden, spans = counts
    noise = segment_lengths(hidden, spans, rng)  # (spans,)
    visible = segment_lengths(max(length, 2) - hidden, spans, rng)  # (spans,)
    lengths = np.stack([visible, noise], 1).reshape(-1)  # (2 * spans,)
    mask: BoolArray = np.repeat(np.arange(2 * spans) % 2 == 1, lengths)[:length]
    return mask


def segment_lengths(total: int, num_segments: int, rng: np.random.Generator) -> IntArray:
    """(segments,) positive numbers that add up to ``total``, all such equally likely."""
    first = np.arange(total - 1) < num_segments - 1  # of a segment: the items after the very first
    rng.shuffle(first)
    number = np.concatenate([[0], np.cumsum(first)])
    lengths: IntArray = np.bincount(number, minlength=num_segments).astype(np.int64)
    return lengths


def insert_sentinels(tokens: IntArray, is_noise: BoolArray, sentinels: IntArray) -> IntArray:
    """The tokens with each run of ``is_noise`` ones replaced by the next sentinel."""
    span_starts = is_noise & ~np.concatenate([[False], is_noise[:-1]])
    with_sentinels = tokens.copy()
    with_sentinels[span_starts] = sentinels[: int(span_starts.sum())]
    return np.asarray(with_sentinels[span_starts | ~is_noise])
