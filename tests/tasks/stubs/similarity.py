"""A stub: how alike two texts are, by the vectors of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from scipy.stats import spearmanr

from pretune.data.sources.columns import Field
from pretune.metrics.base import Metric
from pretune.tasks import base
from pretune.types import Feature, Prediction, Record

SPEARMAN = Metric("spearman", {"en": "Spearman"}, over=lambda p, r: float(spearmanr(p, r).statistic))


class Task(base.Task):
    """The cosine of two texts' vectors."""

    fields = (Field("text"), Field("text_pair"), Field("score", is_text=False, is_label=True))
    reference_field = "score"
    prediction_fields = ("score",)
    heads = ("masked_lm",)
    objective = "masked_lm"
    phrases: ClassVar = {}
    predicts = "vector"

    def encode(
        self, record: Record, index: int, reader: base.Reader, *, labelled: bool = True
    ) -> list[Feature]:
        ids = [reader.tokenizer.encode(text).ids for text in self.texts(record)]
        return [Feature(index, number, (one,)) for number, one in enumerate(ids)]

    def decode(self, record: Record, features: Sequence[Feature], raw: Sequence[Any]) -> Prediction:
        a, b = raw
        return Prediction(features[0].record, float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)))

    def metrics(self, language: str) -> tuple[Metric, ...]:
        return (SPEARMAN,)

    @classmethod
    def sample(cls, rng: np.random.Generator) -> Mapping[str, Any]:
        words = ["king", "queen", "castle", "dog", "house"]
        first, kept = rng.permutation(words), int(rng.integers(6))
        second = [*first[:kept], *["shepherd"] * (5 - kept)]
        return {"text": " ".join(first), "text_pair": " ".join(second), "score": kept / 5}
