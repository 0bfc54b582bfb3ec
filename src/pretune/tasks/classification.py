"""Classification: ``{"text", "label"}`` or ``{"text", "text_pair", "label"}`` records, one class each.

A text longer than the model is read in windows, whose class probabilities are averaged geometrically;
or it is cut, where the settings say so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from pretune.baselines.base import Baseline
from pretune.data.sources.columns import Field
from pretune.errors import DataError
from pretune.metrics.accuracy import ACCURACY
from pretune.metrics.base import Metric
from pretune.metrics.by_class import ClassReport, class_report
from pretune.metrics.f1 import MACRO_F1
from pretune.metrics.matthews import MATTHEWS
from pretune.tasks import base
from pretune.tasks._texts import (
    LONG_TEXT_ADVICE,
    TEXT_FIELDS,
    LongTextSettings,
    encode_windows,
    parse_text_pair,
    sort_labels,
)
from pretune.types import Feature, OutputSpec, Prediction, Record

PROBLEM_TYPE = "single_label_classification"


class Task(base.Task):
    """One of several classes for a text, or a pair of texts."""

    fields = (*TEXT_FIELDS, Field("label", is_label=True))
    reference_field = "label"
    prediction_fields = ("label", "confidence", "alternatives")
    heads = ("classification",)
    objective = "classification"
    options_type = LongTextSettings
    advice_for_long_texts = LONG_TEXT_ADVICE
    phrases: ClassVar = {
        "en": base.Phrases(
            "Fine-tuning a classifier",
            "Classifies {text} as one of: {labels}.",
            "Knows only these classes; learnt from {n} labelled records.",
            "A text to be labelled.",
            "Another text beside it.",
        ),
        "zh": base.Phrases(
            "微调分类器",
            "判断{text}属于以下哪一类：{labels}。",
            "只认识上述类别；训练用了 {n} 条标注数据。",
            "一段待标注的文本。",
            "与之配对的另一段文本。",
        ),
    }

    def parse(self, fields: Mapping[str, Any], *, labelled: bool = True) -> Mapping[str, Any]:
        """White space around a label belongs to no class."""
        fields = parse_text_pair(fields)
        return {**fields, "label": str(fields["label"]).strip()} if labelled else fields

    def reference(self, record: Record) -> str:
        """The class of a labelled record."""
        return str(record.fields["label"])

    def labels_of(self, value: Any) -> tuple[str, ...]:
        """The class itself."""
        return (str(value),)

    def fit(self, records: Sequence[Record]) -> OutputSpec:
        """The classes of labelled training records, sorted: numbers as numbers.

        Raises:
            DataError: only one class, of which nothing can be learnt.
        """
        where = {self.reference(r): r.path for r in records}
        labels = sort_labels(where)
        if len(labels) < 2:
            found = f"{where[labels[0]]}: only the label {labels[0]!r}" if labels else "no training record"
            raise DataError(f"{found}; classification needs records of at least two classes")
        return OutputSpec(tuple(labels), problem_type=PROBLEM_TYPE)

    @classmethod
    def recognise(cls, head: str, config: Mapping[str, Any], labels: Sequence[str]) -> OutputSpec | None:
        """A sequence classifier; stock takes one label alone for a regression."""
        problem_type = config.get("problem_type") or ("regression" if len(labels) == 1 else PROBLEM_TYPE)
        known = head in cls.heads and problem_type == PROBLEM_TYPE
        return OutputSpec(tuple(labels), problem_type=PROBLEM_TYPE) if known else None

    def encode(
        self, record: Record, index: int, reader: base.Reader, *, labelled: bool = True
    ) -> list[Feature]:
        """One feature, or one a window of a long text."""
        labels = {"label": self.outputs.labels.index(self.reference(record))} if labelled else {}
        windows = encode_windows(record, self.texts(record), reader, self.options)
        return [Feature(index, window, sequences, labels) for window, sequences in enumerate(windows)]

    def decode(
        self, record: Record, features: Sequence[Feature], raw: Sequence[npt.NDArray[np.float32]]
    ) -> Prediction:
        """The prediction of its windows' logits, (1, C) each."""
        logs = np.concatenate(raw).astype(np.float64)  # (windows, C)
        logs -= np.logaddexp.reduce(logs, axis=1, keepdims=True)
        mean = logs.mean(0)  # (C,)
        probabilities = np.exp(mean - np.logaddexp.reduce(mean))
        order = np.argsort(-probabilities, kind="stable")
        ranked = tuple((self.outputs.labels[i], float(probabilities[i])) for i in order)
        return Prediction(features[0].record, ranked[0][0], ranked[0][1], ranked[1:])

    def probabilities(self, prediction: Prediction) -> dict[str, float]:
        """The probability of every class, the likeliest first."""
        ranked = ((prediction.value, prediction.confidence or 0.0), *prediction.alternatives)
        return {str(value): share for value, share in ranked}

    def row(self, record: Record, prediction: Prediction) -> dict[str, Any]:
        """The class, and the probabilities of the others."""
        return {
            "label": prediction.value,
            "confidence": round(prediction.confidence or 0.0, 6),
            "alternatives": {str(value): round(share, 6) for value, share in prediction.alternatives},
        }

    def metrics(self, language: str) -> tuple[Metric, ...]:
        """Accuracy, which decides, macro F1 and Matthews correlation."""
        labels = {"labels": len(self.outputs.labels)}
        return ACCURACY, replace(MACRO_F1, settings=labels), replace(MATTHEWS, settings=labels)

    def by_class(self, predictions: Sequence[Prediction], records: Sequence[Record]) -> ClassReport:
        """Precision, recall and F1 of each class, and the confusion matrix."""
        predicted, true = [str(p.value) for p in predictions], [self.reference(r) for r in records]
        return class_report(predicted, true, self.outputs.labels)

    def baselines(self, train: Sequence[Record], records: Sequence[Record]) -> Iterator[Baseline]:
        """Majority and TF-IDF."""
        from pretune.baselines.tfidf import majority, tfidf  # scikit-learn, which predicting does without

        labels, texts = [self.reference(r) for r in train], [self.texts(r) for r in records]
        yield majority(labels, texts)
        yield tfidf([self.texts(r) for r in train], labels, texts, seed=0)

    @classmethod
    def sample(cls, rng: np.random.Generator) -> Mapping[str, Any]:
        """A text whose words are those of its class."""
        label = str(rng.choice(["farm", "sea"]))
        words = {"farm": ("barn", "meadow", "plough"), "sea": ("ship", "harbour", "sail")}[label]
        return {"text": " ".join(rng.choice(words, 4)), "label": label}
