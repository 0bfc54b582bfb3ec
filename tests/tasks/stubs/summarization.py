"""A stub: a summary that an encoder-decoder writes of a document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from pretune.data.sources.columns import Field
from pretune.metrics.base import Counts, Metric
from pretune.metrics.f1 import f1
from pretune.tasks import base
from pretune.types import Feature, Prediction, Record


def count_words(prediction: str, reference: str) -> Counts:
    """Words that both have, and those of each."""
    a, b = set(prediction.split()), set(reference.split())
    return {"hits": len(a & b), "predicted": len(a), "true": len(b)}


class Task(base.Task):
    """A text from a text."""

    fields = (Field("document"), Field("summary", is_label=True))
    reference_field = "summary"
    prediction_fields = ("summary",)
    heads = ("causal_lm",)
    objective = "sequence_to_sequence"
    phrases: ClassVar = {}
    predicts = "text"

    def encode(
        self, record: Record, index: int, reader: base.Reader, *, labelled: bool = True
    ) -> list[Feature]:
        texts = [record.fields["document"], *([record.fields["summary"]] if labelled else [])]
        ids = tuple(reader.tokenizer.encode(text).ids[: reader.max_length - 2] for text in texts)
        return [Feature(index, 0, ids)]

    def decode(self, record: Record, features: Sequence[Feature], raw: Sequence[Any]) -> Prediction:
        return Prediction(features[0].record, str(raw[0]))

    def metrics(self, language: str) -> tuple[Metric, ...]:
        return (Metric("words_f1", {"en": "F1 of words"}, count_words, f1),)

    @classmethod
    def sample(cls, rng: np.random.Generator) -> Mapping[str, Any]:
        return {"document": "the king saw a castle and the queen was old .", "summary": "the queen was old"}
