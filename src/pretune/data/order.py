"""The order of features and their cut into steps, as arithmetic: resuming is setting an integer."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from pretune.errors import ConfigError
from pretune.types import IntArray

_ORDER, _TRAINING, _VALIDATION, _MIXTURE, _NEGATIVES = range(5)  # domains: no two uses share random numbers
_BLOCK, _STRATUM = 4096, 64  # pieces of a mixture that are drawn at once, and that keep to its weights
_MASK = (1 << 64) - 1


class StepPlan:
    """Which features make step ``s``: a pure function of the arguments.

    Laid end to end, epoch after epoch, feature i covers ``bounds[i]`` units (tokens, or one), and step ``s``
    holds those that start in [s * per_step, (s + 1) * per_step). Each epoch is a permutation of its own; a
    step may span epochs; nothing is dropped or repeated.

    Args:
        bounds: (n,) units of each feature, at least 1.
        per_step: units of a step.
        seed: another seed, another order.
        fingerprint: of the feature store; other data, another order.

    Raises:
        ConfigError: a feature is longer than a step, which could leave a step empty.
    """

    def __init__(self, bounds: IntArray, per_step: int, seed: int, fingerprint: str) -> None:
        self.bounds = np.asarray(bounds, np.int64)
        assert self.bounds.min(initial=1) >= 1, "every feature covers something"
        assert len(self.bounds), "a feature store is never empty"
        longest = int(self.bounds.max())
        if per_step < longest:
            raise ConfigError(
                f"a step of {per_step} is smaller than the longest example ({longest}) and could be empty; "
                f"raise the batch to {longest} or more, or shorten the examples"
            )
        self.per_step, self.seed = per_step, seed
        self.units = int(self.bounds.sum())
        """Units of an epoch."""
        self._salt = int.from_bytes(hashlib.sha256(fingerprint.encode()).digest()[:8])
        self._epochs: dict[int, tuple[IntArray, IntArray]] = {}

    @property
    def steps_per_epoch(self) -> float:
        """Steps that an epoch takes, not rounded."""
        return self.units / self.per_step

    def step(self, s: int) -> list[tuple[int, int]]:
        """(epoch, feature) of each feature of step ``s``, in order; never empty."""
        low, high = s * self.per_step, (s + 1) * self.per_step
        found: list[tuple[int, int]] = []
        for epoch in range(low // self.units, (high - 1) // self.units + 1):
            order, starts = self._epoch(epoch)
            base = epoch * self.units
            first, last = np.searchsorted(starts, [low - base, high - base])
            found += [(epoch, feature) for feature in order[first:last].tolist()]
        return found

    def _epoch(self, epoch: int) -> tuple[IntArray, IntArray]:
        """The permutation of an epoch and the unit at which each of its features starts."""
        if epoch not in self._epochs:
            generator = _generator(self.seed, _ORDER, epoch, self._salt)
            order = generator.permutation(len(self.bounds))
            ends = np.cumsum(self.bounds[order])
            if len(self._epochs) > 1:  # a step reads one epoch, or one and the next
                del self._epochs[max(self._epochs, key=lambda known: abs(known - epoch))]
            self._epochs[epoch] = order, ends - self.bounds[order]
        return self._epochs[epoch]


class MixtureSampler:
    """To which part of a mixture each piece of a run belongs: drawn by weight, from seed and number alone.

    The draws are stratified: of each 64 pieces (0 to 63, 64 to 127 ...) a part has its share to within two,
    so that short runs keep to the weights, too.
    """

    def __init__(self, weights: Sequence[float], seed: int) -> None:
        self._cumulative_weights = np.cumsum(np.asarray(weights, np.float64) / sum(weights))
        self.seed = seed
        self._blocks: list[IntArray] = []
        self._counts_before = np.zeros((1, len(weights)), np.int64)
        """Row b: the pieces of each part before block b."""

    def draw(self, start: int, end: int) -> list[tuple[int, int]]:
        """(part, which of the part's pieces) of the pieces [low, high), in order."""
        while len(self._blocks) * _BLOCK < end:
            block = self._block(len(self._blocks))
            counts = np.bincount(block, minlength=len(self._cumulative_weights))
            self._blocks.append(block)
            self._counts_before = np.vstack([self._counts_before, self._counts_before[-1] + counts])
        found = []
        for piece in range(start, end):
            number, place = divmod(piece, _BLOCK)
            part = int(self._blocks[number][place])
            earlier = int((self._blocks[number][:place] == part).sum())
            found.append((part, int(self._counts_before[number, part]) + earlier))
        return found

    def _block(self, number: int) -> IntArray:
        generator = _generator(self.seed, _MIXTURE, number, 0)
        strata = generator.permuted(np.tile(np.arange(_STRATUM), (_BLOCK // _STRATUM, 1)), axis=1)
        draws = ((strata + generator.random(strata.shape)) / _STRATUM).ravel()  # (_BLOCK,)
        # The last end may be a little less than 1, by rounding.
        parts = np.minimum(
            np.searchsorted(self._cumulative_weights, draws, side="right"), len(self._cumulative_weights) - 1
        )
        return np.asarray(parts, np.int64)


def training_rng(seed: int, epoch: int, feature: int) -> np.random.Generator:
    """The generator with which ``feature`` is built in ``epoch``, whatever was built before."""
    return _generator(seed, _TRAINING, epoch, feature)


def validation_rng(feature: int) -> np.random.Generator:
    """The generator of a validation feature: the same in every run, so that losses compare."""
    return _generator(0, _VALIDATION, 0, feature)


def negative_samples_rng(seed: int, step: int) -> np.random.Generator:
    """The generator with which the candidates of ``step`` are drawn, the same on all ranks."""
    return _generator(seed, _NEGATIVES, step, 0)


def _generator(seed: int, domain: int, a: int, b: int) -> np.random.Generator:
    # Philox (Salmon et al. 2011) is a function of key and counter: keys never collide, nothing is hashed,
    # and the lowest word of the counter leaves each stream 2**66 numbers.
    key = np.array([seed & _MASK, domain], np.uint64)
    counter = np.array([0, a & _MASK, b & _MASK, 0], np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))
