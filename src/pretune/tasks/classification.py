"""Classification: ``{"text", "label"}`` or ``{"text", "text_pair", "label"}`` records, one class each.

A text longer than the model is read in windows, whose class probabilities are averaged geometrically;
or it is cut, where the settings say so.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pretune.data.sources.columns import Field
from pretune.errors import DataError
from pretune.metrics.accuracy import accuracy
from pretune.metrics.by_class import ClassReport, class_report
from pretune.metrics.macro_f1 import macro_f1
from pretune.metrics.matthews import matthews
from pretune.tasks._texts import (
    TEXT_FIELDS,
    LongTextSettings,
    encode_windows,
    get_texts,
    parse_text_pair,
    sort_labels,
)
from pretune.text.tokenizer import Tokenizer
from pretune.types import Feature, Prediction, Record, Score, SpecialTokens

FIELDS = (*TEXT_FIELDS, Field("label", is_label=True))
PREDICTION_FIELD = "label"
PREDICTION_FIELDS = ("label", "confidence", "alternatives")
"""What :func:`answer` gives."""
OBJECTIVE = "classification"
HEAD = "classification"
PROBLEM_TYPE = "single_label_classification"
METRICS = (accuracy, macro_f1, matthews)
RECORD_METRIC = "accuracy"
BASELINES = "label_baselines"
DESCRIPTION = {
    "en": "Classifies {text} as one of: {labels}.",
    "zh": "判断{text}属于以下哪一类：{labels}。",
}

Options = LongTextSettings
"""Settings of the task."""

__all__ = [
    "BASELINES",
    "DESCRIPTION",
    "FIELDS",
    "HEAD",
    "METRICS",
    "OBJECTIVE",
    "PREDICTION_FIELD",
    "PREDICTION_FIELDS",
    "PROBLEM_TYPE",
    "RECORD_METRIC",
    "Options",
    "Task",
    "collect_labels",
    "get_texts",
    "parse",
    "predicted_labels",
    "probabilities",
    "record_labels",
    "reference",
    "to_row",
]  # fmt: skip


def parse(record: Record, *, labelled: bool = True) -> Record:
    """The record as the task reads it: white space around its label belongs to no class.

    Raises:
        DataError: the reason why it cannot be used.
    """
    fields = parse_text_pair(record.fields)
    if labelled:
        fields = {**fields, "label": reference(record).strip()}
    return Record(fields, record.path, record.line)


def reference(record: Record) -> str:
    """The class of a labelled record."""
    return str(record.fields["label"])


def record_labels(record: Record) -> tuple[str, ...]:
    """The labels that a record is an example of."""
    return (reference(record),)


def probabilities(prediction: Prediction) -> dict[str, float]:
    """The probability of every class, the likeliest first."""
    ranked = ((prediction.value, prediction.confidence or 0.0), *prediction.alternatives)
    return {str(value): share for value, share in ranked}


def predicted_labels(value: Any) -> tuple[str, ...]:
    """The labels of a predicted value."""
    return (str(value),)


def to_row(prediction: Prediction) -> dict[str, Any]:
    """A prediction as it is written to a file."""
    return {
        "label": prediction.value,
        "confidence": round(prediction.confidence or 0.0, 6),
        "alternatives": {str(value): round(share, 6) for value, share in prediction.alternatives},
    }


def collect_labels(records: Iterable[Record]) -> tuple[str, ...]:
    """The classes of labelled training records, sorted: numbers as numbers.

    Raises:
        DataError: only one class, of which nothing can be learnt.
    """
    where = {reference(r): r.path for r in records}
    labels = sort_labels(where)
    if len(labels) < 2:
        found = f"{where[labels[0]]}: only the label {labels[0]!r}" if labels else "no training record"
        raise DataError(f"{found}; classification needs records of at least two classes")
    return tuple(labels)


class Task:
    """Encodes records for one tokenizer and label set, and decodes what the network says of them."""

    needs_tuning = False
    """Do the validation records choose any of its settings?"""

    def __init__(
        self,
        labels: Sequence[str],
        specials: SpecialTokens,
        max_length: int,
        options: Options | None = None,
    ) -> None:
        self.labels, self.specials, self.max_length = tuple(labels), specials, max_length
        self.options = options or Options()
        self._index = {label: number for number, label in enumerate(self.labels)}

    def check_labels(self, records: Iterable[Record]) -> None:
        """Every label is one that training saw.

        Raises:
            DataError: names the record and its label.
        """
        for record in records:
            label = reference(record)
            if label not in self._index:
                raise DataError(
                    f"{record.location}: the label {label!r} is not among those of training "
                    f"({', '.join(map(repr, self.labels))}); add training records of it, or take it out here"
                )

    def encode(
        self, record: Record, record_index: int, tokenizer: Tokenizer, *, labelled: bool = True
    ) -> list[Feature]:
        """One feature, or one a window of a long text; ``record_index`` is the record's place in its list."""
        labels = {"label": self._index[reference(record)]} if labelled else {}
        cuts = encode_windows(record, tokenizer, self.specials, self.max_length, self.options)
        return [Feature(record_index, window, sequences, labels) for window, sequences in enumerate(cuts)]

    def decode(
        self, record: Record, features: Sequence[Feature], logits: Sequence[npt.NDArray[np.float32]]
    ) -> Prediction:
        """The prediction of a record of its windows' logits, (1, C) each."""
        logs = np.concatenate(logits).astype(np.float64)  # (windows, C)
        logs -= np.logaddexp.reduce(logs, axis=1, keepdims=True)
        mean = logs.mean(0)  # (C,)
        probabilities = np.exp(mean - np.logaddexp.reduce(mean))
        order = np.argsort(-probabilities, kind="stable")
        ranked = tuple((self.labels[i], float(probabilities[i])) for i in order)
        return Prediction(features[0].record, ranked[0][0], ranked[0][1], ranked[1:])

    def tune(
        self, predictions: Sequence[Prediction], records: Sequence[Record]
    ) -> tuple[Options, list[Prediction]]:
        """The settings that validation records choose, and the predictions under them: as they were."""
        return self.options, list(predictions)

    def score(
        self, predictions: Sequence[Prediction], records: Sequence[Record], *, language: str = "en"
    ) -> list[Score]:
        """Accuracy (which decides), macro F1 and Matthews correlation."""
        predicted = [str(p.value) for p in predictions]
        true = [reference(r) for r in records]
        return [metric(predicted, true, language=language) for metric in METRICS]

    def by_class(self, predictions: Sequence[Prediction], records: Sequence[Record]) -> ClassReport:
        """Precision, recall and F1 of each class, and the confusion matrix."""
        return class_report([str(p.value) for p in predictions], [reference(r) for r in records], self.labels)
