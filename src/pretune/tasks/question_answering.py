"""Extractive question answering: ``{"question", "context", "answers": {"text", "answer_start"}}`` records.

A long context is read in windows that overlap; the answer is the best span of all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pydantic

from pretune.config import Settings
from pretune.data.sources.columns import Field
from pretune.errors import DataError
from pretune.metrics.base import Metric
from pretune.metrics.squad import is_exact, squad_exact_match, squad_f1
from pretune.tasks import base
from pretune.tasks._texts import second_text_start, window_slices
from pretune.text.segmentation import is_mostly_chinese
from pretune.types import (
    Feature,
    IntArray,
    OutputSpec,
    Prediction,
    Record,
    Span,
)


class Options(Settings):
    """Settings of the task."""

    overlap: int = pydantic.Field(default=64, ge=0)
    """Tokens that neighbouring windows of a long context share."""
    max_answer_tokens: int = pydantic.Field(default=30, ge=1)


class Task(base.Task):
    """The span of a context that answers a question."""

    fields = (
        Field("id", required=False, is_text=False),
        Field("question"),
        Field("context", is_echoed=False),
        Field("answers", is_text=False, is_label=True),
    )
    reference_field = "answers"
    prediction_fields = ("answer", "answer_start", "confidence")
    heads = ("question_answering",)
    objective = "question_answering"
    options_type = Options
    phrases: ClassVar = {
        "en": base.Phrases(
            "Fine-tuning a reader that answers questions",
            "Answers a question with a span of a text that holds the answer.",
            "Answers every question, also one that the text does not answer; learnt from {n} questions.",
            "Where did Ada Lovelace live?", "Ada Lovelace lived in London.",
        ),
        "zh": base.Phrases(
            "微调阅读理解模型",
            "从给出的文本中抽取一段作为问题的答案。", "即使文本中没有答案也会作答；训练用了 {n} 个问题。",
            "江泽民在哪里？", "江泽民在北京。",
        ),
    }  # fmt: skip

    def parse(self, fields: Mapping[str, Any], *, labelled: bool = True) -> Mapping[str, Any]:
        """True answers stand in the context where ``answer_start`` says."""
        if not labelled:
            return fields
        answers = fields.get("answers")
        try:
            found = list(zip(answers["text"], answers["answer_start"], strict=True))  # type: ignore[index]
        except (TypeError, KeyError, ValueError):
            raise DataError('\'answers\' must be {"text": [...], "answer_start": [...]}') from None
        if not found:
            raise DataError("'answers' is empty: a question without an answer cannot be used")
        for text, start in found:
            if not text or str(fields["context"])[start : start + len(text)] != text:
                raise DataError(f"the answer {text!r:.40} does not stand at character {start} of the context")
        return fields

    def texts(self, record: Record) -> tuple[str, ...]:
        """The context, whose questions stay together, and the question."""
        return str(record.fields["context"]), str(record.fields["question"])

    def reference(self, record: Record) -> tuple[str, ...]:
        """The true answers."""
        answers = record.fields["answers"]
        return tuple(answers["text"] if isinstance(answers, Mapping) else answers)

    def as_value(self, reference: Any) -> Any:
        """The first of them."""
        return reference[0]

    def is_correct(self, value: Any, reference: Any) -> bool:
        """Is it, normalised, one of the true ones?"""
        return is_exact("zh" if is_mostly_chinese(reference[0]) else "en", value, reference)

    @classmethod
    def recognise(cls, head: str, config: Mapping[str, Any], labels: Sequence[str]) -> OutputSpec | None:
        """Any folder with a head that finds spans."""
        return OutputSpec() if head in cls.heads else None

    def encode(
        self, record: Record, index: int, reader: base.Reader, *, labelled: bool = True
    ) -> list[Feature]:
        """A feature a window; ``decoding`` has where the context begins in the row, and its characters."""
        context, question = (reader.tokenizer.encode(text) for text in self.texts(record))
        specials = reader.tokenizer.specials
        room = reader.max_length - second_text_start(specials, 0)[1]
        asked = question.ids[: room // 2]
        begin, _ = second_text_start(specials, len(asked))
        room -= len(asked)
        features = []
        for window, piece in enumerate(window_slices(record, len(context.ids), room, self.options.overlap)):
            offsets = context.offsets[piece]
            labels = {"span": self._span(record, offsets, begin)} if labelled else {}
            decoding = {"begin": begin, "offsets": offsets}
            features.append(Feature(index, window, (asked, context.ids[piece]), labels, decoding=decoding))
        return features

    def _span(self, record: Record, offsets: IntArray, begin: int) -> tuple[int, int]:
        """Positions of the first and last token of the first answer in a row; 0 where a window lacks it."""
        answers = record.fields["answers"]
        first, last = answers["answer_start"][0], answers["answer_start"][0] + len(answers["text"][0])
        inside = np.flatnonzero((offsets[:, 1] > first) & (offsets[:, 0] < last))
        if not len(inside) or offsets[0, 0] > first or offsets[-1, 1] < last:
            return 0, 0
        return begin + int(inside[0]), begin + int(inside[-1])

    def decode(
        self, record: Record, features: Sequence[Feature], raw: Sequence[npt.NDArray[np.float32]]
    ) -> Prediction:
        """The span of the highest sum of logits (T, 2) over all windows; its probability among all spans."""
        best, totals = (-np.inf, 0, 0), []
        for feature, logits in zip(features, raw, strict=True):
            offsets, begin = feature.decoding["offsets"], feature.decoding["begin"]
            first, last = logits[begin : begin + len(offsets)].astype(np.float64).T  # (n,), (n,)
            length = np.arange(len(first))[None, :] - np.arange(len(first))[:, None] + 1
            is_span = (length >= 1) & (length <= self.options.max_answer_tokens)
            scores = np.where(is_span, first[:, None] + last[None, :], -np.inf)  # (n, n)
            start, end = divmod(int(scores.argmax()), len(first))
            best = max(best, (float(scores[start, end]), int(offsets[start, 0]), int(offsets[end, 1])))
            totals.append(np.logaddexp.reduce(scores[is_span]))
        score, start, end = best
        piece = str(record.fields["context"])[start:end]
        start += len(piece) - len(piece.lstrip())
        span = Span(start, end, text=piece.strip())
        confidence = float(np.exp(score - np.logaddexp.reduce(totals)))
        return Prediction(features[0].record, span.text, confidence, (), (span,))

    def row(self, record: Record, prediction: Prediction) -> dict[str, Any]:
        """The answer, and where it begins in the context."""
        found = super().row(record, prediction)
        answer, start = found.pop("answers"), prediction.spans[0].start
        return {"answer": answer, "answer_start": start, **found}

    def metrics(self, language: str) -> tuple[Metric, ...]:
        """F1 of the answers' tokens, which decides, and exact match."""
        return squad_f1(language), squad_exact_match(language)

    @classmethod
    def sample(cls, rng: np.random.Generator) -> Mapping[str, Any]:
        """Who sailed is the second word of the context."""
        who, where = str(rng.choice(["captain", "soldier"])), str(rng.choice(["castle", "harbour"]))
        answers = {"text": [who], "answer_start": [4]}
        return {"question": "who went ?", "context": f"the {who} went to the {where}", "answers": answers}
