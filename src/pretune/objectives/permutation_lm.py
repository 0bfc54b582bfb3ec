"""Permutation language modelling: predict tokens in a drawn order (Yang et al. 2019, sections 2.2 and 2.3).

Of a text one token in K = 6 is predicted: the last ones of the order, each from those before it and from its
own place alone. The others see each other whatever their order, as in the paper's code; so the order is drawn
among the predicted, and the rank of all others is -1. The predicted lie in spans as that code draws them:
1 to 5 tokens, n of them in proportion to 1 / n, anywhere in a context of K times as many, and from the start
of a word; what then lacks of one token in K is drawn one by one. Special tokens are seen by all.

With ``segment_length`` a text is read in segments, each with an order of its own and a memory of those before
it, through which no gradient flows (Dai et al. 2019, section 3.2). The memory ends with its window of text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pydantic

from pretune.config import Settings
from pretune.errors import UnsupportedError
from pretune.nn.cache import SegmentMemory
from pretune.objectives import masked_lm
from pretune.objectives.base import LanguageModelObjective, LanguageModelOptions
from pretune.text.segmentation import WORD_START
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
    add_special_token_starts,
    add_special_tokens,
)

HEAD = "permutation_lm"


class Options(LanguageModelOptions):
    """Settings of permutation language modelling."""

    tokens_per_target: int = pydantic.Field(default=6, ge=2)
    """K: one token in so many is predicted."""
    max_span_length: pydantic.PositiveInt = 5
    """Tokens of the longest span that is drawn as a whole."""
    segment_length: int | None = pydantic.Field(default=None, ge=2)
    """Tokens that are read at once, with a memory of those before; None: a whole window, and no memory."""
    memory_length: pydantic.PositiveInt | None = None
    """Tokens that the memory holds at most; None: a segment."""
    as_masked_lm: bool = False
    """Predict the 15 % of the tokens that masked_lm would, none from another: so losses compare."""

    @pydantic.model_validator(mode="after")
    def _check_consistency(self) -> Options:
        if self.memory_length is not None and self.segment_length is None:
            raise ValueError("memory_length is that of the segments before: give segment_length, too")
        if self.as_masked_lm and self.segment_length is not None:
            raise ValueError("as_masked_lm: masked_lm reads whole windows: leave segment_length out")
        return self


class Objective(LanguageModelObjective):
    """Permutation language modelling over windows of text; packed, but where there is a memory."""

    heads = (HEAD,)
    options_type = Options
    options: Options
    extra_evaluations: ClassVar[Mapping[str, Mapping[str, Any]]] = {"as_masked_lm": {"as_masked_lm": True}}

    def __init__(
        self,
        traits: Traits,
        specials: SpecialTokens,
        options: Settings | None = None,
        store: FeatureStore | None = None,
    ) -> None:
        super().__init__(traits, specials, options, store)
        self.supports_packing = self.options.segment_length is None
        self._predictable = ~np.isin(np.arange(specials.vocabulary_size), specials.all_ids)  # (V,)
        lengths = np.arange(1, self.options.max_span_length + 1)
        self._length_probabilities = 1 / lengths / (1 / lengths).sum()
        # With a memory all batches have as many segments: so all ranks pass as often through the network.
        bounds = [1] if store is None else self.length_bounds(store.lengths)
        segment = self.options.segment_length or 1
        self.pad_to_multiple_of = 1 if self.supports_packing else -(-int(np.max(bounds)) // segment) * segment

    def check_support(self) -> None:
        """
        Raises:
            UnsupportedError: the family does not read in permuted order.
        """
        if not self.traits.supports_permutation or HEAD not in self.traits.heads:
            raise UnsupportedError(
                f"permutation_lm needs a family that reads in permuted order, as xlnet does, with a {HEAD!r} "
                f"head; this one has {', '.join(self.traits.heads)}"
            )

    def build(self, feature: Feature, rng: np.random.Generator) -> Example:
        """Frame the text, choose what is predicted, and draw the order."""
        tokens, _ = add_special_tokens(self.specials, feature.sequences[:1])  # (T,)
        starts = (
            None
            if feature.word_starts is None
            else add_special_token_starts(self.specials, feature.word_starts[:1])
        )
        order = np.full(len(tokens), -1, np.int64)
        size = self.options.segment_length or max(1, len(tokens))
        for low in range(0, len(tokens), size):
            candidates = low + np.flatnonzero(self._predictable[tokens[low : low + size]])
            self._draw_order(order, candidates, starts, rng)
        positions = np.flatnonzero(order >= 0)
        row = Row(tokens, {HEAD: positions}, {HEAD: tokens[positions]}, order=order)
        return Example(feature.record, (row,))

    def _draw_order(
        self,
        order: IntArray,
        candidates: IntArray,
        word_starts: npt.NDArray[np.uint8] | None,
        rng: np.random.Generator,
    ) -> None:
        """Give ranks to those of the candidates that are predicted."""
        if len(candidates) == 0:
            return
        if self.options.as_masked_lm:
            number = max(1, round(masked_lm.Options().mask_rate * len(candidates)))
            order[rng.choice(candidates, number, replace=False)] = 0  # alike: none comes before another
            return
        is_word_start = (
            np.ones(len(candidates), bool)
            if word_starts is None
            else (word_starts[candidates] & WORD_START) > 0
        )
        positions = candidates[self._choose_targets(is_word_start, rng)]
        order[positions] = rng.permutation(len(positions))

    def _choose_targets(
        self, is_word_start: npt.NDArray[np.bool_], rng: np.random.Generator
    ) -> npt.NDArray[np.bool_]:
        """(T,) which of the tokens are predicted; ``is_word_start``: where a word does."""
        size, is_target = len(is_word_start), np.zeros(len(is_word_start), bool)
        left, start = max(1, round(size / self.options.tokens_per_target)), 0
        while left and start < size:
            length = min(
                int(rng.choice(len(self._length_probabilities), p=self._length_probabilities)) + 1, left
            )
            context = length * self.options.tokens_per_target
            before = int(rng.integers(context))
            words = np.flatnonzero(is_word_start[start + before :])
            if not len(words) or start + before + int(words[0]) + length > size:
                break
            first = start + before + int(words[0])
            is_target[first : first + length] = True
            left, start = left - length, first + length + context - before
        rest = rng.choice(np.flatnonzero(~is_target), left, replace=False)
        is_target[rest] = True
        return is_target

    def loss(self, network: NetworkLike, batch: Batch) -> Iterator[Loss]:
        """Cross-entropy in nats, summed over the predicted places; one loss a segment."""
        segment, width = self.options.segment_length, batch.tokens.shape[1]
        memory = None if segment is None else SegmentMemory(self.options.memory_length or segment)
        for low in range(0, width, segment or width):
            segment_batch = batch if segment is None else slice_segment(batch, low, min(low + segment, width))
            outputs = network(
                segment_batch, heads=self.heads, targets=segment_batch.targets,
                loss=self.loss_options, cache=memory,
            )  # fmt: skip
            yield Loss(self.loss_terms(outputs, segment_batch))

    @classmethod
    def ngram_contexts(
        cls, feature: Feature, example: Example, specials: SpecialTokens
    ) -> tuple[IntArray, IntArray]:
        """(previous true token, target) of each predicted position; -1 at the start."""
        row = example.rows[0]
        positions = row.positions[HEAD]
        previous = row.tokens[np.maximum(positions - 1, 0)]
        is_text = (positions > 0) & ~np.isin(previous, specials.all_ids)
        return np.where(is_text, previous, -1), row.targets[HEAD]


def masked_order(tokens: IntArray, specials: SpecialTokens) -> IntArray:
    """The order (T,) of a text in which nothing sees the masked places, and these see all others."""
    return np.where(tokens == specials.mask_id, 0, -1)


def slice_segment(batch: Batch, start: int, end: int) -> Batch:
    """The columns [low, high) of a batch whose rows hold one text each; the counts stay those of it all."""
    layout, width = batch.layout, batch.tokens.shape[1]
    flat_positions = batch.positions[HEAD]
    assert flat_positions is not None, "what is predicted is told"
    assert layout.order is not None, "and in what order"
    row_positions = flat_positions % width
    inside = (row_positions >= start) & (row_positions < end)
    positions = flat_positions // width * (end - start) + row_positions - start  # (N,)
    lengths = (layout.lengths - start).clamp(0, end - start)
    return replace(
        batch,
        tokens=batch.tokens[:, start:end],
        layout=replace(layout, lengths=lengths, order=layout.order[:, start:end]),
        positions={HEAD: positions[inside]},
        targets={HEAD: batch.targets[HEAD][inside]},
    )
