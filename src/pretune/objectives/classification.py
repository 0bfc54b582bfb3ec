"""Classification of a text or a pair: cross-entropy of the right class at the sentence place."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import pydantic
import torch
from torch.nn import functional as F

from pretune.config import Settings
from pretune.errors import ConfigError
from pretune.objectives._sentence import SequenceObjective
from pretune.types import (
    Batch,
    Example,
    Feature,
    FeatureStore,
    IntArray,
    LossTerms,
    Outputs,
    SpecialTokens,
    Traits,
)

HEAD = "classification"


class Options(Settings):
    """Settings of classification."""

    label_smoothing: float = pydantic.Field(default=0.0, ge=0, lt=1)
    class_weights: Literal["balanced"] | None = None
    """``balanced``: a class weighs in inverse proportion to its number of training features."""


class Objective(SequenceObjective):
    """One class a text; the head reads the position that the family's traits name.

    Args:
        store: the training features, which balanced class weights are counted on.
    """

    heads = (HEAD,)
    options_type = Options
    options: Options
    is_distillable = True
    sample_labels = ("a", "b")

    def __init__(
        self,
        traits: Traits,
        specials: SpecialTokens,
        options: Settings | None = None,
        store: FeatureStore | None = None,
    ) -> None:
        super().__init__(traits, specials, options, store)
        self.class_weights = balanced_class_weights(store) if self.options.class_weights else None

    @classmethod
    def sample(cls, record: int, tokens: IntArray, label: int) -> Feature:
        """Of the class ``label``."""
        return replace(super().sample(record, tokens, label), labels={"label": label})

    def build(self, feature: Feature, rng: np.random.Generator) -> Example:
        """Frame the text or the pair; the target is the class id in ``labels["label"]``, if there is one."""
        label = feature.labels.get("label")
        return self.build_example(feature, None if label is None else np.array([label], np.int64))

    def loss_terms(self, outputs: Outputs, batch: Batch) -> LossTerms:
        """Cross-entropy in nats, summed over the texts."""
        logits = outputs.logits[HEAD].float()
        total = F.cross_entropy(
            logits,
            batch.targets[HEAD],
            weight=None if self.class_weights is None else self.class_weights.to(logits.device),
            reduction="sum",
            label_smoothing=self.options.label_smoothing,
        )
        return {HEAD: (total, 1.0)}


def balanced_class_weights(store: FeatureStore | None) -> torch.Tensor:
    """(C,) weights n / (C * n_c), as scikit-learn's "balanced": over all features they average 1.

    The sum of weighted losses is divided by the number of texts, as without weights, and not by the sum of
    the weights in the batch, as stock ``CrossEntropyLoss`` does: so the cut into batches changes nothing.

    Raises:
        ConfigError: there are no training features to count.
    """
    if store is None:
        raise ConfigError("objective_options.class_weights: 'balanced' is counted on training records")
    counts = np.bincount([int(store[i].labels["label"]) for i in range(len(store))])
    weights = counts.sum() / (len(counts) * np.maximum(counts, 1))
    return torch.tensor(weights, dtype=torch.float32)
