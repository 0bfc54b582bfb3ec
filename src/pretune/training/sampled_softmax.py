"""Which words a vocabulary's loss is estimated from in each step (see :mod:`pretune.nn.sampled_softmax`).

Words are drawn without replacement, each with a chance that goes with its frequency; the most frequent are in
every step. What is drawn depends on seed and step alone, so that a resume is exact and all ranks and
micro-batches of a step agree. Towards the end of a run all words count: what is learnt then is exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pydantic
import torch

from pretune.config import Settings
from pretune.data.order import negative_samples_rng
from pretune.training.dataloader import DataLoaderLike
from pretune.types import Batch, FloatArray, NegativeSamples

POWER = 0.75
"""Of the frequencies, as of word2vec's negative samples (Mikolov et al. 2013, section 2.2): with these as
they are, a rare word would come so seldom, and count for so many, that it shook the estimate."""
MIN_SAMPLED, VOCABULARY_DIVISOR = 1024, 8
"""Words that are drawn: one in so many of the vocabulary, and no fewer than this."""


class SampledSoftmaxSettings(Settings):
    """Estimate the loss over the vocabulary from some of its words while a model is young."""

    words: int | None = pydantic.Field(default=None, ge=1)
    """Drawn a step; None: an eighth of the vocabulary, 1,024 at least. Where that is more than half of it,
    all words are computed."""
    until: float = pydantic.Field(default=0.9, gt=0, le=1)
    """Share of the run after which all words count."""

    def resolve_num_sampled(self, vocabulary_size: int) -> int:
        """How many of so many words are drawn; all of them where fewer would save nothing."""
        words = self.words or max(MIN_SAMPLED, vocabulary_size // VOCABULARY_DIVISOR)
        return words if 2 * words <= vocabulary_size else vocabulary_size


class SampledSoftmaxDataLoader:
    """The batches of another source, each with the candidates of its step."""

    def __init__(
        self,
        dataloader: DataLoaderLike,
        settings: SampledSoftmaxSettings,
        frequencies: Sequence[float] | FloatArray,
        seed: int,
    ) -> None:
        """``frequencies``: (V,) how often each word comes, in any unit."""
        self.dataloader, self.settings, self.seed = dataloader, settings, seed
        self.num_sampled = settings.resolve_num_sampled(len(frequencies))
        self._inclusion_probabilities = inclusion_probabilities(
            np.asarray(frequencies, np.float64), self.num_sampled
        )  # (V,)
        self._always_sampled = np.flatnonzero(self._inclusion_probabilities >= 1)
        self._randomly_sampled = np.flatnonzero(self._inclusion_probabilities < 1)
        self.steps_per_epoch, self.tokens_per_step = dataloader.steps_per_epoch, dataloader.tokens_per_step
        self.fingerprint = dataloader.fingerprint
        self.cost_changes_at: float | None = settings.until

    @property
    def micro_batch(self) -> int:
        """Rows that go through the network at once."""
        return self.dataloader.micro_batch

    @micro_batch.setter
    def micro_batch(self, rows: int) -> None:
        self.dataloader.micro_batch = rows

    def __call__(self, step: int, progress: float = 0.0) -> list[Batch]:
        """The micro-batches of ``step``; all words count from the share ``until`` of the run on."""
        batches = self.dataloader(step, progress)
        if progress >= self.settings.until:
            return batches
        negative_samples = self.draw_negative_samples(step)
        return [replace(batch, negative_samples=negative_samples) for batch in batches]

    def draw_negative_samples(self, step: int) -> NegativeSamples:
        """The candidates of ``step``: those in every step, and a systematic sample of the others.

        A word is in it with the chance that `inclusion_probabilities` gives it (Madow 1949); their number
        is the same in all steps, as compiled networks want it.
        """
        rng = negative_samples_rng(self.seed, step)
        order = rng.permutation(self._randomly_sampled)
        ends = np.cumsum(self._inclusion_probabilities[order])
        number = self.num_sampled - len(self._always_sampled)
        # The last end is the number but for rounding.
        thresholds = (np.arange(number) + rng.random()) * (ends[-1] / number if number else 0.0)
        picked = order[np.searchsorted(ends, thresholds)]
        ids = np.sort(np.concatenate([self._always_sampled, picked])).astype(np.int64)  # (M,)
        corrections = -np.log(self._inclusion_probabilities[ids]).astype(np.float32)
        return NegativeSamples(torch.from_numpy(ids), torch.from_numpy(corrections))


def inclusion_probabilities(frequencies: FloatArray, num_sampled: int) -> FloatArray:
    """(V,) the chance of each word to be among ``num_sampled``: min(1, c f^POWER), which add up to that
    number.
    """
    weights = frequencies**POWER  # (V,)
    descending = np.sort(weights)[::-1]
    remaining_weight = np.cumsum(descending[::-1])[::-1]  # what the k-th and all rarer ones weigh
    # With the k most frequent in every step, the others share what is left of the places.
    scales = (num_sampled - np.arange(num_sampled)) / remaining_weight[:num_sampled]
    num_certain = (
        int(np.argmax(descending[:num_sampled] * scales < 1))
        if (descending[:num_sampled] * scales < 1).any()
        else num_sampled
    )
    scale = scales[num_certain] if num_certain < num_sampled else 0.0
    return (
        np.where(weights >= descending[num_certain - 1], 1.0, weights * scale)
        if num_certain
        else weights * scale
    )
