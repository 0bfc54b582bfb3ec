"""Question answering: answers to tokens and back over windows; scores against SQuAD's official results."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tests.inference.conftest import word_piece

from pretune.errors import DataError
from pretune.metrics.squad import squad_exact_match, squad_f1
from pretune.metrics.statistics import metric_value
from pretune.tasks.base import Reader
from pretune.tasks.question_answering import Task
from pretune.text.tokenizer import Tokenizer
from pretune.types import Record, add_special_tokens

READER = Reader(Tokenizer(word_piece()), 16)
CONTEXT = "the king sent the captain to the castle and the soldier to the harbour near the ship"


def record(answer: str, context: str = CONTEXT) -> Record:
    answers = {"text": [answer], "answer_start": [context.index(answer)]}
    return Record({"question": "who went", "context": context, "answers": answers}, "a.jsonl", 3)


@pytest.mark.parametrize("answer", ["king", "the captain", "harbour near", "ship"])
def test_the_true_span_of_some_window_is_decoded_to_the_answer(answer: str) -> None:
    one, task = record(answer), Task()
    features = task.encode(one, 2, READER)
    assert len(features) > 1
    assert any(f.labels["span"] != (0, 0) for f in features)
    raw = []
    for feature in features:
        tokens, _ = add_special_tokens(READER.tokenizer.specials, feature.sequences)
        assert len(tokens) <= 16
        logits = np.zeros((len(tokens), 2), np.float32)
        logits[list(feature.labels["span"]), [0, 1]] = 9
        raw.append(logits)
    found = task.decode(one, features, raw)
    assert found.value == answer
    assert found.spans[0].start == CONTEXT.index(answer)
    assert 0 < found.confidence <= 1  # type: ignore[operator]


@pytest.mark.parametrize(
    ("answers", "fault"),
    [
        (None, "must be"),
        ({"text": ["king"]}, "must be"),
        ({"text": ["king"], "answer_start": []}, "must be"),
        ({"text": [], "answer_start": []}, "is empty"),
        ({"text": ["king"], "answer_start": [0]}, "does not stand at character 0"),
    ],
)
def test_answers_must_stand_in_the_context(answers: Any, fault: str) -> None:
    with pytest.raises(DataError, match=fault):
        Task().parse({"question": "q", "context": CONTEXT, "answers": answers})


# (prediction, true answers, exact match, F1) by the official evaluate-v2.0.py.
OFFICIAL = [
    ("The Norse", ["norse", "Vikings"], 1, 1.0),
    ("Denver Broncos!", ["the Denver Broncos"], 1, 1.0),
    ("in the 10th century", ["10th century", "10th"], 0, 0.8),
    ("Paris, France", ["London"], 0, 0.0),
    ("a", ["the"], 1, 1.0),
    ("a", ["one"], 0, 0.0),
    ("Saint Bernadette Soubirous", ["Bernadette"], 0, 0.5),
    ("dog dog cat", ["dog cat cat"], 0, 2 / 3),
]


def test_scores_are_those_of_the_official_script() -> None:
    for prediction, true, exact, f1 in OFFICIAL:
        assert metric_value(squad_exact_match("en"), [prediction], [true]) == exact, prediction
        assert metric_value(squad_f1("en"), [prediction], [true]) == pytest.approx(f1), prediction


def test_chinese_is_scored_by_characters_and_the_language_is_that_of_the_data() -> None:
    assert metric_value(squad_exact_match("zh"), ["北京。"], [["北京"]]) == 1
    assert metric_value(squad_f1("zh"), ["在北京"], [["北京"]]) == pytest.approx(0.8)
    assert metric_value(squad_f1("en"), ["在北京"], [["北京"]]) == 0
    chinese = record("城堡", "士兵看见城堡，船长看见海港。")
    assert [s.name for s in Task().score_values(["在城堡"], [chinese])] == ["answer_f1", "exact_match"]
    assert Task().score_values(["看见城堡"], [chinese])[0].value == pytest.approx(2 * 2 / 6)
    assert "tokens=zh" in Task().score_values(["城堡"], [chinese])[0].signature
