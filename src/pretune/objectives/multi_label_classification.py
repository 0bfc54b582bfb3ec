"""Several labels a text or a pair: binary cross-entropy of each label at the sentence place."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
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
    """Settings of multi-label classification."""

    class_weights: Literal["balanced"] | None = None
    """``balanced``: where a label holds weighs as much, over all training features, as where it does not."""


class Objective(SequenceObjective):
    """A yes or no for each label; the head reads the position that the family's traits name.

    Args:
        store: the training features, which balanced class weights are counted on.
    """

    heads = (HEAD,)
    options_type = Options
    options: Options
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
        """The first label holds where ``label`` is 1, the second of every other record."""
        return replace(super().sample(record, tokens, label), labels={"labels": (label, record % 2)})

    def build(self, feature: Feature, rng: np.random.Generator) -> Example:
        """Frame the text or the pair; the target is ``labels["labels"]``, (C,) of 0 and 1, if it is there."""
        labels = feature.labels.get("labels")
        return self.build_example(feature, None if labels is None else np.array([labels], np.float64))

    def loss_terms(self, outputs: Outputs, batch: Batch) -> LossTerms:
        """Binary cross-entropy in nats: the mean over the labels, summed over the texts.

        Divided by the number of texts it is the mean over texts and labels: what stock ``transformers``
        (``BCEWithLogitsLoss``) reports for ``problem_type: multi_label_classification``.
        """
        logits, targets = outputs.logits[HEAD].float(), batch.targets[HEAD]  # (N, C), (N, C)
        weights = None if self.class_weights is None else self.class_weights.to(logits.device)
        total = F.binary_cross_entropy_with_logits(logits, targets, pos_weight=weights, reduction="sum")
        return {HEAD: (total / logits.shape[1], 1.0)}


def balanced_class_weights(store: FeatureStore | None) -> torch.Tensor:
    """(C,) weight of the texts that have a label: those without it, a text that has it.

    Raises:
        ConfigError: there are no training features to count.
    """
    if store is None:
        raise ConfigError("objective_options.class_weights: 'balanced' is counted on training records")
    held = np.sum([store[i].labels["labels"] for i in range(len(store))], axis=0)  # (C,)
    return torch.tensor((len(store) - held) / np.maximum(held, 1), dtype=torch.float32)
