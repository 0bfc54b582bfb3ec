"""A stub: the choice whose tokens a language model finds the likeliest."""

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
    """One of several continuations of a question."""

    fields = (
        Field("question"),
        Field("choices", is_text=False),
        Field("answer", is_text=False, is_label=True),
    )
    reference_field = "answer"
    prediction_fields = ("answer", "confidence")
    heads = ("causal_lm",)
    objective = "causal_lm"
    phrases: ClassVar = {}
    predicts = "nll"

    def encode(
        self, record: Record, index: int, reader: base.Reader, *, labelled: bool = True
    ) -> list[Feature]:
        question = reader.tokenizer.encode(record.fields["question"]).ids
        choices = [reader.tokenizer.encode(choice).ids for choice in record.fields["choices"]]
        return [Feature(index, number, (question, ids)) for number, ids in enumerate(choices)]

    def decode(self, record: Record, features: Sequence[Feature], raw: Sequence[Any]) -> Prediction:
        logs = -np.array([nll.mean() for nll in raw])
        shares = np.exp(logs - np.logaddexp.reduce(logs))
        return Prediction(features[0].record, int(shares.argmax()), float(shares.max()))

    def metrics(self, language: str) -> tuple[Metric, ...]:
        return (ACCURACY,)

    @classmethod
    def sample(cls, rng: np.random.Generator) -> Mapping[str, Any]:
        return {"question": "the king saw", "choices": ["a castle", "the dog , and the queen"], "answer": 0}
