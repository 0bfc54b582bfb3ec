"""What every task is: records in, features for the network; what the network says, predictions out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from pretune.baselines.base import Baseline
from pretune.config import Settings
from pretune.data.sources.columns import Field
from pretune.errors import DataError
from pretune.metrics.base import Metric
from pretune.metrics.by_class import ClassReport
from pretune.metrics.statistics import score
from pretune.text.segmentation import is_mostly_chinese
from pretune.text.tokenizer import Tokenizer
from pretune.types import Feature, FloatArray, OutputSpec, Prediction, Record, Score

Predicts = Literal["logits", "nll", "text", "vector"]
"""How a model answers. ``logits``: (n, C) of the task's head. ``nll``: (n,) nats of each token of the
feature's last sequence after those before it. ``text``: what it generates after the feature's sequence.
``vector``: (D,) the mean of the last layer over the feature's tokens."""
LANGUAGE_SAMPLE = 200
"""Records by which the language of data is told."""


class NoOptions(Settings):
    """A task without settings of its own."""


@dataclass(frozen=True)
class Phrases:
    """What a task's pages and cards say, in one language."""

    title: str
    """Of the page of a fine-tuning run."""
    description: str
    """A sentence of the card, with ``{text}`` and ``{labels}`` in it where it has them."""
    limits: str
    """What it cannot do, with ``{n}``, the number of training records."""
    example: str = "Ada Lovelace lived in London."
    """A text that the model can be tried on."""
    example_pair: str = ""
    """The second text, of a task that reads pairs."""


@dataclass(frozen=True)
class Reader:
    """Who reads the features: a tokenizer, and how many tokens the model takes at once."""

    tokenizer: Tokenizer
    max_length: int = field(default=512)


