"""F1 of labels: of all decisions together (micro), and the mean over labels (macro).

A record has one label or a tuple of labels. Values are those of scikit-learn with ``zero_division=0``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np

from pretune.metrics.base import Counts, Metric, Sums
from pretune.types import FloatArray


def count_sets(prediction: Iterable[Any], reference: Iterable[Any]) -> Counts:
    """Hits, predicted and true members of two sets: of labels, of spans."""
    predicted, true = set(prediction), set(reference)
    return {"hits": len(predicted & true), "predicted": len(predicted), "true": len(true)}


def f1(sums: Sums) -> FloatArray:
    """2 hits / (predicted + true); 0 where there is neither."""
    score: FloatArray = 2 * sums["hits"] / np.maximum(sums["predicted"] + sums["true"], 1)
    return score


def count_labels(prediction: Any, reference: Any) -> Counts:
    """Hits, predicted and true, 0 or 1 of each label."""
    predicted, true = _labels(prediction), _labels(reference)
    return {
        **{("hits", label): 1.0 for label in predicted & true},
        **{("predicted", label): 1.0 for label in predicted},
        **{("true", label): 1.0 for label in true},
    }


def mean_f1(sums: Sums, *, labels: Sequence[str] | None = None) -> FloatArray:
    """The mean F1 of labels: of all ``labels``, or of those that occur in predictions or references.

    Where no labels are given, a resample in which a label does not occur averages over the others. With
    hundreds of rare labels resampling pulls the value down, and the percentile interval may lie below it.
    """
    known = {name[1] for name in sums if isinstance(name, tuple)} if labels is None else set(labels)
    size = len(next(iter(sums.values()))) if sums else 1
    total, present = np.zeros(size), np.zeros(size)
    for label in sorted(known, key=repr):
        nothing = np.zeros(size)
        marks = sums.get(("predicted", label), nothing) + sums.get(("true", label), nothing)
        total += 2 * sums.get(("hits", label), nothing) / np.maximum(marks, 1)
        present += marks > 0 if labels is None else 1
    mean: FloatArray = total / np.maximum(present, 1)
    return mean


def _labels(value: Any) -> set[Any]:
    return set(value) if isinstance(value, tuple | list | set | frozenset) else {value}


MACRO_F1 = Metric("macro_f1", {"en": "macro F1", "zh": "宏平均 F1"}, count_labels, mean_f1)
"""Over the labels that occur in predictions or references."""
MICRO_F1 = Metric("micro_f1", {"en": "micro F1", "zh": "微平均 F1"}, count_sets, f1)
"""Of tuples of labels."""


def macro_f1_over(labels: Sequence[str]) -> Metric:
    """Macro F1 over all ``labels``; one that is neither predicted nor true counts 0."""
    value = partial(mean_f1, labels=tuple(labels))
    return Metric(MACRO_F1.name, MACRO_F1.words, count_labels, value, settings={"labels": len(labels)})
