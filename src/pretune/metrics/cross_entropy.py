"""The loss of a language model as scores: nats per target, perplexity, bits per byte."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from pretune.errors import DataError
from pretune.metrics._scoring import signature
from pretune.metrics.statistics import BOOTSTRAP_SIGNATURE, bootstrap
from pretune.types import FloatArray, IntArray, Score


def cross_entropy(
    nll: npt.ArrayLike,
    targets: npt.ArrayLike,
    *,
    tokenizer: str,
    text_bytes: npt.ArrayLike | None = None,
) -> list[Score]:
    """Build ``loss``, ``perplexity`` and, given the bytes, ``bits_per_byte``; lower is better in each.

    Sums of the whole test set give the values; sums of each document give an interval besides. It is a
    bootstrap over documents, as the tokens of one are not independent. ``n`` is the number of targets.

    Only bits per byte compares models with different tokenizers, and only if every byte of the text was
    scored: it says nothing of a masked model.

    Args:
        nll: () or (documents,) summed cross-entropy.
        targets: () or (documents,) number of targets in each sum.
        tokenizer: name or hash, for the signature.
        text_bytes: () or (documents,) UTF-8 bytes of the text that the targets spell.

    Raises:
        DataError: the shapes differ, or there is no target (or byte).
    """
    summed = np.atleast_1d(np.asarray(nll, dtype=np.float64))
    number = _check_counts("targets", targets, summed)
    n = int(number.sum())
    documents = len(summed)
    settings: dict[str, str | int] = {"tokenizer": tokenizer, "documents": documents}
    if documents > 1:
        settings["bootstrap"] = BOOTSTRAP_SIGNATURE

    def score(name: str, value: float, interval: tuple[float, float] | None) -> Score:
        return Score(name, value, n, signature(name, n, **settings), "lower", interval)

    loss, interval = _ratio_of_sums(summed, number)
    # exp is monotone, so it maps the percentiles of the loss to those of the perplexity
    perplexities = None if interval is None else (_safe_exp(interval[0]), _safe_exp(interval[1]))
    scores = [score("loss", loss, interval), score("perplexity", _safe_exp(loss), perplexities)]
    if text_bytes is not None:
        scores.append(
            score(
                "bits_per_byte",
                *_ratio_of_sums(summed / math.log(2), _check_counts("text_bytes", text_bytes, summed)),
            )
        )
    return scores


def _check_counts(name: str, values: npt.ArrayLike, nll: FloatArray) -> IntArray:
    sizes = np.atleast_1d(np.asarray(values, dtype=np.int64))
    if sizes.ndim != 1 or sizes.shape != nll.shape:
        raise DataError(f"cross_entropy: {name} has shape {sizes.shape}, nats has {nll.shape}")
    if sizes.min(initial=0) < 0 or not sizes.any():
        raise DataError(f"cross_entropy: {name} must be counts with a sum above 0")
    return sizes


def _ratio_of_sums(numerators: FloatArray, sizes: IntArray) -> tuple[float, tuple[float, float] | None]:
    """Sum over sum, and its interval where there is more than one document with targets."""
    full = sizes > 0  # a resample of empty documents alone would have no ratio
    numerators, sizes = numerators[full], sizes[full]
    value = float(numerators.sum() / sizes.sum())
    if len(sizes) == 1:
        return value, None
    ones = np.ones(len(sizes), dtype=np.int64)
    return value, bootstrap(ones, lambda drawn: (drawn @ numerators) / (drawn @ sizes))


def _safe_exp(value: float) -> float:
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf
