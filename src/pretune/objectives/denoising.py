"""Denoising: write the text of which a damaged copy is read (Lewis et al. 2020, section 2.2).

The five ways of the paper, each of which can be chosen: spans become a single mask (text infilling, with
lengths drawn from a Poisson distribution; a span of no token puts a mask where nothing is missing), tokens
become masks, tokens vanish, sentences change places, the text is rotated to begin anywhere. By default spans
are infilled and sentences permuted, as in the paper's large model. As in the authors' code the hidden share
is exact, and the last span is cut to it. Unlike there, spans never overlap, a mask is never replaced by a
random token, and masks are never more than the tokens that they hide, so that the source is never longer
than the text.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import pydantic

from pretune.config import Settings
from pretune.errors import DataError, UnsupportedError
from pretune.objectives._pairs import HEAD as HEAD
from pretune.objectives._pairs import SourceTargetObjective, text_mask
from pretune.objectives.base import LanguageModelOptions
from pretune.text.segmentation import SENTENCE_START
from pretune.types import (
    IGNORE_INDEX,
    Example,
    Feature,
    FeatureStore,
    IntArray,
    SpecialTokens,
    Traits,
)

MASK_PLACEHOLDER = -1
"""In a source of places of the text: a mask."""


class Options(LanguageModelOptions):
    """Settings of denoising; what is 0 is not done."""

    infilling: float = pydantic.Field(default=0.3, ge=0, lt=1)
    """Share of the tokens that are hidden in spans, each of which becomes one mask."""
    mean_span_length: float = pydantic.Field(default=3.0, ge=1)
    """Of such a span, in tokens."""
    masking: float = pydantic.Field(default=0.0, ge=0, lt=1)
    """Share of the tokens that become a mask each."""
    deletion: float = pydantic.Field(default=0.0, ge=0, lt=1)
    """Share of the tokens that vanish without a trace."""
    permute_sentences: float = pydantic.Field(default=1.0, ge=0, le=1)
    """Share of the sentences that change places with each other."""
    rotation: float = pydantic.Field(default=0.0, ge=0, le=1)
    """Share of the texts that are rotated."""
    masked_only: bool = False
    """Count the loss at the tokens alone that the source does not hold."""

    @pydantic.model_validator(mode="after")
    def _check_any_noise(self) -> Options:
        if not (self.infilling or self.masking or self.deletion or self.permute_sentences or self.rotation):
            raise ValueError("denoising without any damage would only copy: leave one of them above 0")
        return self


class Objective(SourceTargetObjective):
    """The source is a damaged window, the target the window as it was."""

    options_type = Options
    options: Options
    evaluation_options: ClassVar[Mapping[str, Any]] = {"masked_only": True}
    """What stands in the source need only be copied."""

    def __init__(
        self,
        traits: Traits,
        specials: SpecialTokens,
        options: Settings | None = None,
        store: FeatureStore | None = None,
    ) -> None:
        super().__init__(traits, specials, options, store)
        if specials.mask_id is None:
            raise UnsupportedError("denoising needs a tokenizer with a mask token; this one has none")
        self._mask_id = specials.mask_id

    def build(self, feature: Feature, rng: np.random.Generator) -> Example:
        """Damage a copy of the window.

        Raises:
            DataError: sentences are to be permuted, and the feature says nothing of sentences.
        """
        tokens = feature.sequences[0]
        positions = self._corrupt(feature, rng)  # (S,)
        source = self.add_special_tokens(
            np.where(positions == MASK_PLACEHOLDER, self._mask_id, tokens[positions])
        )
        target = self.add_special_tokens(tokens)
        target_mask = np.ones(len(target), bool)
        if self.options.masked_only:
            target_mask = text_mask(len(target), self.specials)
            target_mask[np.flatnonzero(target_mask)[positions[positions != MASK_PLACEHOLDER]]] = False
        return self.build_example(feature.record, source, target, target_mask)

    @classmethod
    def ngram_contexts(
        cls, feature: Feature, example: Example, specials: SpecialTokens
    ) -> tuple[IntArray, IntArray]:
        """(previous true token, target) of each counted token, for the n-gram baselines; -1 at the start."""
        targets, text = example.rows[0].targets[HEAD], feature.sequences[0]
        previous = np.full(len(targets), -1, np.int64)
        text_positions = np.flatnonzero(text_mask(len(targets), specials))
        previous[text_positions[1:]] = text[:-1]
        counted = targets != IGNORE_INDEX
        return previous[counted], targets[counted]

    def _corrupt(self, feature: Feature, rng: np.random.Generator) -> IntArray:
        """(S,) the places of the window that the source shows, in its order; `MASK_PLACEHOLDER` for a
        mask.
        """
        options = self.options
        positions = np.arange(len(feature.sequences[0]), dtype=np.int64)
        if options.permute_sentences:
            positions = permute_sentences(
                positions, _sentence_starts(feature), options.permute_sentences, rng
            )
        if options.infilling:
            positions = infill_spans(positions, options.infilling, options.mean_span_length, rng)
        if options.masking:
            positions[
                _sample_positions(np.flatnonzero(positions != MASK_PLACEHOLDER), options.masking, rng)
            ] = MASK_PLACEHOLDER
        if options.deletion:
            positions = np.delete(
                positions,
                _sample_positions(np.flatnonzero(positions != MASK_PLACEHOLDER), options.deletion, rng),
            )
        if options.rotation and rng.random() < options.rotation and len(positions) > 1:
            positions = np.roll(positions, -int(rng.integers(1, len(positions))))
        return positions


def permute_sentences(
    positions: IntArray, sentence_starts: IntArray, fraction: float, rng: np.random.Generator
) -> IntArray:
    """The places with a share of the sentences, which begin at ``sentence_starts``, in each other's place."""
    sentences = np.split(positions, sentence_starts[sentence_starts > 0])
    chosen = rng.permutation(len(sentences))[: math.ceil(fraction * len(sentences))]
    order = np.arange(len(sentences))
    order[chosen] = rng.permutation(chosen)
    return np.concatenate([sentences[number] for number in order])


