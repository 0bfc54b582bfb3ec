"""A stub: which of two answers a language model prefers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from pretune.data.sources.columns import Field
from pretune.metrics.accuracy import ACCURACY
from pretune.metrics.base import Metric
from pretune.tasks import base
from pretune.types import Feature, Prediction, Record


class Task(base.Task):
    """The chosen answer should be likelier than the rejected one."""

    fields = (Field("prompt"), Field("chosen"), Field("rejected"))
    reference_field = "preferred"
    prediction_fields = ("preferred", "confidence")
    heads = ("causal_lm",)
    objective = "causal_lm"
    phrases: ClassVar = {}
    predicts = "nll"

    def reference(self, record: Record) -> str:
        return "chosen"

    def encode(
        self, record: Record, index: int, reader: base.Reader, *, labelled: bool = True
    ) -> list[Feature]:
        ids = {
            name: reader.tokenizer.encode(record.fields[name]).ids
            for name in ("prompt", "chosen", "rejected")
        }
        return [
            Feature(index, number, (ids["prompt"], ids[name]), decoding={"name": name})
            for number, name in enumerate(("chosen", "rejected"))
        ]

    def decode(self, record: Record, features: Sequence[Feature], raw: Sequence[Any]) -> Prediction:
        totals = {
            feature.decoding["name"]: float(nll.sum()) for feature, nll in zip(features, raw, strict=True)
        }
        margin = totals["rejected"] - totals["chosen"]
        return Prediction(
            features[0].record, "chosen" if margin > 0 else "rejected", 1 / (1 + float(np.exp(-abs(margin))))
        )

    def metrics(self, language: str) -> tuple[Metric, ...]:
        return (ACCURACY,)

    @classmethod
    def sample(cls, rng: np.random.Generator) -> Mapping[str, Any]:
        return {"prompt": "the king saw", "chosen": "a castle", "rejected": "##ed ##ed house , dog"}
