"""Classification: ``{"text", "label"}`` or ``{"text", "text_pair", "label"}`` records, one class each.

A text longer than the model is read in windows, whose class probabilities are averaged geometrically;
or it is cut, where the settings say so.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
import pydantic

from pretune.config import Settings
from pretune.errors import DataError
from pretune.metrics.accuracy import accuracy
from pretune.metrics.macro_f1 import macro_f1
from pretune.text.tokenizer import Tokenizer
from pretune.types import Feature, IntArray, Prediction, Record, Score, Specials, framed

COLUMNS = ("text", "label")
OBJECTIVE = "classification"
HEAD = "classification"
METRICS = (accuracy, macro_f1)


class Options(Settings):
    """Settings of the task."""

    long_texts: Literal["windows", "truncate"] = "windows"
    """What becomes of a text longer than the model: all of it in windows, or its beginning."""
    overlap: int = pydantic.Field(default=16, ge=0)
    """Tokens that neighbouring windows share."""


def label_set(records: Iterable[Record]) -> tuple[str, ...]:
    """The classes of labelled training records, sorted.

    Raises:
        DataError: only one class, of which nothing can be learnt.
    """
    where = {str(r.fields["label"]): r.path for r in records}
    labels = sorted(where)
    if len(labels) < 2:
        found = f"{where[labels[0]]}: only the label {labels[0]!r}" if labels else "no training record"
        raise DataError(f"{found}; classification needs records of at least two classes")
    return tuple(labels)


class Task:
    """Encodes records for one tokenizer and label set, and decodes what the network says of them."""

    def __init__(
        self,
        labels: Sequence[str],
        specials: Specials,
        max_length: int,
        options: Options | None = None,
    ) -> None:
        self.labels, self.specials, self.max_length = tuple(labels), specials, max_length
        self.options = options or Options()
        self._index = {label: number for number, label in enumerate(self.labels)}

    def check(self, records: Iterable[Record]) -> None:
        """Every label is one that training saw.

        Raises:
            DataError: names the record and its label.
        """
        for record in records:
            label = str(record.fields["label"])
            if label not in self._index:
                raise DataError(
                    f"{record.where}: the label {label!r} is not among those of training "
                    f"({', '.join(map(repr, self.labels))}); add training records of it, or take it out here"
                )

    def encode(self, record: Record, number: int, tokenizer: Tokenizer) -> list[Feature]:
        """One feature, or one a window of a long text; ``number`` is the record's place in its list."""
        texts = [str(record.fields[c]) for c in ("text", "text_pair") if record.fields.get(c) is not None]
        sequences = tuple(tokenizer.encode(text).ids for text in texts)
        label = record.fields.get("label")
        labels = {} if label is None else {"label": self._index[str(label)]}
        return [Feature(number, part, window, labels) for part, window in enumerate(self._windows(sequences))]

    def _windows(self, sequences: tuple[IntArray, ...]) -> list[tuple[IntArray, ...]]:
        """The last text is cut into windows; a first text takes at most half of the room."""
        frame = len(framed(self.specials, tuple(s[:0] for s in sequences))[0])
        room = self.max_length - frame
        if len(sequences) == 2:
            first = sequences[0][: max(room // 2, room - len(sequences[1]))]
            sequences, room = (first, sequences[1]), room - len(first)
        *fixed, last = sequences
        if len(last) <= room or self.options.long_texts == "truncate":
            return [(*fixed, last[:room])]
        stride = max(1, room - min(self.options.overlap, room // 2))
        count = 1 + -(-(len(last) - room) // stride)
        return [(*fixed, last[k * stride : k * stride + room]) for k in range(count)]

    def decode(self, number: int, logits: npt.NDArray[np.float32]) -> Prediction:
        """The prediction of record ``number`` of its windows' logits, (windows, C)."""
        logs = logits.astype(np.float64)
        logs -= np.logaddexp.reduce(logs, axis=1, keepdims=True)
        mean = logs.mean(0)  # (C,)
        probabilities = np.exp(mean - np.logaddexp.reduce(mean))
        order = np.argsort(-probabilities, kind="stable")
        ranked = tuple((self.labels[i], float(probabilities[i])) for i in order)
        return Prediction(number, ranked[0][0], ranked[0][1], ranked[1:])

    def score(
        self, predictions: Sequence[Prediction], records: Sequence[Record], *, language: str = "en"
    ) -> list[Score]:
        """Accuracy (which decides) and macro F1."""
        said = [str(p.value) for p in predictions]
        truth = [str(r.fields["label"]) for r in records]
        return [metric(said, truth, language=language) for metric in METRICS]
