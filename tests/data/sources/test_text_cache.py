"""What is spooled comes back, in order, as often as it is asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pretune.data.sources import text_cache as module
from pretune.data.sources.text_hash import text_hash

TEXTS = ["one", "第二篇\n有两行。", "", 'with "quotes" and \\ and \u2028', "长" * 3_000_000, "last"]


def test_documents_come_back_in_order_as_often_as_wanted(tmp_path: Path) -> None:
    kept = module.TextCache(iter(TEXTS), tmp_path / "spool")
    assert list(kept.iter_texts()) == TEXTS
    assert list(kept.iter_texts()) == TEXTS
    assert kept.hashes.tolist() == [text_hash(text) for text in TEXTS]


def test_only_the_chosen_come_back(tmp_path: Path) -> None:
    kept = module.TextCache(TEXTS, tmp_path / "spool")
    chosen = np.array([True, False, False, True, False, True])
    assert list(kept.iter_texts(chosen)) == [TEXTS[0], TEXTS[3], TEXTS[5]]
    assert list(kept.iter_texts(~chosen)) == [TEXTS[1], TEXTS[2], TEXTS[4]]


def test_a_lone_surrogate_is_no_end(tmp_path: Path) -> None:
    assert list(module.TextCache(["a\ud800b"], tmp_path / "spool").iter_texts()) == ["a\ufffdb"]


def test_nothing_is_nothing(tmp_path: Path) -> None:
    empty = module.TextCache([], tmp_path / "spool")
    assert len(empty) == 0
    assert list(empty.iter_texts()) == []
