"""Which words a vocabulary's loss is estimated from in each step (see :mod:`pretune.nn.sampled_softmax`).

Words are drawn without replacement, each with a chance that goes with its frequency; the most frequent are in
every step. What is drawn depends on seed and step alone, so that a resume is exact and all ranks and
micro-batches of a step agree. Towards the end of a run all words count: what is learnt then is exact.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Self

import numpy as np
import pydantic
import torch

from pretune.config import Settings
from pretune.data.order import negative_samples_rng
from pretune.objectives.base import Objective
from pretune.objectives.wrappers.wrapper import ObjectiveWrapper
from pretune.types import Batch, FloatArray, Loss, LossOptions, NegativeSamples, NetworkLike, Outputs

POWER = 0.75
"""Of the frequencies, as of word2vec's negative samples (Mikolov et al. 2013, section 2.2): with these as
they are, a rare word would come so seldom, and count for so many, that it shook the estimate."""
MIN_SAMPLED, VOCABULARY_DIVISOR = 1024, 8
"""Words that are drawn: one in so many of the vocabulary, and no fewer than this."""


class SampledSoftmaxSettings(Settings):
    """Estimate the loss over the vocabulary from some of its words while a model is young."""

    num_sampled: int | None = pydantic.Field(default=None, ge=1)
    """Drawn a step; None: an eighth of the vocabulary, 1,024 at least. Where that is more than half of it,
    all words are computed."""
    until: float = pydantic.Field(default=0.9, gt=0, le=1)
    """Share of the run after which all words count."""

    def resolve_num_sampled(self, vocabulary_size: int) -> int:
        """How many of so many words are drawn; all of them where fewer would save nothing."""
        words = self.num_sampled or max(MIN_SAMPLED, vocabulary_size // VOCABULARY_DIVISOR)
        return words if 2 * words <= vocabulary_size else vocabulary_size


class SampledSoftmaxObjective(ObjectiveWrapper):
    """An objective whose losses over the vocabulary are estimated from some of its words.

    Args:
        sampler: draws the words of a step; the components of a mixture share it.
    """

    def __init__(self, inner: Objective, sampler: NegativeSampler) -> None:
        super().__init__(inner)
        self.sampler = sampler
        self.cost_changes_at = sampler.settings.until
        self.negative_samples: NegativeSamples | None = None
        """Of this step; None: all words count."""

    def at_step(self, step: int, progress: float) -> Self:
        """With the words of ``step``; all count from the share ``until`` of the run on."""
        wrapper = super().at_step(step, progress)
        sampling = progress < self.sampler.settings.until
        wrapper.negative_samples = self.sampler.draw(step) if sampling else None
        return wrapper

    def loss(self, network: NetworkLike, batch: Batch) -> Iterator[Loss]:
        """The losses of the inner objective, estimated."""
        if self.negative_samples is None:
            return self.inner.loss(network, batch)
        samples = self.negative_samples.to(batch.tokens.device)
        return self.inner.loss(_SamplingNetwork(network, samples), batch)


class _SamplingNetwork:
    """A network whose heads over the vocabulary estimate their losses."""

    def __init__(self, network: NetworkLike, negative_samples: NegativeSamples) -> None:
        self.network, self.negative_samples = network, negative_samples

    def __call__(
        self,
        batch: Batch,
        heads: Sequence[str] = (),
        targets: Mapping[str, torch.Tensor] | None = None,
        loss: LossOptions | None = None,
        cache: Any = None,
    ) -> Outputs:
        options = replace(loss or LossOptions(), negative_samples=self.negative_samples)
        return self.network(batch, heads=heads, targets=targets, loss=options, cache=cache)


class NegativeSampler:
    """Draws the words of each step."""

    def __init__(
        self, settings: SampledSoftmaxSettings, frequencies: Sequence[float] | FloatArray, seed: int
    ) -> None:
        """``frequencies``: (V,) how often each word comes, in any unit."""
        self.settings, self.seed = settings, seed
        self.num_sampled = settings.resolve_num_sampled(len(frequencies))
        self._inclusion_probabilities = inclusion_probabilities(
            np.asarray(frequencies, np.float64), self.num_sampled
        )  # (V,)
        self._always_sampled = np.flatnonzero(self._inclusion_probabilities >= 1)
        self._randomly_sampled = np.flatnonzero(self._inclusion_probabilities < 1)

    def draw(self, step: int) -> NegativeSamples:
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
