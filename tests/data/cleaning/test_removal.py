"""Boilerplate, stop words and evaluation texts are taken out, and nothing beside them."""

from __future__ import annotations

import random

import numpy as np
import pytest

from pretune.data.cleaning import boilerplate
from pretune.data.cleaning.boilerplate import LineCounts, line_hashes, remove_lines
from pretune.data.cleaning.contamination import ContaminationIndex
from pretune.data.cleaning.steps import Drop
from pretune.data.cleaning.stop_words import remove_stop_words


def test_lines_of_many_documents_go() -> None:
    documents = [
        f"Daily News - all rights reserved\nStory {n} is told here.\n版权归本网站所有\n}}" for n in range(9)
    ]
    counts = LineCounts()
    counts.add([line_hashes(document) for document in documents])
    recurring = counts.frequent_lines(5)
    assert remove_lines(documents[3], recurring) == "Story 3 is told here.\n}"
    assert remove_lines("untouched\n\ntext ", recurring) == "untouched\n\ntext "
    assert counts.frequent_lines(10) == frozenset()


def test_a_line_counts_once_a_document() -> None:
    counts = LineCounts()
    counts.add([line_hashes("the very same refrain\n" * 50)])
    assert counts.frequent_lines(2) == frozenset()


def test_counting_stays_bounded_and_keeps_what_is_frequent(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = LineCounts(limit=1000)
    draw = random.Random(0)
    for n in range(3000):
        counts.add([line_hashes(f"unique line number {n} {draw.random()}\nthe line of every page")])
    assert len(counts._hashes) <= 1000 + 250
    assert len(counts.frequent_lines(2500)) == 1


def test_stop_words_go_and_text_stays_readable() -> None:
    text = "The cat sat on the mat, and it was happy.\nDon't go!"
    assert remove_stop_words(text) == "cat sat mat, happy." + "\n!"
    assert remove_stop_words("中国的首都是北京，目的明确。") == "中国首都北京，目的明确。"
    assert remove_stop_words("2024 x_the_y 3.5") == "2024 x_the_y 3.5"


QUESTION = (
    "Which of the following rivers flows through the old city of Prague and under the famous stone "
    "bridge that was built in the fourteenth century?"
)
PASSAGE = "沛公军霸上，未得与项羽相见。沛公左司马曹无伤使人言于项羽曰：沛公欲王关中，使子婴为相，珍宝尽有之。"


@pytest.mark.parametrize("evaluation", [QUESTION, PASSAGE])
def test_evaluation_text_is_found_wherever_it_stands(evaluation: str) -> None:
    known = ContaminationIndex.from_texts([evaluation, "too short"])
    around = "Some other words before it, 前面的文字。"
    text = f"{around}\n{evaluation.upper()}\n{around}"
    dropped = known.decontaminate(text, "drop")
    assert isinstance(dropped, Drop)
    assert dropped.reason == "contamination"
    cut = known.decontaminate(text, "cut")
    assert isinstance(cut, str)
    assert cut.startswith(around + "\n")
    assert cut.endswith("\n" + around)
    assert len(cut) <= 2 * len(around) + 4
    assert known.decontaminate("Too short. " + around, "drop") == "Too short. " + around


def test_a_common_phrase_is_no_contamination() -> None:
    known = ContaminationIndex.from_texts([QUESTION, PASSAGE])
    text = "He was built in the fourteenth century, as they say. 使人言于项羽曰：沛公欲王关中，如此而已。"
    assert known.decontaminate(text, "drop") == text


def test_a_passage_across_two_pieces_is_found_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pretune.data.cleaning.contamination._CHUNK_CHARACTERS", 300)
    known = ContaminationIndex.from_texts([QUESTION])
    for before in range(200, 320, 7):
        text = "x " * (before // 2) + QUESTION + " y" * 400
        assert known.decontaminate(text, "cut").replace("x ", "").replace(" y", "") in ("", "?", " ?")


def test_hashes_of_lines_are_the_same_in_every_process() -> None:
    hashes = line_hashes("第一行文字够长了\n第一行文字够长了\nshort")
    assert len(hashes) == 1
    assert hashes.dtype == np.uint64
    assert boilerplate.MIN_LINE_WIDTH == 12