class Task:
    """The base of all tasks; a file of this folder holds one subclass, under this name.

    The same object serves fine-tuning, evaluation and prediction. It knows no architecture; its network has
    one of ``heads`` and is trained by ``objective``.

    Args:
        outputs: what `fit` said of the training records, or `recognise` of a published folder.
        options: an ``options_type``; None: its defaults.
    """

    fields: ClassVar[tuple[Field, ...]]
    """The fields of a record."""
    reference_field: ClassVar[str]
    """The field that holds the true answer, and that answers are written to."""
    prediction_fields: ClassVar[tuple[str, ...]]
    """What `row` gives, the columns of a table of answers."""
    heads: ClassVar[tuple[str, ...]]
    """Heads that it can have; the first that the family has is taken."""
    objective: ClassVar[str]
    options_type: ClassVar[type[Settings]] = NoOptions
    phrases: ClassVar[Mapping[str, Phrases]]
    """Its words for pages and cards, by language: en and zh."""
    predicts: ClassVar[Predicts] = "logits"
    labels_are_independent: ClassVar[bool] = False
    """Has every label a probability of its own?"""
    compare_with: ClassVar[tuple[str, ...]] = ()
    """``start``: evaluation also scores the checkpoint that fine-tuning started from."""
    advice_for_long_texts: ClassVar[str] = ""
    """What a message about texts that are cut goes on with: the option by which all of them is read."""

    options: Any

    def __init__(self, outputs: OutputSpec | None = None, options: Settings | None = None) -> None:
        self.outputs = outputs or OutputSpec()
        self.options = self.options_type() if options is None else options

    # -- records ------------------------------------------------------------------------------------

    def parse(self, fields: Mapping[str, Any], *, labelled: bool = True) -> Mapping[str, Any]:
        """The fields of a record as the task reads them, on every way in.

        Raises:
            DataError: the reason why it cannot be used.
        """
        return fields

    def parse_record(self, record: Record, *, labelled: bool = True) -> Record:
        """A record with its fields parsed.

        Raises:
            DataError: the reason why it cannot be used.
        """
        return Record(self.parse(record.fields, labelled=labelled), record.path, record.line)

    @classmethod
    def echoed_fields(cls) -> tuple[str, ...]:
        """The fields that are repeated beside an answer, where a record has them."""
        return ("id", *(f.name for f in cls.fields if f.is_echoed and not f.is_label and f.name != "id"))

    def check_record(self, record: Record) -> Record:
        """A record without a reference, given in Python or typed, checked and parsed as one of a file.

        Raises:
            DataError: the reason why it cannot be used.
        """
        for one in self.fields:
            value = record.fields.get(one.name)
            if one.is_label or (value is None and not one.required):
                continue
            if value is None:
                raise DataError(f"{one.name!r} is missing")
            if one.is_text and not isinstance(value, str | int | float):
                raise DataError(f"{one.name!r} is {type(value).__name__}, not text")
        return self.parse_record(record, labelled=False)

    def from_texts(self, texts: Sequence[str]) -> Mapping[str, Any]:
        """The fields of what is typed on a command line: a text for each field of text.

        Raises:
            DataError: more texts than it has such fields.
        """
        names = [field.name for field in self.fields if not field.is_label and field.name != "id"]
        if len(texts) > len(names):
            raise DataError(f"{len(texts)} texts, and the fields are {', '.join(names)}")
        return dict(zip(names, texts, strict=False))

    def texts(self, record: Record) -> tuple[str, ...]:
        """The texts of a record: what is shown, measured, and looked up in other data.

        Records with the same first text stay together when validation records are held out.
        """
        values = (record.fields.get(field.name) for field in self.fields if not field.is_label)
        return tuple(str(value) for value in values if value is not None)

    def reference(self, record: Record) -> Any:
        """The true answer of a labelled record."""
        return record.fields[self.reference_field]

    def as_value(self, reference: Any) -> Any:
        """A reference as the predicted value that would be right."""
        return reference

    def is_correct(self, value: Any, reference: Any) -> bool:
        """Is a predicted value wholly right? Mistakes are those that are not."""
        return bool(value == reference)

    def labels_of(self, value: Any) -> tuple[str, ...]:
        """The labels that occur in a reference or a predicted value, of a task that has labels."""
        return ()

    def fit(self, records: Sequence[Record]) -> OutputSpec:
        """What training records decide: the number of outputs and what they mean.

        Raises:
            DataError: nothing can be learnt from the records.
        """
        return OutputSpec()

    @classmethod
    def recognise(cls, head: str, config: Mapping[str, Any], labels: Sequence[str]) -> OutputSpec | None:
        """The outputs of a published folder of this task, by its head, config.json and labels; None: it is
        of another. A plain language model is nobody's.
        """
        return None

    def check(self, records: Iterable[Record]) -> None:
        """Labelled records hold nothing that training never saw.

        Raises:
            DataError: names the record and its label.
        """
        for record in records:
            for label in self.labels_of(self.reference(record)):
                if label not in self.outputs.labels:
                    raise DataError(
                        f"{record.location}: the label {label!r} is not among those of training "
                        f"({', '.join(map(repr, self.outputs.labels))}); add training records of it, or take "
                        "it out here"
                    )

    # -- features and predictions -------------------------------------------------------------------

    def encode(self, record: Record, index: int, reader: Reader, *, labelled: bool = True) -> list[Feature]:
        """One feature, or several of windows or choices; ``index`` is the record's place in its list."""
        raise NotImplementedError

    def decode(self, record: Record, features: Sequence[Feature], raw: Sequence[Any]) -> Prediction:
        """The prediction of a record of what the model said of each of its features: see `Predicts`."""
        raise NotImplementedError

    @property
    def needs_tuning(self) -> bool:
        """Do the validation records choose any of its options?"""
        return False

    def tune(
        self, predictions: Sequence[Prediction], records: Sequence[Record]
    ) -> tuple[Settings, list[Prediction]]:
        """The options that validation records choose, and the predictions under them."""
        return self.options, list(predictions)

    def row(self, record: Record, prediction: Prediction) -> dict[str, Any]:
        """A prediction as it is written to a file."""
        confidence = {} if prediction.confidence is None else {"confidence": round(prediction.confidence, 6)}
        return {self.reference_field: prediction.value, **confidence}

    def render(self, record: Record, value: Any) -> str:
        """A reference or a predicted value as a person reads it."""
        return str(value)

    def value_from_row(self, value: Any) -> Any:
        """A predicted value as it was before it was written to predictions.jsonl, where a tuple is a list."""
        return tuple(value) if isinstance(value, list) else value

    def probabilities(self, prediction: Prediction) -> dict[str, float]:
        """The probability of every label, the likeliest first, of a task that has them."""
        return {}

    # -- scores -------------------------------------------------------------------------------------

    def metrics(self, language: str) -> tuple[Metric, ...]:
        """The metrics for data in a language; the first decides."""
        raise NotImplementedError

    def language(self, records: Sequence[Record]) -> str:
        """The language of data, as far as metrics depend on it: ``zh`` or ``en``."""
        step = max(1, len(records) // LANGUAGE_SAMPLE)
        return (
            "zh" if is_mostly_chinese("\n".join("\n".join(self.texts(r)) for r in records[::step])) else "en"
        )

    def score_values(self, values: Sequence[Any], records: Sequence[Record]) -> list[Score]:
        """The scores of predicted values; the first decides."""
        references = [self.reference(record) for record in records]
        return [score(metric, values, references) for metric in self.metrics(self.language(records))]

    def score(self, predictions: Sequence[Prediction], records: Sequence[Record]) -> list[Score]:
        """The scores of predictions; the first decides."""
        return self.score_values([prediction.value for prediction in predictions], records)

    def by_class(self, predictions: Sequence[Prediction], records: Sequence[Record]) -> ClassReport | None:
        """Scores of each class; None of a task that has no classes."""
        return None

    def baselines(self, train: Sequence[Record], records: Sequence[Record]) -> Iterator[Baseline]:
        """Simple methods without a model, fitted on ``train``, and their values for ``records``."""
        yield from ()

    # -- tests --------------------------------------------------------------------------------------

    @classmethod
    def sample(cls, rng: np.random.Generator) -> Mapping[str, Any]:
        """The fields of a labelled record that a small model can learn, for the conformance tests."""
        raise NotImplementedError


def mean_logits(raw: Sequence[npt.NDArray[np.float32]]) -> FloatArray:
    """The mean over windows of their logits, (1, C) each: (C,)."""
    mean: FloatArray = np.concatenate(raw).astype(np.float64).mean(0)
    return mean
