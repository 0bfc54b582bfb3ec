"""Tagging: words to tokens and back, and which records can be read."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tests.inference.conftest import word_piece

from pretune.errors import DataError
from pretune.tasks.base import Reader
from pretune.tasks.tagging import Task
from pretune.text.tokenizer import Tokenizer
from pretune.types import OutputSpec, Prediction, Record

LABELS = OutputSpec(("O", "B-PER", "I-PER"))
READER = Reader(Tokenizer(word_piece()), 12)


def record(**fields: Any) -> Record:
    return Record(fields, "a.jsonl", 3)


def test_a_word_is_read_at_its_first_token_and_windows_hold_all_words() -> None:
    words = ["captain", "soldiers", "江", "泽", "castle", "unknownword", "the"] * 4
    task = Task(LABELS)
    features = task.encode(record(tokens=words, tags=["B-PER"] * len(words)), 5, READER)
    assert len(features) > 1
    seen = np.concatenate([feature.decoding["words"] for feature in features])
    assert sorted(set(seen.tolist())) == list(range(len(words)))
    for feature in features:
        assert feature.word_starts is not None
        assert int((feature.word_starts[0] & 1).sum()) == len(feature.labels["tags"])
        assert len(feature.sequences[0]) <= 10
    raw = [np.eye(3)[np.ones(len(f.decoding["words"]), int)] * 5 for f in features]
    found = task.decode(record(tokens=words), features, raw)  # type: ignore[arg-type]
    assert found.value == ("B-PER",) * len(words)
    assert found.record == 5


def test_spans_are_shown_as_text() -> None:
    task, one = Task(LABELS), record(tokens=["江", "泽", "民", "met", "Ada"])
    tags = ("B-PER", "I-PER", "I-PER", "O", "B-PER")
    assert task.render(one, tags) == "PER: 江泽民, PER: Ada"
    assert task.render(one, ("O",) * 5) == "–"
    assert task.row(one, Prediction(0, tags, 0.5))["entities"][0] == {"type": "PER", "text": "江泽民"}


def test_lists_and_cells_are_read() -> None:
    for tokens in ("a b", "a|b", ["a", "b"]):
        assert Task().parse({"tokens": tokens, "tags": "O|O"})["tokens"] == ["a", "b"]
    assert Task().from_texts(("Ada在北京。",))["tokens"] == ["Ada", "在", "北", "京", "。"]


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"tokens": ["a"], "tags": ["O", "O"]}, "1 tokens and 2 tags"),
        ({"tokens": [], "tags": []}, "'tokens' is empty"),
        ({"tokens": [1], "tags": ["O"]}, "'tokens' must be a list of texts"),
        ({"tokens": ["a"]}, "'tags' must be a list of texts, not NoneType"),
    ],
)
def test_others_are_refused(fields: Any, fault: str) -> None:
    with pytest.raises(DataError, match=fault):
        Task().parse(fields)


def test_one_tag_is_too_few() -> None:
    with pytest.raises(DataError, match="two tags or more"):
        Task().fit([record(tokens=["a"], tags=["O"])])
    tags = ["B-PER", "O", "I-PER", "B-LOC"]
    assert Task().fit([record(tokens=["a"] * 4, tags=tags)]).labels == (
        "O",
        "B-LOC",
        "I-LOC",
        "B-PER",
        "I-PER",
    )
