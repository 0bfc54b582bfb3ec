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

MIN_SHARE = 0.99
"""Of the records; from here on one value counts as the answer to all."""
MIN_MISSED_SHARE = 0.9
"""Of the records whose true value is another one, that get it nevertheless: where one class is rare, a good
model gives one answer for 99 % of the records, too."""
MIN_OTHERS = 2
"""Records whose true value is another one; with fewer there is nothing that a model could have told apart."""
MIN_OUTPUTS, MIN_REPEATS = 3, 4
"""Outputs, and tokens of each; with fewer, one token may well be the answer."""


@dataclass(frozen=True, slots=True)
class ConstantPrediction:
    """One answer for (nearly) every record."""

    value: Any
    count: int
    """Records that get it."""
    n: int
    other_share: float
    """Share of the records whose true value is another one."""
    largest_share: float
    """Share of the most frequent true value."""


@dataclass(frozen=True, slots=True)
class NeverPredicted:
    """A class that records have and no prediction names."""

    label: str
    support: int
    share: float
    """Of the records that have it."""


def find_constant_prediction(
    predicted: Sequence[Hashable], references: Sequence[Hashable]
) -> ConstantPrediction | None:
    """The value that (nearly) every record is predicted to have, where the true values differ; else None.

    Raises:
        DataError: predicted and true values do not pair up.
    """
    if len(predicted) != len(references):
        raise DataError(f"{len(predicted)} predicted values for {len(references)} true ones")
    if not predicted:
        return None
    value, count = Counter(predicted).most_common(1)[0]
    others = [p for p, t in zip(predicted, references, strict=True) if t != value]
    missed = sum(p == value for p in others)
    if (
        count < MIN_SHARE * len(references)
        or len(others) < MIN_OTHERS
        or missed < MIN_MISSED_SHARE * len(others)
    ):
        return None
    if len(set(references)) < 2:
        return None
    largest = Counter(references).most_common(1)[0][1]
    return ConstantPrediction(
        value, count, len(references), len(others) / len(references), largest / len(references)
    )


def find_never_predicted(
    predicted: Iterable[Iterable[str]], references: Sequence[Iterable[str]]
) -> list[NeverPredicted]:
    """The classes that true values hold and no predicted one does, the most frequent first.

    Args:
        predicted: the classes of each prediction: one, several, or none.
        references: those of each record.
    """
    named = set(chain.from_iterable(predicted))
    counts = Counter(label for labels in references for label in set(labels))
    absent = sorted((label for label in counts if label not in named), key=lambda x: (-counts[x], x))
    return [NeverPredicted(label, counts[label], counts[label] / len(references)) for label in absent]


def find_constant_output(outputs: Sequence[Sequence[Hashable]]) -> ConstantPrediction | None:
    """Whether every one of several outputs, as tokens, is empty, or is one token again and again; else None.

    A first token that differs from those after it does not count: it may lack the space before it. The value
    is () where the outputs are empty, (token,), or (tokens ...) where each repeats another one.
    """
    if len(outputs) < MIN_OUTPUTS:
        return None
    empty = not any(outputs)
    if not empty and any(len(output) < MIN_REPEATS or len(set(output[1:])) > 1 for output in outputs):
        return None
    value = tuple(dict.fromkeys(output[-1] for output in outputs if output))
    return ConstantPrediction(value, len(outputs), len(outputs), 1.0, 0.0)
