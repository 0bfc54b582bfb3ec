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
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pydantic

from pretune.config import Settings
from pretune.errors import DataError, UnsupportedError
from pretune.objectives._pairs import HEAD as HEAD
from pretune.objectives._pairs import SourceTargetBuilder, text_mask
from pretune.text.segmentation import SENTENCE_START
from pretune.types import (
    IGNORE_INDEX,
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
EVALUATION_OPTIONS: Mapping[str, bool] = {"hidden_only": True}
"""How held-out text is scored: what stands in the source need only be copied."""
MASK_PLACEHOLDER = -1
"""In a source of places of the text: a mask."""


class Options(Settings):
    """Settings of denoising; what is 0 is not done."""

    infilling: float = pydantic.Field(default=0.3, ge=0, lt=1)
    """Share of the tokens that are hidden in spans, each of which becomes one mask."""
    mean_length: float = pydantic.Field(default=3.0, ge=1)
    """Of such a span, in tokens."""
    masking: float = pydantic.Field(default=0.0, ge=0, lt=1)
    """Share of the tokens that become a mask each."""
    deletion: float = pydantic.Field(default=0.0, ge=0, lt=1)
    """Share of the tokens that vanish without a trace."""
    permute_sentences: float = pydantic.Field(default=1.0, ge=0, le=1)
    """Share of the sentences that change places with each other."""
    rotation: float = pydantic.Field(default=0.0, ge=0, le=1)
    """Share of the texts that are rotated."""
    hidden_only: bool = False
    """Count the loss at the tokens alone that the source does not hold."""
    label_smoothing: float = pydantic.Field(default=0.0, ge=0, lt=1)
    """Share of each target that is spread over the vocabulary, in training; held-out losses are without."""

    @pydantic.model_validator(mode="after")
    def _check_any_noise(self) -> Options:
        if not (self.infilling or self.masking or self.deletion or self.permute_sentences or self.rotation):
            raise ValueError("denoising without any damage would only copy: leave one of them above 0")
        return self


def window_spec(specials: SpecialTokens, max_length: int) -> WindowSpec:
    """Windows that leave room for the frame; none overlaps, so that each token lies in one."""
    before, after = specials.single
    return WindowSpec(length=max_length - len(before) - len(after))


class Objective:
    """The source is a damaged window, the target the window as it was."""

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
        self.builder = SourceTargetBuilder("denoising", traits, specials, self.options.label_smoothing)
        if specials.mask_id is None:
            raise UnsupportedError("denoising needs a tokenizer with a mask token; this one has none")
        self._mask_id = specials.mask_id
        self.supports_packing = self.builder.supports_packing

    def length_bounds(self, lengths: IntArray) -> IntArray:
        """Places that each feature needs, (n,), of its token counts, (n, 1)."""
        return np.asarray(lengths.sum(1) + self.builder.num_special_tokens)

    def build(self, feature: Feature, rng: np.random.Generator) -> Example:
        """Damage a copy of the window.

        Raises:
            DataError: sentences are to be permuted, and the feature says nothing of sentences.
        """
        tokens = feature.sequences[0]
        positions = self._corrupt(feature, rng)  # (S,)
        source = self.builder.add_special_tokens(
            np.where(positions == MASK_PLACEHOLDER, self._mask_id, tokens[positions])
        )
        target = self.builder.add_special_tokens(tokens)
        target_mask = np.ones(len(target), bool)
        if self.options.hidden_only:
            target_mask = text_mask(len(target), self.builder.specials)
            target_mask[np.flatnonzero(target_mask)[positions[positions != MASK_PLACEHOLDER]]] = False
        return self.builder.build_example(feature.record, source, target, target_mask)

    def collate(self, groups: Sequence[Sequence[Example]]) -> Batch:
        """A group of examples a row of the grid."""
        return self.builder.collate(groups)

    def loss(self, network: NetworkLike, batch: Batch) -> Iterator[Loss]:
        """Cross-entropy in nats, summed over the target tokens."""
        yield from self.builder.loss(network, batch)

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
            positions = infill_spans(positions, options.infilling, options.mean_length, rng)
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


def ngram_contexts(feature: Feature, example: Example, specials: SpecialTokens) -> tuple[IntArray, IntArray]:
    """(previous true token, target) of each counted token, for the n-gram baselines; -1 at the start."""
    targets, text = example.rows[0].targets[HEAD], feature.sequences[0]
    previous = np.full(len(targets), -1, np.int64)
    text_positions = np.flatnonzero(text_mask(len(targets), specials))
    previous[text_positions[1:]] = text[:-1]
    counted = targets != IGNORE_INDEX
    return previous[counted], targets[counted]
