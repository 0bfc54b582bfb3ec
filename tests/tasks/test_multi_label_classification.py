"""Several labels a text: which records are accepted, how windows become a set, how a threshold is chosen."""

from __future__ import annotations

import csv
import io
import math
from typing import Any

import numpy as np
import pytest

from pretune.errors import DataError
from pretune.inference.output_format import FORMATS
from pretune.tasks.multi_label_classification import Task
from pretune.types import Feature, OutputSpec, Prediction, Record

LABELS = OutputSpec(("a", "b"))
FEATURE = Feature(4, 0, (np.array([1]),))


def record(labels: Any) -> Record:
    return Record({"text": "a", "labels": labels}, "a.jsonl", 3)


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ([], ()),
        ("", ()),
        (["b", "a", "b"], ("a", "b")),
        ("b|a", ("a", "b")),
        ("b; a;", ("a", "b")),
        ("x;y|z", ("x;y", "z")),
        ([2, True], ("2", "true")),
        ('["a|b", "c;d"]', ("a|b", "c;d")),
        ("['a', 'b']", ("a", "b")),
        ("[]", ()),
        ("[a]|[b]", ("[a]", "[b]")),
        ("[a", ("[a",)),
    ],
)
def test_labels_are_a_list_or_a_cell(given: Any, read: tuple[str, ...]) -> None:
    assert Task().reference(Task().parse_record(record(given))) == read


@pytest.mark.parametrize(
    "labels",
    [
        (),
        ("a",),
        ("a", "b"),
        ("a|b",),
        ("a;b", "c"),
        ("a|b", "c;d"),
        ("[1]",),
        ("[x", "y]"),
        ('"q"', "a, b"),
        ("一|二",),
    ],
)
def test_answers_in_a_table_are_read_back(labels: tuple[str, ...]) -> None:
    form = FORMATS[".csv"]
    written = form.format_header(["text", "labels"]) + form.format_rows(
        [{"text": "a", "labels": list(labels)}], ["text", "labels"]
    )
    [row] = csv.DictReader(io.StringIO(written.decode()))
    assert Task().reference(Task().parse_record(record(row["labels"]))) == tuple(sorted(labels))


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        (None, "missing"),
        ({"a": 1}, "dict, not a list"),
        ([["a"]], r"holds \['a'\]"),
        (["a", " "], "holds ' '"),
    ],
)
def test_other_labels_are_refused(given: Any, fault: str) -> None:
    with pytest.raises(DataError, match=fault):
        Task().parse_record(record(given))


def test_there_must_be_a_label() -> None:
    with pytest.raises(DataError, match=r"a\.jsonl: no record has a label"):
        Task().fit([record([])])
    assert Task().fit([record([]), record(["b"]), record(["a"])]).labels == ("a", "b")
    with pytest.raises(DataError, match=r"a\.jsonl:3: the label 'c' .*'a', 'b'"):
        Task(LABELS).check([record(["a", "c"])])


def test_windows_give_the_normalised_geometric_mean_of_each_label() -> None:
    task = Task(LABELS)
    logits = [np.array([[2.0, -1.0]], np.float32), np.array([[1.0, 0.5]], np.float32)]
    said = task.decode(record([]), [FEATURE, FEATURE], logits)
    shares = 1 / (1 + np.exp(-np.concatenate(logits).astype(float)))  # (windows, C)
    yes, no = np.sqrt(shares.prod(0)), np.sqrt((1 - shares).prod(0))
    expected = yes / (yes + no)
    assert said.value == ("a",)
    assert dict(said.alternatives) == pytest.approx(dict(zip(("a", "b"), expected, strict=True)))
    assert said.confidence == pytest.approx(expected[0] * (1 - expected[1]))
    assert said.record == 4


def test_the_threshold_is_chosen_on_validation_records() -> None:
    task = Task(LABELS, Task.options_type(threshold="validation"))
    made = [
        Prediction(number, (), None, (("a", a), ("b", b)))
        for number, (a, b) in enumerate([(0.3, 0.1), (0.1, 0.26), (0.2, 0.05)])
    ]
    truth = [record(["a"]), record(["b"]), record([])]
    options, decided = task.tune(made, truth)
    assert options.threshold == pytest.approx(0.23)  # halfway between 0.26 and 0.2
    assert [p.value for p in decided] == [("a",), ("b",), ()]
    scores = {s.name: s.value for s in task.score(decided, truth)}
    assert scores == {"micro_f1": 1.0, "macro_f1": 1.0, "exact_match": 1.0}
    fixed = Task(LABELS)
    assert not fixed.needs_tuning
    assert fixed.tune(made, truth) == (fixed.options, made)


def test_extreme_logits_do_not_overflow() -> None:
    said = Task(OutputSpec(("a",))).decode(record([]), [FEATURE], [np.array([[-900.0]], np.float32)])
    assert said.value == ()
    assert said.confidence is not None
    assert math.isclose(said.confidence, 1.0)