def infill_spans(
    positions: IntArray, fraction: float, mean_length: float, rng: np.random.Generator
) -> IntArray:
    """The places with spans of a share of them replaced by one `MASK_PLACEHOLDER` each, anywhere with
    equal chances.
    """
    hidden = math.ceil(fraction * len(positions))
    lengths = span_lengths(hidden, mean_length, rng)
    # The spans and what stays, in a row: where among them the spans stand is drawn.
    num_visible = len(positions) - hidden
    spans = np.zeros(num_visible + len(lengths), bool)
    spans[rng.choice(len(spans), len(lengths), replace=False)] = True
    sizes = np.ones(len(spans), np.int64)
    sizes[spans] = lengths
    begins = np.cumsum(sizes) - sizes
    return np.where(spans, MASK_PLACEHOLDER, positions[np.minimum(begins, len(positions) - 1)])


def span_lengths(total: int, mean_length: float, rng: np.random.Generator) -> IntArray:
    """At most ``total`` lengths that add up to it, Poisson but for the last, which is cut."""
    lengths: list[int] = []
    left = total
    while left:
        lengths.append(min(int(rng.poisson(mean_length)), left))
        left -= lengths[-1]
    surplus = max(len(lengths) - total, 0)
    empty = [number for number, length in enumerate(lengths) if length == 0]
    return np.delete(np.array(lengths, np.int64), empty[:surplus])


def _sample_positions(positions: IntArray, fraction: float, rng: np.random.Generator) -> IntArray:
    return rng.choice(positions, round(fraction * len(positions)), replace=False)


def _sentence_starts(feature: Feature) -> IntArray:
    if feature.word_starts is None:
        raise DataError(
            "denoising permutes sentences, and this text says nothing of where they start; "
            "set permute_sentences to 0"
        )
    return np.flatnonzero(feature.word_starts[0] & SENTENCE_START)
