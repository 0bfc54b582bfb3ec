"""Every task: a sample is encoded, trained on, answered, scored, shown, saved and read again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.inference.conftest import word_piece

from pretune.data.order import validation_rng
from pretune.errors import DataError
from pretune.model.model import Model
from pretune.registry import find, list_names
from pretune.tasks import find_task
from pretune.text.tokenizer import Tokenizer
from pretune.types import Record

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
TASKS = list_names("tasks")


def samples(name: str, n: int = 24) -> list[Record]:
    rng, task = np.random.default_rng(0), find_task(name)
    rows = [task.sample(rng) for _ in range(n)]
    return [task().parse_record(Record(row, "a.jsonl", number)) for number, row in enumerate(rows, 1)]


def model_of(name: str, max_length: int = 32) -> Model:
    task = find_task(name)
    model = Model.create(
        "bert", SIZES, Tokenizer(word_piece()), task.heads[0], max_length=max_length, seed=0,
        outputs=task().fit(samples(name)),
    )  # fmt: skip
    model.metadata["task"] = name
    return model


@pytest.mark.parametrize("name", TASKS)
def test_a_sample_goes_all_the_way(name: str, tmp_path: Path) -> None:
    model, records = model_of(name), samples(name)
    task = model.build_task()
    task.check(records)
    objective = find("objectives", task.objective).Objective(model.family.TRAITS, model.tokenizer.specials)
    features = [f for i, r in enumerate(records) for f in task.encode(r, i, model.reader)]
    batch = objective.collate([[objective.build(f, validation_rng(f.record))] for f in features])
    [loss] = objective.loss(model.network, batch)
    [(total, _)] = loss.terms.values()
    total.backward()
    assert np.isfinite(total.item())
    predictions = model.predict(records)
    scores = task.score(predictions, records)
    assert [s.name for s in scores] == [m.name for m in task.metrics("en")]
    right = [task.as_value(task.reference(r)) for r in records]
    assert task.score_values(right, records)[0].value == 1
    assert all(task.is_correct(v, task.reference(r)) for v, r in zip(right, records, strict=True))
    for record, prediction in zip(records, predictions, strict=True):
        row = task.row(record, prediction)
        assert tuple(row) == task.prediction_fields
        json.dumps(row)
        assert isinstance(task.render(record, prediction.value), str)
    model.save(tmp_path)
    again = Model.load(tmp_path)
    assert again.task_name == name
    assert [p.value for p in again.predict(records)] == [p.value for p in predictions]


@pytest.mark.parametrize("name", TASKS)
def test_windows_are_gathered_and_packing_changes_nothing(name: str) -> None:
    model, records = model_of(name, max_length=12), samples(name, 6)
    long = [Record({**r.fields, **lengthened(r.fields)}, r.path, r.line) for r in records]
    task = model.build_task()
    assert max(len(task.encode(r, 0, model.reader, labelled=False)) for r in long) > 1
    together, alone = model.predict(long), [model.predict([record])[0] for record in long]
    for one, other in zip(together, alone, strict=True):
        assert one.value == other.value
        assert one.confidence == pytest.approx(other.confidence, abs=1e-5)


def lengthened(fields: Any) -> dict[str, Any]:
    """The longest field of a record, several times."""
    name = next(n for n in ("context", "tokens", "text") if n in fields)
    value = fields[name]
    return {name: " ".join([value] * 8) if isinstance(value, str) else list(value) * 8}


@pytest.mark.parametrize("name", TASKS)
def test_it_has_words_in_both_languages(name: str) -> None:
    task = find_task(name)(find_task(name)().fit(samples(name)))
    for language in ("en", "zh"):
        phrases = task.phrases[language]
        assert phrases.title
        assert phrases.description.format(text="x", labels="y")
        assert "7" in phrases.limits.format(n=7)
        assert all(metric.words[language] for metric in task.metrics(language))
    for baseline in task.baselines(samples(name), samples(name)):
        assert set(baseline.words) == {"en", "zh"}
        assert len(baseline.predictions) == 24


@pytest.mark.parametrize("name", TASKS)
def test_what_is_given_in_python_is_parsed(name: str) -> None:
    model = model_of(name)
    asked = [field.name for field in find_task(name).fields if field.required and not field.is_label]
    for field in asked:
        row = {key: value for key, value in samples(name)[0].fields.items() if key != field}
        with pytest.raises(DataError, match=f"record:1: '{field}'"):
            model.predict([row])
        with pytest.raises(DataError, match=f"record:1: '{field}'"):
            model.predict([row | {field: {"a": 1}}])
    with pytest.raises(DataError, match="texts, and the fields are"):
        find_task("classification")().from_texts(("a", "b", "c"))


def test_a_plain_language_model_is_of_no_task() -> None:
    for name in TASKS:
        for head in ("masked_lm", "causal_lm"):
            assert find_task(name).recognise(head, {}, ("a", "b")) is None
