"""Predictions that do not depend on the text: one answer for (nearly) all, classes that are never predicted.

Functions of predicted and true values alone: a class, a tuple of labels, of tags, or the text of an answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from pretune.errors import DataError

SHARE = 0.99
"""Of the records; from here on one value counts as the answer to all."""
MISSED = 0.9
"""Of the records whose true value is another one, that get it nevertheless: where one class is rare, a good
model gives one answer for 99 % of the records, too."""
LEAST_OTHERS = 2
"""Records whose true value is another one; with fewer there is nothing that a model could have told apart."""
LEAST_OUTPUTS, LEAST_REPEATS = 3, 4
"""Outputs, and tokens of each; with fewer, one token may well be the answer."""


@dataclass(frozen=True, slots=True)
class ConstantPrediction:
    """One answer for (nearly) every record."""

    value: Any
    count: int
    """Records that get it."""
    n: int
    others: float
    """Share of the records whose true value is another one."""
    largest: float
    """Share of the most frequent true value."""


@dataclass(frozen=True, slots=True)
class NeverPredicted:
    """A class that records have and no prediction names."""

    label: str
    support: int
    share: float
    """Of the records that have it."""


def constant_prediction(predicted: Sequence[Hashable], true: Sequence[Hashable]) -> ConstantPrediction | None:
    """The value that (nearly) every record is predicted to have, where the true values differ; else None.

    Raises:
        DataError: predicted and true values do not pair up.
    """
    if len(predicted) != len(true):
        raise DataError(f"{len(predicted)} predicted values for {len(true)} true ones")
    if not predicted:
        return None
    value, count = Counter(predicted).most_common(1)[0]
    others = [p for p, t in zip(predicted, true, strict=True) if t != value]
    missed = sum(p == value for p in others)
    if count < SHARE * len(true) or len(others) < LEAST_OTHERS or missed < MISSED * len(others):
        return None
    if len(set(true)) < 2:
        return None
    largest = Counter(true).most_common(1)[0][1]
    return ConstantPrediction(value, count, len(true), len(others) / len(true), largest / len(true))


def never_predicted(
    predicted: Iterable[Iterable[str]], true: Sequence[Iterable[str]]
) -> list[NeverPredicted]:
    """The classes that true values hold and no predicted one does, the most frequent first.

    Args:
        predicted: the classes of each prediction: one, several, or none.
        true: those of each record.
    """
    named = set(chain.from_iterable(predicted))
    counts = Counter(label for labels in true for label in set(labels))
    absent = sorted((label for label in counts if label not in named), key=lambda x: (-counts[x], x))
    return [NeverPredicted(label, counts[label], counts[label] / len(true)) for label in absent]


def constant_output(outputs: Sequence[Sequence[Hashable]]) -> ConstantPrediction | None:
    """Whether every one of several outputs, as tokens, is empty, or is one token again and again; else None.

    A first token that differs from those after it does not count: it may lack the space before it. The value
    is () where the outputs are empty, (token,), or (tokens ...) where each repeats another one.
    """
    if len(outputs) < LEAST_OUTPUTS:
        return None
    empty = not any(outputs)
    if not empty and any(len(output) < LEAST_REPEATS or len(set(output[1:])) > 1 for output in outputs):
        return None
    value = tuple(dict.fromkeys(output[-1] for output in outputs if output))
    return ConstantPrediction(value, len(outputs), len(outputs), 1.0, 0.0)
