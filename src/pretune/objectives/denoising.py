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
from pretune.objectives._pairs import Pairs, text_places
from pretune.text.segmentation import SENTENCE
from pretune.types import (
    IGNORED,
    Batch,
    Example,
    Feature,
    FeatureStore,
    IntArray,
    Loss,
    NetworkLike,
    Specials,
    Traits,
    Windowing,
)

KINDS = ("encoder-decoder",)
SCORING: Mapping[str, bool] = {"hidden_only": True}
"""How held-out text is scored: what stands in the source need only be copied."""
GAP = -1
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
    def _something(self) -> Options:
        if not (self.infilling or self.masking or self.deletion or self.permute_sentences or self.rotation):
            raise ValueError("denoising without any damage would only copy: leave one of them above 0")
        return self


def windowing(specials: Specials, max_length: int) -> Windowing:
    """Windows that leave room for the frame; none overlaps, so that each token lies in one."""
    before, after = specials.single
    return Windowing(length=max_length - len(before) - len(after))


class Objective:
    """The source is a damaged window, the target the window as it was."""

    heads = (HEAD,)
    every_token = False

    def __init__(
        self,
        traits: Traits,
        specials: Specials,
        options: Options | None = None,
        store: FeatureStore | None = None,
    ) -> None:
        self.options = options or Options()
        self.pairs = Pairs("denoising", traits, specials, self.options.label_smoothing)
        if specials.mask is None:
            raise UnsupportedError("denoising needs a tokenizer with a mask token; this one has none")
        self._mask = specials.mask
        self.packs = self.pairs.packs

    def length_bounds(self, lengths: IntArray) -> IntArray:
        """Places that each feature needs, (n,), of its token counts, (n, 1)."""
        return np.asarray(lengths.sum(1) + self.pairs.frame)

    def build(self, feature: Feature, rng: np.random.Generator) -> Example:
        """Damage a copy of the window.

        Raises:
            DataError: sentences are to be permuted, and the feature says nothing of sentences.
        """
        tokens = feature.sequences[0]
        places = self._damaged(feature, rng)  # (S,)
        source = self.pairs.framed(np.where(places == GAP, self._mask, tokens[places]))
        target = self.pairs.framed(tokens)
        counted = np.ones(len(target), bool)
        if self.options.hidden_only:
            counted = text_places(len(target), self.pairs.specials)
            counted[np.flatnonzero(counted)[places[places != GAP]]] = False
        return self.pairs.example(feature.record, source, target, counted)

    def collate(self, groups: Sequence[Sequence[Example]]) -> Batch:
        """A group of examples a row of the grid."""
        return self.pairs.collate(groups)

    def loss(self, network: NetworkLike, batch: Batch) -> Iterator[Loss]:
        """Cross-entropy in nats, summed over the target tokens."""
        yield from self.pairs.loss(network, batch)

    def _damaged(self, feature: Feature, rng: np.random.Generator) -> IntArray:
        """(S,) the places of the window that the source shows, in its order; `GAP` for a mask."""
        options = self.options
        places = np.arange(len(feature.sequences[0]), dtype=np.int64)
        if options.permute_sentences:
            places = permuted(places, _sentences(feature), options.permute_sentences, rng)
        if options.infilling:
            places = infilled(places, options.infilling, options.mean_length, rng)
        if options.masking:
            places[_some(np.flatnonzero(places != GAP), options.masking, rng)] = GAP
        if options.deletion:
            places = np.delete(places, _some(np.flatnonzero(places != GAP), options.deletion, rng))
        if options.rotation and rng.random() < options.rotation and len(places) > 1:
            places = np.roll(places, -int(rng.integers(1, len(places))))
        return places


def permuted(places: IntArray, starts: IntArray, share: float, rng: np.random.Generator) -> IntArray:
    """The places with a share of the sentences, which begin at ``starts``, in each other's place."""
    sentences = np.split(places, starts[starts > 0])
    chosen = rng.permutation(len(sentences))[: math.ceil(share * len(sentences))]
    order = np.arange(len(sentences))
    order[chosen] = rng.permutation(chosen)
    return np.concatenate([sentences[number] for number in order])


def infilled(places: IntArray, share: float, mean: float, rng: np.random.Generator) -> IntArray:
    """The places with spans of a share of them replaced by one `GAP` each, anywhere with equal chances."""
    hidden = math.ceil(share * len(places))
    lengths = span_lengths(hidden, mean, rng)
    # The spans and what stays, in a row: where among them the spans stand is drawn.
    kept = len(places) - hidden
    spans = np.zeros(kept + len(lengths), bool)
    spans[rng.choice(len(spans), len(lengths), replace=False)] = True
    sizes = np.ones(len(spans), np.int64)
    sizes[spans] = lengths
    begins = np.cumsum(sizes) - sizes
    return np.where(spans, GAP, places[np.minimum(begins, len(places) - 1)])


def span_lengths(hidden: int, mean: float, rng: np.random.Generator) -> IntArray:
    """At most ``hidden`` lengths that add up to it, Poisson but for the last, which is cut."""
    lengths: list[int] = []
    left = hidden
    while left:
        lengths.append(min(int(rng.poisson(mean)), left))
        left -= lengths[-1]
    surplus = max(len(lengths) - hidden, 0)
    empty = [number for number, length in enumerate(lengths) if length == 0]
    return np.delete(np.array(lengths, np.int64), empty[:surplus])


def _some(places: IntArray, share: float, rng: np.random.Generator) -> IntArray:
    return rng.choice(places, round(share * len(places)), replace=False)


def _sentences(feature: Feature) -> IntArray:
    if feature.starts is None:
        raise DataError(
            "denoising permutes sentences, and this text says nothing of where they start; "
            "set permute_sentences to 0"
        )
    return np.flatnonzero(feature.starts[0] & SENTENCE)


def contexts(feature: Feature, example: Example, specials: Specials) -> tuple[IntArray, IntArray]:
    """(previous true token, target) of each counted token, for the n-gram baselines; -1 at the start."""
    told, text = example.rows[0].targets[HEAD], feature.sequences[0]
    previous = np.full(len(told), -1, np.int64)
    inner = np.flatnonzero(text_places(len(told), specials))
    previous[inner[1:]] = text[:-1]
    counted = told != IGNORED
    return previous[counted], told[counted]
