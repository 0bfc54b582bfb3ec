"""Accuracy: the share of records whose predicted value is the true one."""

from __future__ import annotations

from typing import Any

from pretune.metrics.base import Counts, Metric, Sums
from pretune.types import FloatArray


def count_correct(prediction: Any, reference: Any) -> Counts:
    """1 of 1 where the value is the true one, 0 of 1 where it is not."""
    return {"correct": float(prediction == reference), "n": 1.0}


def share_correct(sums: Sums) -> FloatArray:
    """The share of the records that are correct."""
    share: FloatArray = sums["correct"] / sums["n"]
    return share


ACCURACY = Metric("accuracy", {"en": "accuracy", "zh": "准确率"}, count_correct, share_correct)
EXACT_MATCH = Metric("exact_match", {"en": "exact match", "zh": "完全匹配率"}, count_correct, share_correct)
"""The same of values with several parts, of which every one must be right."""
