"""The table of classes on the terminal: the worst first, bounded in rows and width."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pretune.cli.shared import class_lines, short_label
from pretune.metrics.by_class import class_report


def test_the_worst_classes_stand_first() -> None:
    true = ["a"] * 6 + ["b"] * 3 + ["c"] * 2
    said = ["a"] * 6 + ["a", "a", "b"] + ["a", "a"]
    lines = class_lines(class_report(said, true, ["a", "b", "c", "unused"]).as_dict())
    assert lines == [
        "classes, the lowest F1 first:",
        "  c  precision 0.000, recall 0.000, F1 0.000, 2 records",
        "  b  precision 1.000, recall 0.333, F1 0.500, 3 records",
        "  a  precision 0.600, recall 1.000, F1 0.750, 6 records",
        "  b taken for a 2 times, c taken for a 2 times",
    ]


def test_many_classes_and_long_labels_are_cut() -> None:
    labels = [f"{k:02} {'x' * 100}\n" for k in range(12)]
    lines = class_lines(class_report(labels, labels, labels).as_dict())
    assert lines[0] == "classes, the lowest F1 first (5 of 12):"
    assert len(lines) == 6
    assert max(map(len, lines)) < 100
    assert class_lines({"scores": {}}) == []
    assert short_label("a\x1b[31m\n b\u200bc") == "a [31m b c"


def test_every_verb_that_scores_a_classifier_shows_them(classifier: Path, texts: Any, cli: Any) -> None:
    summary = json.loads((classifier / "summary.json").read_text(encoding="utf-8"))
    assert set(summary["by_class"]) == {"farm", "war"}
    matrix = summary["confusion_matrix"]
    assert matrix["labels"] == ["farm", "war"]
    rows = [json.loads(line) for line in (classifier / "predictions.jsonl").open(encoding="utf-8")]
    for i, true in enumerate(matrix["labels"]):
        for k, said in enumerate(matrix["labels"]):
            assert matrix["counts"][i][k] == sum((r["label"], r["prediction"]) == (true, said) for r in rows)
    for row in rows:
        assert set(row["probabilities"]) == {"farm", "war"}
        assert abs(sum(row["probabilities"].values()) - 1) < 1e-5
        assert max(row["probabilities"], key=row["probabilities"].get) == row["prediction"]
    expected = class_lines(summary)
    for words in (("runs", "show", classifier), ("evaluate", classifier, "--data", texts.test)):
        said = cli(*words)
        assert said.code == 0, said.err
        assert "\n".join(expected) in said.out
