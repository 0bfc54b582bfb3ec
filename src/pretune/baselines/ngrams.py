"""What a language model must beat: unigram and Kneser-Ney bigram models of the training tokens.

Chen & Goodman 1999, "An empirical study of smoothing techniques for language modeling", section 2.7
(interpolated, one discount an order). Both are proper distributions over the whole vocabulary, so their
cross-entropy can stand beside that of a network on the same targets.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from pretune.errors import DataError
from pretune.types import FloatArray, IntArray

_PAIRS_PER_CHUNK = 1 << 21


class NgramBaselines:
    """Counts of token pairs, and the two distributions that follow from them.

    The pairs are coded as ``previous * vocabulary_size + target``, sorted; ``previous`` is
    ``vocabulary_size`` at the start of a document. Memory is 16 bytes a distinct pair.
    """

    def __init__(
        self, pairs: IntArray, counts: IntArray, vocabulary_size: int, *, bos_id: int | None = None
    ) -> None:
        self.vocabulary_size = vocabulary_size
        self.bos_id = bos_id
        self._pairs, self._counts = pairs, counts
        previous, targets = np.divmod(pairs, vocabulary_size)

        # every target has one token before it, so the counts of pairs hold those of tokens
        unigrams = np.bincount(targets, weights=counts, minlength=vocabulary_size)
        self._unigram = _discounted_probabilities(unigrams)  # (V,)
        # the lower order of Kneser-Ney counts the contexts that a token follows, not its occurrences
        self._continuation = _discounted_probabilities(
            np.bincount(targets, minlength=vocabulary_size)
        )  # (V,)
        self._discount = _estimate_discount(counts)
        self._totals = np.bincount(previous, weights=counts, minlength=vocabulary_size + 1)  # (V + 1,)
        followers = np.bincount(previous, minlength=vocabulary_size + 1)
        # the share of a context's mass that goes to the lower order; all of it, if it was never seen
        self._backoff = np.ones(vocabulary_size + 1)
        seen = self._totals > 0
        self._backoff[seen] = self._discount * followers[seen] / self._totals[seen]

    @classmethod
    def fit(
        cls, documents: Iterable[npt.ArrayLike], vocabulary_size: int, *, bos_id: int | None = None
    ) -> NgramBaselines:
        """Count the token pairs of the documents, (n,) ids each.

        Pairs are counted in chunks of at least two million, so memory is bounded by the number of
        distinct pairs, whatever the length of the text.

        Args:
            documents: the training text; no pair spans two of them.
            vocabulary_size: of the tokenizer, special tokens included.
            bos_id: the id that opens a document, if one does. It is the context of the token after it and
                no target itself.

        Raises:
            DataError: an id outside the vocabulary, or no target at all.
        """
        pairs = counts = np.empty(0, dtype=np.int64)
        pieces: list[IntArray] = []
        num_pending = 0
        boundary = np.array([vocabulary_size])

        def merge() -> tuple[IntArray, IntArray]:
            fresh = _encode_pairs(np.concatenate(pieces), vocabulary_size)
            new, inverse = np.unique(np.concatenate([pairs, fresh]), return_inverse=True)
            weights = np.concatenate([counts, np.ones(len(fresh), dtype=np.int64)])
            return new, np.bincount(inverse, weights=weights, minlength=len(new)).astype(np.int64)

        for number, document in enumerate(documents):
            ids = np.asarray(document, dtype=np.int64)
            if ids.size and not 0 <= ids.min() <= ids.max() < vocabulary_size:
                raise DataError(f"document {number}: ids must lie in 0..{vocabulary_size - 1}")
            if ids.size and ids[0] == bos_id:
                ids = ids[1:]
            pieces += [boundary, ids]
            num_pending += len(ids)
            # waiting for as many as are held keeps the merges at O(log n) passes over them
            if num_pending >= max(_PAIRS_PER_CHUNK, len(pairs)):
                pairs, counts = merge()
                pieces, num_pending = [], 0
        if pieces:
            pairs, counts = merge()
        if not len(pairs):
            raise DataError("the n-gram baselines need at least one training token")
        return cls(pairs, counts, vocabulary_size, bos_id=bos_id)

    @property
    def unigram_probabilities(self) -> FloatArray:
        """(V,) how likely each token is where nothing is known of its place; none is impossible."""
        return self._unigram

    def unigram_nll(self, targets: npt.ArrayLike) -> FloatArray:
        """Return -log P(target), (N,), for ids (N,)."""
        return -np.log(self._unigram[self._check_ids(targets, lowest=0)])

    def bigram_nll(self, previous: npt.ArrayLike, targets: npt.ArrayLike) -> FloatArray:
        """Return -log P(target | previous), (N,), for ids (N,).

        ``previous`` is the true token before each target, or -1 where a document starts.
        """
        targets = self._check_ids(targets, lowest=0)
        contexts = self._check_ids(previous, lowest=-1)
        contexts = np.where(contexts == -1, self.vocabulary_size, contexts)
        if self.bos_id is not None:
            contexts = np.where(contexts == self.bos_id, self.vocabulary_size, contexts)
        pairs = contexts * self.vocabulary_size + targets
        indices = np.searchsorted(self._pairs, pairs).clip(max=len(self._pairs) - 1)
        found = self._pairs[indices] == pairs
        kept = np.where(found, self._counts[indices] - self._discount, 0.0)
        # a context that was never seen has no pair either: 0 / 1, and all its mass backs off
        higher = kept / np.maximum(self._totals[contexts], 1.0)
        return -np.log(higher + self._backoff[contexts] * self._continuation[targets])

    def _check_ids(self, ids: npt.ArrayLike, *, lowest: int) -> IntArray:
        checked = np.asarray(ids, dtype=np.int64)
        if checked.size and not lowest <= checked.min() <= checked.max() < self.vocabulary_size:
            raise DataError(f"ids must lie in {lowest}..{self.vocabulary_size - 1}")
        return checked


def _encode_pairs(tokens: IntArray, vocabulary_size: int) -> IntArray:
    """Pairs (previous, target) of a row in which ``vocabulary_size`` opens each document."""
    previous, targets = tokens[:-1], tokens[1:]
    inside = targets != vocabulary_size
    coded: IntArray = previous[inside] * vocabulary_size + targets[inside]
    return coded


def _estimate_discount(counts: npt.NDArray[np.number]) -> float:
    """Estimate D = n1 / (n1 + 2 n2) (Ney, Essen & Kneser 1994).

    With nothing seen exactly once D would be 0, and a new token impossible: then D is 0.5.
    """
    once, twice = int((counts == 1).sum()), int((counts == 2).sum())
    return once / (once + 2 * twice) if once else 0.5


def _discounted_probabilities(counts: npt.NDArray[np.number]) -> FloatArray:
    """Turn counts (V,) into probabilities (V,): absolute discounting, interpolated with the uniform."""
    discount = _estimate_discount(counts)
    total = counts.sum()
    left_over = discount * (counts > 0).sum() / total
    probabilities: FloatArray = np.maximum(counts - discount, 0.0) / total + left_over / len(counts)
    return probabilities
