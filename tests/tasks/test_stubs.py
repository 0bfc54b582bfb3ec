"""The contract tried on tasks that come later: each is a file in a folder of tasks, and nothing else."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import small
import torch

import pretune.tasks
from pretune.data.order import validation_rng
from pretune.evaluation.mistakes import value_by_length
from pretune.metrics.statistics import compare
from pretune.model.model import Model
from pretune.registry import find, list_names
from pretune.tasks import find_task
from pretune.types import Batch, Layout, Record

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
STUBS = {"choice": "llama", "preference": "llama", "similarity": "bert", "summarization": "bart"}
TRAINED = {"summarization"}
"""Stubs whose head and objective there are; the others are not trained yet."""


@pytest.fixture(autouse=True)
def stubs(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The stubs stand in the folder of tasks."""
    monkeypatch.setattr(
        pretune.tasks, "__path__", [*pretune.tasks.__path__, str(Path(__file__).parent / "stubs")]
    )
    yield
    for name in STUBS:
        sys.modules.pop(f"pretune.tasks.{name}", None)


@pytest.mark.parametrize(("name", "family"), STUBS.items())
def test_a_stub_is_encoded_answered_and_scored(name: str, family: str) -> None:
    assert name in list_names("tasks")
    task, rng = find_task(name), np.random.default_rng(0)
    tokenizer = small.tokenizer(find("families", family).TRAITS)
    model = Model.create(family, SIZES, tokenizer, task.heads[0], max_length=64, seed=0)
    model.metadata["task"] = name
    records = [task().parse_record(Record(task.sample(rng), "a.jsonl", n)) for n in range(8)]
    bound = model.build_task()
    if name in TRAINED:
        objective = find("objectives", task.objective).Objective(model.family.TRAITS, tokenizer.specials)
        features = [f for i, r in enumerate(records) for f in bound.encode(r, i, model.reader)]
        batch = objective.collate([[objective.build(f, validation_rng(f.record))] for f in features])
        for loss in objective.loss(model.network, batch):
            assert all(torch.isfinite(total) for total, _ in loss.terms.values())
    predictions = model.predict(records)
    assert [p.record for p in predictions] == list(range(8))
    [score] = bound.score(predictions, records)
    assert np.isfinite(score.value)
    assert score.interval is not None
    for record, prediction in zip(records, predictions, strict=True):
        assert set(bound.row(record, prediction)) == set(task.prediction_fields)
        assert isinstance(bound.render(record, prediction.value), str)
    values, references = [p.value for p in predictions], [bound.reference(r) for r in records]
    metric = bound.metrics("en")[0]
    assert compare(metric, [values], [values], references).mean == 0
    assert len(value_by_length(metric, values, references, [1] * 8)) == 1
    assert [p.value for p in model.predict([r.fields for r in records])] == values


def test_given_texts_are_scored_after_what_stands_before_them() -> None:
    """Nats of a choice's tokens are those of the network read by hand."""
    task, tokenizer = find_task("choice"), small.tokenizer(find("families", "llama").TRAITS)
    model = Model.create("llama", SIZES, tokenizer, "causal_lm", max_length=64, seed=0)
    model.metadata["task"] = "choice"
    record = Record(task.sample(np.random.default_rng(0)), "a", 1)
    found = model.predict([record])[0]
    before = [*tokenizer.specials.single[0], *tokenizer.encode("the king saw").ids]
    totals = []
    for choice in record.fields["choices"]:
        ids = torch.tensor([[*before, *tokenizer.encode(choice).ids]])
        with torch.inference_mode():
            outputs = model.network(Batch(ids, Layout(torch.tensor([ids.shape[1]]))), heads=("causal_lm",))
        logs = outputs.logits["causal_lm"].view(ids.shape[1], -1).log_softmax(-1)
        chosen = logs[:-1].gather(1, ids[0, 1:, None])[len(before) - 1 :]
        totals.append(float(chosen.mean()))
    assert found.value == int(np.argmax(totals))
    shares = np.exp(totals - np.logaddexp.reduce(totals))
    assert found.confidence == pytest.approx(float(shares.max()), abs=1e-5)
