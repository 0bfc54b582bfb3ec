"""Where a model goes wrong: its most confident mistakes, and its score by length of text."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pretune.errors import DataError
from pretune.metrics.base import Metric
from pretune.metrics.statistics import metric_value
from pretune.types import Prediction, Record


@dataclass(frozen=True, slots=True)
class Mistake:
    """A record that the model got wrong."""

    text: str
    predicted: Any
    reference: Any
    confidence: float | None
    record_index: int
    """Index into the records."""
    where: str
    """File and line."""


@dataclass(frozen=True, slots=True)
class Slice:
    """The items of one stretch of lengths, both ends included."""

    shortest: int
    longest: int
    n: int
    value: float


def confident_mistakes(
    records: Sequence[Record],
    predictions: Sequence[Prediction],
    references: Sequence[Any],
    *,
    k: int = 20,
    text_fields: Sequence[str] = ("text", "text_pair"),
    is_correct: Callable[[Any, Any], bool] = operator.eq,
) -> list[Mistake]:
    """List the wrong predictions, the surest first, at most ``k``.

    They show mislabelled records as often as weak spots of the model. Equal confidence keeps the order
    of the records; a prediction without one comes last.

    Args:
        records: what was predicted.
        predictions: in any order; ``Prediction.record`` is an index into ``records``.
        references: the true value of each record, aligned with ``records``.
        k: how many to return.
        text_fields: the fields that make up ``Mistake.text``, as far as a record has them.
        is_correct: whether a predicted value is right, of (value, reference).

    Raises:
        DataError: records and references do not pair up, or a prediction is of no known record.
    """
    if len(records) != len(references):
        raise DataError(f"{len(records)} records for {len(references)} references")
    unknown = [p.record for p in predictions if not 0 <= p.record < len(records)]
    if unknown:
        raise DataError(f"a prediction of record {unknown[0]}, but there are only {len(records)} records")
    wrong = [p for p in predictions if not is_correct(p.value, references[p.record])]
    wrong.sort(key=lambda p: (-math.inf if p.confidence is None else p.confidence, -p.record), reverse=True)
    return [
        Mistake(
            text="\n".join(
                str(records[p.record].fields[f]) for f in text_fields if f in records[p.record].fields
            ),
            predicted=p.value,
            reference=references[p.record],
            confidence=p.confidence,
            record_index=p.record,
            where=records[p.record].location,
        )
        for p in wrong[:k]
    ]


def value_by_length(
    metric: Metric, predictions: Sequence[Any], references: Sequence[Any], lengths: npt.ArrayLike
) -> list[Slice]:
    """The value of a metric in each quartile of length, shortest first.

    Items of equal length stay together, so there are fewer than four slices where many are equally long.

    Args:
        metric: what is measured.
        predictions: (n,)
        references: (n,)
        lengths: (n,) length of each, in whatever unit.

    Raises:
        DataError: the lengths differ, or there is no item.
    """
    sizes = np.asarray(lengths, dtype=np.int64)
    if sizes.ndim != 1 or not sizes.size or not len(predictions) == len(references) == len(sizes):
        raise DataError(
            f"slices need one length an item, got {sizes.shape} for {len(predictions)} predictions and "
            f"{len(references)} references"
        )
    edges = np.quantile(sizes, [0.25, 0.5, 0.75], method="inverted_cdf")
    quarter = np.searchsorted(edges, sizes, side="left")  # an item as long as the edge belongs below it
    slices = []
    for number in np.unique(quarter):
        inside = [int(i) for i in np.flatnonzero(quarter == number)]
        value = metric_value(metric, [predictions[i] for i in inside], [references[i] for i in inside])
        found = sizes[inside]
        slices.append(Slice(int(found.min()), int(found.max()), len(inside), value))
    return slices
