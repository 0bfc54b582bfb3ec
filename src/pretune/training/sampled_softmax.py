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
from pretune.data.order import candidates_rng
from pretune.training.dataloader import Batches
from pretune.types import Batch, Candidates, FloatArray

POWER = 0.75
"""Of the frequencies, as of word2vec's negative samples (Mikolov et al. 2013, section 2.2): with these as
they are, a rare word would come so seldom, and count for so many, that it shook the estimate."""
LEAST, SHARE = 1024, 8
"""Words that are drawn: one in so many of the vocabulary, and no fewer than this."""


class SampledSoftmaxSettings(Settings):
    """Estimate the loss over the vocabulary from some of its words while a model is young."""

    words: int | None = pydantic.Field(default=None, ge=1)
    """Drawn a step; None: an eighth of the vocabulary, 1,024 at least. Where that is more than half of it,
    all words are computed."""
    until: float = pydantic.Field(default=0.9, gt=0, le=1)
    """Share of the run after which all words count."""

    def drawn_of(self, vocabulary: int) -> int:
        """How many of so many words are drawn; all of them where fewer would save nothing."""
        words = self.words or max(LEAST, vocabulary // SHARE)
        return words if 2 * words <= vocabulary else vocabulary


class SampledBatches:
    """The batches of another source, each with the candidates of its step."""

    def __init__(
        self,
        batches: Batches,
        settings: SampledSoftmaxSettings,
        chances: Sequence[float] | FloatArray,
        seed: int,
    ) -> None:
        """``chances``: (V,) how often each word comes, in any unit."""
        self.batches, self.settings, self.seed = batches, settings, seed
        self.words = settings.drawn_of(len(chances))
        self._chances = inclusion(np.asarray(chances, np.float64), self.words)  # (V,)
        self._surely = np.flatnonzero(self._chances >= 1)
        self._perhaps = np.flatnonzero(self._chances < 1)
        self.steps_per_epoch, self.tokens_per_step = batches.steps_per_epoch, batches.tokens_per_step
        self.fingerprint = batches.fingerprint
        self.turns_at: float | None = settings.until

    @property
    def micro_batch(self) -> int:
        """Rows that go through the network at once."""
        return self.batches.micro_batch

    @micro_batch.setter
    def micro_batch(self, rows: int) -> None:
        self.batches.micro_batch = rows

    def __call__(self, step: int, progress: float = 0.0) -> list[Batch]:
        """The micro-batches of ``step``; all words count from the share ``until`` of the run on."""
        found = self.batches(step, progress)
        if progress >= self.settings.until:
            return found
        candidates = self.drawn(step)
        return [replace(batch, candidates=candidates) for batch in found]

    def drawn(self, step: int) -> Candidates:
        """The candidates of ``step``: those in every step, and a systematic sample of the others.

        A word is in it with the chance that `inclusion` gives it (Madow 1949); their number is the same in
        all steps, as compiled networks want it.
        """
        rng = candidates_rng(self.seed, step)
        order = rng.permutation(self._perhaps)
        ends = np.cumsum(self._chances[order])
        number = self.words - len(self._surely)
        # The last end is the number but for rounding.
        places = (np.arange(number) + rng.random()) * (ends[-1] / number if number else 0.0)
        picked = order[np.searchsorted(ends, places)]
        ids = np.sort(np.concatenate([self._surely, picked])).astype(np.int64)  # (M,)
        corrections = -np.log(self._chances[ids]).astype(np.float32)
        return Candidates(torch.from_numpy(ids), torch.from_numpy(corrections))


def inclusion(frequencies: FloatArray, words: int) -> FloatArray:
    """(V,) the chance of each word to be among ``words``: min(1, c f^POWER), which add up to that number."""
    weights = frequencies**POWER  # (V,)
    falling = np.sort(weights)[::-1]
    left = np.cumsum(falling[::-1])[::-1]  # what the k-th and all rarer ones weigh
    # With the k most frequent in every step, the others share what is left of the places.
    scales = (words - np.arange(words)) / left[:words]
    surely = int(np.argmax(falling[:words] * scales < 1)) if (falling[:words] * scales < 1).any() else words
    scale = scales[surely] if surely < words else 0.0
    return np.where(weights >= falling[surely - 1], 1.0, weights * scale) if surely else weights * scale
