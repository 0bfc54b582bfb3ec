"""Denoising: each kind of damage by eye, statistics over many draws, and what is refused."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from pairs import SPECIALS, TRAITS, feature, shown

from pretune.data.order import training_rng
from pretune.errors import ConfigError, DataError, UnsupportedError
from pretune.families import llama
from pretune.objectives import parse_objective
from pretune.objectives.denoising import HEAD, Objective, Options, span_lengths
from pretune.types import IGNORE_INDEX, Feature, SpecialTokens

NOTHING: dict[str, Any] = {"infilling": 0, "permute_sentences": 0}
POEM = "白日 依 山 尽 。 黄河 入 海 流 。"
LONG = Feature(
    0, 0, (np.arange(10, 210),), word_starts=(np.where(np.arange(200) % 20 == 0, 3, 1).astype(np.uint8),)
)


def sources(text: str, draws: int = 300, **options: Any) -> set[str]:
    objective = Objective(TRAITS, SPECIALS, Options(**(NOTHING | options)))
    found = [shown(objective.build(feature(text), training_rng(0, epoch, 0))) for epoch in range(draws)]
    assert {(read, told) for _, read, told in found} == {(f"<pad> {text}", f"{text} </s>")}
    return {source.removesuffix(" </s>") for source, _, _ in found}


def test_sentences_are_permuted() -> None:
    assert sources(POEM, permute_sentences=1) == {POEM, "黄河 入 海 流 。 白日 依 山 尽 。"}
    assert sources(POEM, permute_sentences=0.5) == {POEM}  # one of two has no other to change with


def test_spans_become_one_mask() -> None:
    found = sources("白日 依 山 尽", infilling=0.5)
    assert {"<mask> 山 尽", "白日 <mask> 尽", "白日 依 <mask>"} <= found  # one span of two
    assert {"<mask> 依 <mask> 尽", "<mask> <mask> 山 尽"} <= found  # two of one
    assert all(source.split().count("<mask>") in (1, 2) for source in found)
    # A span of no token before one of two: a mask where nothing is missing.
    assert {"白日 <mask> 依 <mask>", "<mask> 白日 <mask> 尽"} <= found


def test_tokens_become_masks_or_vanish() -> None:
    assert sources("白日 依 山 尽", masking=0.25) == {
        "<mask> 依 山 尽", "白日 <mask> 山 尽", "白日 依 <mask> 尽", "白日 依 山 <mask>"
    }  # fmt: skip
    assert sources("白日 依 山 尽", deletion=0.25) == {"依 山 尽", "白日 山 尽", "白日 依 尽", "白日 依 山"}


def test_the_text_is_rotated() -> None:
    assert sources("白日 依 山 尽", rotation=1) == {"依 山 尽 白日", "山 尽 白日 依", "尽 白日 依 山"}
    assert "白日 依 山 尽" in sources("白日 依 山 尽", rotation=0.5)


def test_all_damage_together_leaves_a_text_that_can_be_told() -> None:
    options = Options(infilling=0.2, masking=0.1, deletion=0.1, permute_sentences=1, rotation=0.5)
    objective = Objective(TRAITS, SPECIALS, options)
    for epoch in range(50):
        row = objective.build(LONG, training_rng(0, epoch, 0)).rows[0]
        assert row.source_tokens is not None
        ordinary = row.source_tokens[row.source_tokens >= 10]
        assert len(set(ordinary.tolist())) == len(ordinary) == 200 - 40 - 16 - 14
        assert row.targets[HEAD].tolist() == [*range(10, 210), 1]


def test_hidden_only_counts_what_the_source_lacks() -> None:
    options = Options(infilling=0.2, deletion=0.1, masked_only=True)
    objective = Objective(TRAITS, SPECIALS, options)
    row = (example := objective.build(LONG, training_rng(0, 0, 0))).rows[0]
    assert row.source_tokens is not None
    told = row.targets[HEAD][row.targets[HEAD] != IGNORE_INDEX]
    assert told.tolist() == np.setdiff1d(LONG.sequences[0], row.source_tokens).tolist()
    assert len(told) == 40 + 16
    assert objective.collate([[example]]).counts == {HEAD: 56}
    previous, target = Objective.ngram_contexts(LONG, example, SPECIALS)
    assert target.tolist() == told.tolist()
    assert previous.tolist() == np.where(told == 10, -1, told - 1).tolist()


def test_spans_over_many_draws() -> None:
    """Poisson(3) but for the last of a text, which is cut: as many empty ones, and as long on average."""
    draw = np.random.default_rng(0)
    found = [span_lengths(300, 3.0, draw) for _ in range(200)]
    assert {int(lengths.sum()) for lengths in found} == {300}
    lengths = np.concatenate([part[:-1] for part in found])
    assert len(lengths) > 15_000
    assert lengths.mean() == pytest.approx(3, abs=4 * (3 / len(lengths)) ** 0.5)
    assert lengths.var() == pytest.approx(3, abs=0.15)
    share = np.exp(-3)
    assert (lengths == 0).mean() == pytest.approx(share, abs=4 * (share / len(lengths)) ** 0.5)


def test_infilling_over_many_draws() -> None:
    objective = Objective(TRAITS, SPECIALS, Options(**(NOTHING | {"infilling": 0.3})))
    hidden, masks = Counter[int](), 0
    for epoch in range(400):
        source = objective.build(LONG, training_rng(0, epoch, 0)).rows[0].source_tokens
        assert source is not None
        assert len(source) <= 201
        masks += int((source == SPECIALS.mask_id).sum())
        hidden.update(np.setdiff1d(LONG.sequences[0], source).tolist())
    assert hidden.total() == 400 * 60
    assert masks / 400 == pytest.approx(60 / 3 + 0.5, abs=1)
    # A token is hidden in 30 % of the draws, give or take five standard errors; no span reaches it from
    # beyond the ends of the text, so there it is seldomer.
    inner = [hidden[token] / 400 for token in range(20, 200)]
    assert np.abs(np.array(inner) - 0.3).max() < 5 * (0.21 / 400) ** 0.5
    assert hidden[10] / 400 < 0.2


def test_a_source_is_never_longer_than_its_text() -> None:
    objective = Objective(TRAITS, SPECIALS, Options(mean_span_length=1))
    for size in range(1, 40):
        for epoch in range(20):
            flags = (np.full(size, 3, np.uint8),)
            row = objective.build(
                Feature(0, 0, (np.arange(10, 10 + size),), word_starts=flags), training_rng(0, epoch, 0)
            ).rows[0]
            assert row.source_tokens is not None
            assert len(row.source_tokens) <= objective.length_bounds(np.array([[size]]))[0] == size + 1


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="denoising needs an encoder-decoder"):
        Objective(llama.TRAITS, SPECIALS)
    with pytest.raises(UnsupportedError, match="mask token"):
        Objective(TRAITS, SpecialTokens(100, 0, eos_id=1))
    with pytest.raises(DataError, match="permute_sentences to 0"):
        Objective(TRAITS, SPECIALS).build(Feature(0, 0, (np.arange(10, 20),)), training_rng(0, 0, 0))
    with pytest.raises(ConfigError, match="only copy"):
        parse_objective("denoising").check_options(NOTHING, "here")
