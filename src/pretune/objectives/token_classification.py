"""Token classification: cross-entropy of the right class at the first token of each word."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pydantic
from torch.nn import functional as F

from pretune.config import Settings
from pretune.objectives._tokens import TokenObjective
from pretune.types import Batch, Example, Feature, IntArray, LossTerms, Outputs

HEAD = "token_classification"


class Options(Settings):
    """Settings of token classification."""

    label_smoothing: float = pydantic.Field(default=0.0, ge=0, lt=1)


class Objective(TokenObjective):
    """A class a word, read at its first token: where bit 1 of the feature's ``word_starts`` is set."""

    heads = (HEAD,)
    options_type = Options
    options: Options
    is_distillable = True
    sample_labels = ("a", "b")

    @classmethod
    def sample(cls, record: int, tokens: IntArray, label: int) -> Feature:
        """Of which each token is of the class ``label``."""
        feature = super().sample(record, tokens, label)
        return replace(feature, labels={"tags": np.full(len(tokens), label, np.int64)})

    def build(self, feature: Feature, rng: np.random.Generator) -> Example:
        """The targets are the class ids in ``labels["tags"]``, (n,), one a word start, if they are there."""
        assert feature.word_starts is not None, "who encodes for this objective says where words start"
        positions = np.flatnonzero(feature.word_starts[0] & 1) + len(self.specials.single[0])
        tags = feature.labels.get("tags")
        return self.build_example(feature, positions, None if tags is None else np.asarray(tags, np.int64))

    def loss_terms(self, outputs: Outputs, batch: Batch) -> LossTerms:
        """Cross-entropy in nats, summed over the words."""
        logits, smoothing = outputs.logits[HEAD].float(), self.options.label_smoothing  # (N, C)
        total = F.cross_entropy(logits, batch.targets[HEAD], reduction="sum", label_smoothing=smoothing)
        return {HEAD: (total, 1.0)}
