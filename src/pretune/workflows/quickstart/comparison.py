"""What the quickstart found of one language: its classifiers from two starts, and the baselines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pretune.evaluation.mistakes import Mistake
from pretune.metrics.statistics import PairedDifference


@dataclass(frozen=True)
class ClassifierComparison:
    """One language's classifiers and baselines on its test set."""

    train: int
    test: int
    baseline_scores: Mapping[str, Any]
    accuracies: Mapping[str, list[dict[str, Any]]]
    intervals: Mapping[str, tuple[float, float]]
    difference: PairedDifference
    baseline_differences: Mapping[str, PairedDifference]
    mistakes: Sequence[Mistake]

    def mean_accuracy(self, start: str) -> float:
        """Accuracy averaged over seeds."""
        return float(np.mean([row["accuracy"] for row in self.accuracies[start]]))

    def summary(self) -> dict[str, Any]:
        """What summary.json holds of it."""
        return {
            "num_train": self.train,
            "num_test": self.test,
            **{name: score.value for name, score in self.baseline_scores.items()},
            "baseline_intervals": {
                name: list(score.interval) for name, score in self.baseline_scores.items()
            },
            **self.accuracies,
            "difference": {"mean": self.difference.mean, "interval": list(self.difference.interval)},
            "difference_to_tfidf": {
                "mean": self.baseline_differences["tfidf"].mean,
                "interval": list(self.baseline_differences["tfidf"].interval),
            },
        }
