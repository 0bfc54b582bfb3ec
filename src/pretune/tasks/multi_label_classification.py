"""Several labels a text: ``{"text", "labels": [...]}`` records, with ``text_pair`` where it is a pair.

A label is said where its probability reaches a threshold. A text longer than the model is read in windows,
whose probabilities are averaged geometrically (which is the mean of the logits); or it is cut.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import pydantic

from pretune.config import Settings
from pretune.data.sources.columns import Field
from pretune.errors import DataError
from pretune.metrics.by_class import ClassReport, multi_label_report
from pretune.metrics.label_sets import best_threshold, exact_match, macro_f1, micro_f1, multi_hot
from pretune.tasks._texts import (
    TEXT_FIELDS,
    LongTextSettings,
    encode_windows,
    get_texts,
    parse_text_pair,
    sort_labels,
)
from pretune.text.tokenizer import Tokenizer
from pretune.types import Feature, FloatArray, Prediction, Record, Score, SpecialTokens

FIELDS = (*TEXT_FIELDS, Field("labels", is_text=False, is_label=True))
PREDICTION_FIELD = "labels"
PREDICTION_FIELDS = ("labels", "confidence", "probabilities")
"""What :func:`answer` gives."""
OBJECTIVE = "multi_label_classification"
HEAD = "classification"
PROBLEM_TYPE = "multi_label_classification"
METRICS = (micro_f1, macro_f1, exact_match)
RECORD_METRIC = "exact_match"
BASELINES = "label_set_baselines"
DESCRIPTION = {
    "en": "Gives {text} any number of these labels: {labels}.",
    "zh": "为{text}标注任意多个标签，标签范围：{labels}。",
}
SEPARATORS = ("|", ";")
"""Between the labels of one cell of a table; the first of them that the cell holds."""

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


class Options(Settings):
    """Settings of the task."""

    long_texts: Literal["windows", "truncate", "longest_first"] = "windows"
    """As in classification."""
    overlap: int = pydantic.Field(default=16, ge=0)
    """Tokens that neighbouring windows share."""
    threshold: Annotated[float, pydantic.Field(gt=0, lt=1)] | Literal["validation"] = 0.5
    """Probability from which a label is said; ``validation``: the one of the best micro F1 there, which
    then stays with the model."""


def parse(record: Record, *, labelled: bool = True) -> Record:
    """The record with its labels as a list: a list, or one cell with ``|`` (else ``;``) between them.

    A cell in brackets is a list as JSON, or as Python, writes it: labels that hold a ``|`` or ``;`` stand so.

    Raises:
        DataError: the reason why it cannot be used.
    """
    fields = parse_text_pair(record.fields)
    if labelled:
        fields = {**fields, "labels": _parse_labels(fields.get("labels"))}
    return Record(fields, record.path, record.line)


def _parse_labels(value: Any) -> list[str]:
    if value is None:
        raise DataError("'labels' is missing: give a list, which may be empty")
    if isinstance(value, str) and (parsed := _parse_list(value)) is not None:
        value = parsed
    elif isinstance(value, str):
        separator = next((s for s in SEPARATORS if s in value), SEPARATORS[0])
        value = [label for label in value.split(separator) if label.strip()]
    if not isinstance(value, list | tuple):
        raise DataError(f"'labels' is {type(value).__name__}, not a list")
    for label in value:
        if not isinstance(label, str | int | float) or not str(label).strip():
            raise DataError(f"'labels' holds {label!r}, which is no label")
    return sorted({label.strip() if isinstance(label, str) else json.dumps(label) for label in value})


def _parse_list(cell: str) -> list[Any] | None:
    """The list that a cell of a table holds; None: it is no list."""
    if not (cell.strip().startswith("[") and cell.strip().endswith("]")):
        return None
    for read in (json.loads, ast.literal_eval):
        try:
            value = read(cell.strip())
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        return value if isinstance(value, list) else None
    return None


def reference(record: Record) -> tuple[str, ...]:
    """The labels of a labelled record, sorted."""
    return tuple(record.fields["labels"])


def record_labels(record: Record) -> tuple[str, ...]:
    """The labels that a record is an example of."""
    return reference(record)


def probabilities(prediction: Prediction) -> dict[str, float]:
    """The probability of every label, the likeliest first."""
    return {str(label): share for label, share in prediction.alternatives}


def predicted_labels(value: Any) -> tuple[str, ...]:
    """The labels of a predicted value."""
    return tuple(value)


def to_row(prediction: Prediction) -> dict[str, Any]:
    """A prediction as it is written to a file: the labels, and the probability of every label."""
    return {
        "labels": list(prediction.value),
        "confidence": round(prediction.confidence or 0.0, 6),
        "probabilities": {label: round(share, 6) for label, share in probabilities(prediction).items()},
    }


def collect_labels(records: Iterable[Record]) -> tuple[str, ...]:
    """The labels of labelled training records, sorted: numbers as numbers.

    Raises:
        DataError: no record has a label.
    """
    found = list(records)
    labels = sort_labels({label for record in found for label in reference(record)})
    if not labels:
        where = f"{found[0].path}: no record has a label" if found else "no training record"
        raise DataError(f"{where}; multi-label classification needs some that have")
    return tuple(labels)


class Task:
    """Encodes records for one tokenizer and label set, and decodes what the network says of them."""

    def __init__(
        self,
        labels: Sequence[str],
        specials: SpecialTokens,
        max_length: int,
        options: Options | None = None,
    ) -> None:
        self.labels, self.specials, self.max_length = tuple(labels), specials, max_length
        self.options = options or Options()
        self._long_text_settings = LongTextSettings(
            long_texts=self.options.long_texts, overlap=self.options.overlap
        )

    @property
    def needs_tuning(self) -> bool:
        """Do the validation records choose any of its settings?"""
        return self.options.threshold == "validation"

    def check_labels(self, records: Iterable[Record]) -> None:
        """Every label is one that training saw.

        Raises:
            DataError: names the record and its label.
        """
        for record in records:
            unknown = [label for label in reference(record) if label not in self.labels]
            if unknown:
                raise DataError(
                    f"{record.location}: the label {unknown[0]!r} is not among those of training "
                    f"({', '.join(map(repr, self.labels))}); add training records of it, or take it out here"
                )

    def encode(
        self, record: Record, record_index: int, tokenizer: Tokenizer, *, labelled: bool = True
    ) -> list[Feature]:
        """One feature, or one a window of a long text; ``record_index`` is the record's place in its list."""
        labels = {"labels": multi_hot([reference(record)], self.labels)[0]} if labelled else {}
        cuts = encode_windows(record, tokenizer, self.specials, self.max_length, self._long_text_settings)
        return [Feature(record_index, window, sequences, labels) for window, sequences in enumerate(cuts)]

    def decode(
        self, record: Record, features: Sequence[Feature], logits: Sequence[npt.NDArray[np.float32]]
    ) -> Prediction:
        """The prediction of a record of its windows' logits, (1, C) each."""
        mean = np.concatenate(logits).astype(np.float64).mean(0)  # (C,)
        probabilities = np.exp(-np.logaddexp(0.0, -mean))
        threshold = 0.5 if isinstance(self.options.threshold, str) else self.options.threshold
        return self._apply_threshold(features[0].record, probabilities, threshold)

    def _apply_threshold(self, record_index: int, probabilities: FloatArray, threshold: float) -> Prediction:
        """The labels at a threshold, surest first in ``alternatives``, where every label stands.

        The confidence is the probability of exactly this set, as if the labels were independent.
        """
        is_predicted = probabilities >= threshold
        value = tuple(label for label, yes in zip(self.labels, is_predicted, strict=True) if yes)
        order = np.argsort(-probabilities, kind="stable")
        ranked = tuple((self.labels[i], float(probabilities[i])) for i in order)
        return Prediction(
            record_index,
            value,
            float(np.where(is_predicted, probabilities, 1 - probabilities).prod()),
            ranked,
        )

    def tune(
        self, predictions: Sequence[Prediction], records: Sequence[Record]
    ) -> tuple[Options, list[Prediction]]:
        """The settings that validation records choose, and the predictions under them."""
        if not self.needs_tuning:
            return self.options, list(predictions)
        label_probabilities = np.array(
            [[dict(p.alternatives)[label] for label in self.labels] for p in predictions]
        )
        threshold = best_threshold(
            label_probabilities, multi_hot([reference(r) for r in records], self.labels)
        )
        new_predictions = [
            self._apply_threshold(p.record, row, threshold)
            for p, row in zip(predictions, label_probabilities, strict=True)
        ]
        return self.options.model_copy(update={"threshold": threshold}), new_predictions

    def score(
        self, predictions: Sequence[Prediction], records: Sequence[Record], *, language: str = "en"
    ) -> list[Score]:
        """Micro F1 (which decides), macro F1 over all labels, and the share of records wholly right."""
        predicted = multi_hot([p.value for p in predictions], self.labels)
        true = multi_hot([reference(r) for r in records], self.labels)
        return [metric(predicted, true, language=language) for metric in METRICS]

    def by_class(self, predictions: Sequence[Prediction], records: Sequence[Record]) -> ClassReport:
        """Precision, recall and F1 of each label, and how often it is rightly and wrongly given."""
        predicted = multi_hot([p.value for p in predictions], self.labels)
        return multi_label_report(
            predicted, multi_hot([reference(r) for r in records], self.labels), self.labels
        )
