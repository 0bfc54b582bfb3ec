"""Tagging: ``{"tokens", "tags"}`` records, a tag a word, such as ``B-PER`` of a named entity.

A word is classified at its first token. A text longer than the model is read in windows that overlap; a word
that several hold has the mean of their logits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pydantic

from pretune.baselines.base import Baseline
from pretune.baselines.dictionary import most_frequent_tags
from pretune.config import Settings
from pretune.data.sources.columns import Field
from pretune.errors import DataError
from pretune.metrics.base import Metric
from pretune.metrics.spans import CONLLEVAL_F1, TAG_ACCURACY, Scheme, span_f1, split_tag, strict_spans
from pretune.tasks import base
from pretune.tasks._texts import parse_words, window_slices
from pretune.text.words import join_words, split_words, words_of_tokens
from pretune.types import Feature, OutputSpec, Prediction, Record, add_special_tokens


class Options(Settings):
    """Settings of the task."""

    scheme: Scheme = "IOB2"
    """How tags write spans, by which they are scored."""
    overlap: int = pydantic.Field(default=16, ge=0)
    """Tokens that neighbouring windows of a long text share."""


class Task(base.Task):
    """A tag for each word of a text."""

    fields = (Field("tokens", is_text=False), Field("tags", is_text=False, is_label=True))
    reference_field = "tags"
    prediction_fields = ("tags", "entities", "confidence")
    heads = ("token_classification",)
    objective = "token_classification"
    options_type = Options
    phrases: ClassVar = {
        "en": base.Phrases(
            "Fine-tuning a tagger", "Tags each word of {text} with one of: {labels}.",
            "Knows only these tags; learnt from {n} texts.",
        ),
        "zh": base.Phrases(
            "微调序列标注模型", "为{text}中的每个词标注以下标签之一：{labels}。",
            "只认识上述标签；训练用了 {n} 条文本。", "江泽民在北京。",
        ),
    }  # fmt: skip

    def parse(self, fields: Mapping[str, Any], *, labelled: bool = True) -> Mapping[str, Any]:
        """Lists of words and of tags, as many of each; a cell of a table has spaces between them."""
        parsed = {name: parse_words(fields, name) for name in ("tokens", "tags")[: 1 + labelled]}
        if not parsed["tokens"]:
            raise DataError("'tokens' is empty")
        if labelled and len(parsed["tokens"]) != len(parsed["tags"]):
            raise DataError(f"{len(parsed['tokens'])} tokens and {len(parsed['tags'])} tags")
        return {**fields, **parsed}

    def from_texts(self, texts: Sequence[str]) -> Mapping[str, Any]:
        """The words of a text; each Chinese character is one, as is each punctuation mark."""
        return {"tokens": [word for text in texts for word in split_words(text)]}

    def texts(self, record: Record) -> tuple[str, ...]:
        """The words as one text."""
        return (join_words(record.fields["tokens"])[0],)

    def reference(self, record: Record) -> tuple[str, ...]:
        """The tags of a record."""
        return tuple(record.fields["tags"])

    def labels_of(self, value: Any) -> tuple[str, ...]:
        """The tags that occur."""
        return tuple(dict.fromkeys(value))

    def fit(self, records: Sequence[Record]) -> OutputSpec:
        """The tags of the training records, ``O`` first, then by type.

        Raises:
            DataError: they have one tag only.
        """
        tags = {tag for record in records for tag in self.reference(record)}
        if len(tags) < 2:
            raise DataError(f"tagging needs two tags or more; the training records have {sorted(tags)}")
        return OutputSpec(tuple(sorted(tags, key=lambda tag: (tag != "O", split_tag(tag)[::-1]))))

    @classmethod
    def recognise(cls, head: str, config: Mapping[str, Any], labels: Sequence[str]) -> OutputSpec | None:
        """Any folder with a head that classifies tokens."""
        return OutputSpec(tuple(labels)) if head in cls.heads else None

    def encode(
        self, record: Record, index: int, reader: base.Reader, *, labelled: bool = True
    ) -> list[Feature]:
        """A feature, or one a window; ``decoding`` has the word of each position that is classified."""
        text, starts = join_words(record.fields["tokens"])
        encoded = reader.tokenizer.encode(text)
        words, is_first = words_of_tokens(starts, encoded.offsets)
        room = reader.max_length - len(add_special_tokens(reader.tokenizer.specials, (words[:0],))[0])
        features = []
        for window, piece in enumerate(window_slices(record, len(words), room, self.options.overlap)):
            held = words[piece][is_first[piece]]
            ids = [self.outputs.labels.index(record.fields["tags"][w]) for w in held] if labelled else []
            flags = (is_first[piece].astype(np.uint8),)
            feature = Feature(index, window, (encoded.ids[piece],), {"tags": ids} if labelled else {}, flags)
            features.append(replace(feature, decoding={"words": held}))
        return features

    def decode(
        self, record: Record, features: Sequence[Feature], raw: Sequence[npt.NDArray[np.float32]]
    ) -> Prediction:
        """The likeliest tag of each word, of logits (words of the window, C); ``O`` where it has no token."""
        size, labels = len(record.fields["tokens"]), self.outputs.labels
        total, windows = np.zeros((size, len(labels))), np.zeros(size)
        for feature, logits in zip(features, raw, strict=True):
            np.add.at(total, feature.decoding["words"], logits)
            np.add.at(windows, feature.decoding["words"], 1)
        mean = total / np.maximum(windows, 1)[:, None]
        logs = mean.max(1) - np.logaddexp.reduce(mean, axis=1)  # (words,) of the likeliest tag
        fallback = labels.index("O") if "O" in labels else 0
        ids = np.where(windows > 0, mean.argmax(1), fallback)
        tags = tuple(labels[i] for i in ids)
        return Prediction(features[0].record, tags, float(np.exp(logs[windows > 0].sum())))

    def row(self, record: Record, prediction: Prediction) -> dict[str, Any]:
        """The tags, and the spans that they stand for."""
        found = super().row(record, prediction)
        entities = [{"type": name, "text": text} for name, text in self._spans(record, prediction.value)]
        return {"tags": list(prediction.value), "entities": entities, "confidence": found["confidence"]}

    def render(self, record: Record, value: Any) -> str:
        """``PER: 江泽民, LOC: 北京``"""
        return ", ".join(f"{name}: {text}" for name, text in self._spans(record, value)) or "–"

    def _spans(self, record: Record, tags: Sequence[str]) -> list[tuple[str, str]]:
        words = record.fields["tokens"]
        found = sorted(strict_spans(tags, self.options.scheme), key=lambda span: span[1])
        return [(name, join_words(words[start:end])[0]) for name, start, end in found]

    def metrics(self, language: str) -> tuple[Metric, ...]:
        """Strict F1 of spans, which decides, that of conlleval, and the share of right tags."""
        return span_f1(self.options.scheme), CONLLEVAL_F1, TAG_ACCURACY

    def baselines(self, train: Sequence[Record], records: Sequence[Record]) -> Iterator[Baseline]:
        """The most frequent tag of each word."""
        pairs = [(r.fields["tokens"], self.reference(r)) for r in train]
        yield most_frequent_tags(pairs, [r.fields["tokens"] for r in records])

    @classmethod
    def sample(cls, rng: np.random.Generator) -> Mapping[str, Any]:
        """Words of which some are always tagged."""
        words = rng.choice(["the", "captain", "ship", "castle"], 5).tolist()
        return {"tokens": words, "tags": ["B-LOC" if word == "castle" else "O" for word in words]}
