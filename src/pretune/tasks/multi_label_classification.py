"""Several labels a text: ``{"text", "labels": [...]}`` records, with ``text_pair`` where it is a pair.

A label is said where its probability reaches a threshold. A text longer than the model is read in windows,
whose probabilities are averaged geometrically (which is the mean of the logits); or it is cut.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pydantic

from pretune.baselines.base import Baseline
from pretune.data.sources.columns import Field
from pretune.errors import DataError
from pretune.metrics.accuracy import EXACT_MATCH
from pretune.metrics.base import Metric
from pretune.metrics.by_class import ClassReport, multi_label_report
from pretune.metrics.f1 import MICRO_F1, macro_f1_over
from pretune.metrics.label_sets import best_threshold, multi_hot
from pretune.tasks import base
from pretune.tasks._texts import (
    LONG_TEXT_ADVICE,
    TEXT_FIELDS,
    LongTextSettings,
    encode_windows,
    parse_text_pair,
    sort_labels,
)
from pretune.types import Feature, FloatArray, OutputSpec, Prediction, Record

PROBLEM_TYPE = "multi_label_classification"
SEPARATORS = ("|", ";")
"""Between the labels of one cell of a table; the first of them that the cell holds."""


class Options(LongTextSettings):
    """Settings of the task."""

    threshold: Annotated[float, pydantic.Field(gt=0, lt=1)] | Literal["validation"] = 0.5
    """Probability from which a label is predicted; ``validation``: the one of the best micro F1 there, which
    then stays with the model."""


class Task(base.Task):
    """Any number of labels for a text, or a pair of texts."""

    fields = (*TEXT_FIELDS, Field("labels", is_text=False, is_label=True))
    reference_field = "labels"
    prediction_fields = ("labels", "confidence", "probabilities")
    heads = ("classification",)
    objective = "multi_label_classification"
    options_type = Options
    labels_are_independent = True
    advice_for_long_texts = LONG_TEXT_ADVICE
    phrases: ClassVar = {
        "en": base.Phrases(
            "Fine-tuning a classifier",
            "Gives {text} any number of these labels: {labels}.",
            "Knows only these classes; learnt from {n} labelled records.",
            "A text to be labelled.",
            "Another text beside it.",
        ),
        "zh": base.Phrases(
            "微调分类器",
            "为{text}标注任意多个标签，标签范围：{labels}。",
            "只认识上述类别；训练用了 {n} 条标注数据。",
            "一段待标注的文本。",
            "与之配对的另一段文本。",
        ),
    }

    def parse(self, fields: Mapping[str, Any], *, labelled: bool = True) -> Mapping[str, Any]:
        """Labels as a list: a list, or one cell with ``|`` (else ``;``) between them.

        A cell in brackets is a list as JSON, or as Python, writes it: labels that hold a ``|`` or ``;`` stand
        so.
        """
        fields = parse_text_pair(fields)
        return {**fields, "labels": _parse_labels(fields.get("labels"))} if labelled else fields

    def reference(self, record: Record) -> tuple[str, ...]:
        """The labels of a labelled record, sorted."""
        return tuple(record.fields["labels"])

    def labels_of(self, value: Any) -> tuple[str, ...]:
        """The labels themselves."""
        return tuple(value)

    def fit(self, records: Sequence[Record]) -> OutputSpec:
        """The labels of labelled training records, sorted: numbers as numbers.

        Raises:
            DataError: no record has a label.
        """
        labels = sort_labels({label for record in records for label in self.reference(record)})
        if not labels:
            where = f"{records[0].path}: no record has a label" if records else "no training record"
            raise DataError(f"{where}; multi-label classification needs some that have")
        return OutputSpec(tuple(labels), problem_type=PROBLEM_TYPE)

    @classmethod
    def recognise(cls, head: str, config: Mapping[str, Any], labels: Sequence[str]) -> OutputSpec | None:
        """A sequence classifier whose config.json says so."""
        known = head in cls.heads and config.get("problem_type") == PROBLEM_TYPE
        return OutputSpec(tuple(labels), problem_type=PROBLEM_TYPE) if known else None

    @property
    def needs_tuning(self) -> bool:
        """Is the threshold chosen on the validation records?"""
        return bool(self.options.threshold == "validation")

    def encode(
        self, record: Record, index: int, reader: base.Reader, *, labelled: bool = True
    ) -> list[Feature]:
        """One feature, or one a window of a long text."""
        labels = {"labels": multi_hot([self.reference(record)], self.outputs.labels)[0]} if labelled else {}
        windows = encode_windows(record, self.texts(record), reader, self.options)
        return [Feature(index, window, sequences, labels) for window, sequences in enumerate(windows)]

    def decode(
        self, record: Record, features: Sequence[Feature], raw: Sequence[npt.NDArray[np.float32]]
    ) -> Prediction:
        """The prediction of its windows' logits, (1, C) each."""
        probabilities = np.exp(-np.logaddexp(0.0, -base.mean_logits(raw)))  # (C,)
        threshold = 0.5 if isinstance(self.options.threshold, str) else self.options.threshold
        return self._apply_threshold(features[0].record, probabilities, threshold)

    def _apply_threshold(self, record_index: int, probabilities: FloatArray, threshold: float) -> Prediction:
        """The labels at a threshold, surest first in ``alternatives``, where every label stands.

        The confidence is the probability of exactly this set, as if the labels were independent.
        """
        labels = self.outputs.labels
        is_predicted = probabilities >= threshold
        value = tuple(label for label, yes in zip(labels, is_predicted, strict=True) if yes)
        order = np.argsort(-probabilities, kind="stable")
        ranked = tuple((labels[i], float(probabilities[i])) for i in order)
        confidence = float(np.where(is_predicted, probabilities, 1 - probabilities).prod())
        return Prediction(record_index, value, confidence, ranked)

    def tune(
        self, predictions: Sequence[Prediction], records: Sequence[Record]
    ) -> tuple[Any, list[Prediction]]:
        """The threshold that validation records choose, and the predictions at it."""
        if not self.needs_tuning:
            return self.options, list(predictions)
        labels = self.outputs.labels
        probabilities = np.array([[dict(p.alternatives)[label] for label in labels] for p in predictions])
        threshold = best_threshold(probabilities, multi_hot([self.reference(r) for r in records], labels))
        tuned = [
            self._apply_threshold(p.record, row, threshold)
            for p, row in zip(predictions, probabilities, strict=True)
        ]
        return self.options.model_copy(update={"threshold": threshold}), tuned

    def probabilities(self, prediction: Prediction) -> dict[str, float]:
        """The probability of every label, the likeliest first."""
        return {str(label): share for label, share in prediction.alternatives}

    def row(self, record: Record, prediction: Prediction) -> dict[str, Any]:
        """The labels, and the probability of every label."""
        shares = self.probabilities(prediction)
        return {
            "labels": list(prediction.value),
            "confidence": round(prediction.confidence or 0.0, 6),
            "probabilities": {label: round(share, 6) for label, share in shares.items()},
        }

    def render(self, record: Record, value: Any) -> str:
        """The labels with commas between, none as a dash."""
        return ", ".join(map(str, value)) or "–"

    def metrics(self, language: str) -> tuple[Metric, ...]:
        """Micro F1, which decides, macro F1 over all labels, and the share of records wholly right."""
        return MICRO_F1, macro_f1_over(self.outputs.labels), EXACT_MATCH

    def by_class(self, predictions: Sequence[Prediction], records: Sequence[Record]) -> ClassReport:
        """Precision, recall and F1 of each label, and how often it is rightly and wrongly given."""
        labels = self.outputs.labels
        true = multi_hot([self.reference(r) for r in records], labels)
        return multi_label_report(multi_hot([p.value for p in predictions], labels), true, labels)

    def baselines(self, train: Sequence[Record], records: Sequence[Record]) -> Iterator[Baseline]:
        """Majority, and TF-IDF one label at a time."""
        from pretune.baselines.label_sets import (  # scikit-learn, which predicting does without
            majority,
            tfidf,
        )

        labels = sorted({label for record in train for label in self.reference(record)})
        held = multi_hot([self.reference(r) for r in train], labels)
        yield majority(held, labels, len(records))
        texts = [[self.texts(r) for r in some] for some in (train, records)]
        yield tfidf(texts[0], held, labels, texts[1], seed=0)

    @classmethod
    def sample(cls, rng: np.random.Generator) -> Mapping[str, Any]:
        """A text with a word of each of its labels."""
        words = {"farm": "barn", "sea": "ship", "war": "soldier"}
        labels = [label for label in words if rng.random() < 0.5]
        return {"text": " ".join(["the", *(words[label] for label in labels)]), "labels": labels}


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
