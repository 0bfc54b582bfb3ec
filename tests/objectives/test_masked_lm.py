"""Masked language modelling by the paper's rule, on a sentence and over many draws."""

from __future__ import annotations

import numpy as np
import pytest

from pretune.data.order import rng
from pretune.errors import UnsupportedError
from pretune.families import bert, llama
from pretune.objectives.masked_lm import HEAD, Objective, Options, contexts, windowing
from pretune.types import Feature, Specials

SPECIALS = Specials(
    vocabulary_size=100,
    pad=0,
    mask=3,
    end=4,
    all=(0, 1, 2, 3, 4),
    single=((1,), (2,)),
    pair=((1,), (2,), (2,)),
)
TEXT = np.arange(10, 30)


def feature(tokens: np.ndarray[tuple[int], np.dtype[np.int64]] = TEXT) -> Feature:
    return Feature(7, 0, (tokens,))


def test_frame_and_targets() -> None:
    objective = Objective(bert.TRAITS, SPECIALS)
    row = objective.build(feature(), rng(0, 0, 0)).rows[0]
    assert len(row.tokens) == 22
    assert row.tokens[0] == 1
    assert row.tokens[-1] == 2
    places, targets = row.places[HEAD], row.targets[HEAD]
    assert len(places) == 3  # 15 % of 20
    assert list(targets) == list(TEXT[places - 1])  # what stood there before it was hidden
    untouched = np.setdiff1d(np.arange(1, 21), places)
    assert list(row.tokens[untouched]) == list(TEXT[untouched - 1])


def test_shares_over_many_draws() -> None:
    """15 %, of which 80 / 10 / 10; a random token may be the right one (1 of 95), so 10 % + 0.1 % stay."""
    objective = Objective(bert.TRAITS, SPECIALS)
    long = np.tile(np.arange(10, 60), 20)
    chosen = masked = kept = 0
    for epoch in range(40):
        row = objective.build(feature(long), rng(0, epoch, 0)).rows[0]
        shown, targets = row.tokens[row.places[HEAD]], row.targets[HEAD]
        chosen += len(targets)
        masked += int((shown == SPECIALS.mask).sum())
        kept += int((shown == targets).sum())
        assert not np.isin(
            shown[shown != SPECIALS.mask], SPECIALS.all
        ).any()  # never a special as replacement
    assert chosen == 40 * 150
    # Three standard errors of a binomial share of 6,000 draws: 0.016 and 0.012.
    assert masked / chosen == pytest.approx(0.8, abs=0.016)
    assert kept / chosen == pytest.approx(0.101, abs=0.012)


def test_dynamic_and_keyed() -> None:
    objective = Objective(bert.TRAITS, SPECIALS)
    first, again = (objective.build(feature(), rng(0, 0, 5)).rows[0] for _ in range(2))
    other = objective.build(feature(), rng(0, 1, 5)).rows[0]
    assert list(first.tokens) == list(again.tokens)
    assert list(first.places[HEAD]) != list(other.places[HEAD])  # another epoch, another mask


def test_special_tokens_are_never_predicted() -> None:
    objective = Objective(bert.TRAITS, SPECIALS, Options(rate=0.99))
    text = np.array([4, 10, 11, 4])
    row = objective.build(feature(text), rng(0, 0, 0)).rows[0]
    assert list(row.targets[HEAD]) == [10, 11]
    only_specials = objective.build(feature(np.array([4])), rng(0, 0, 0)).rows[0]
    assert len(only_specials.places[HEAD]) == 0


def test_windows_leave_room_for_the_frame() -> None:
    objective = Objective(bert.TRAITS, SPECIALS)
    window = windowing(SPECIALS, 16)
    assert window.length == 14
    assert objective.length_bounds(np.array([[window.length]])).tolist() == [16]


def test_contexts_are_the_true_tokens() -> None:
    objective = Objective(bert.TRAITS, SPECIALS, Options(rate=0.99))
    example = objective.build(feature(), rng(0, 0, 0))
    previous, target = contexts(feature(), example, SPECIALS)
    assert all((p == -1 and t == 10) or t == p + 1 for p, t in zip(previous, target, strict=True))


def test_refuses_what_cannot_be() -> None:
    with pytest.raises(UnsupportedError, match="masked_lm"):
        Objective(llama.TRAITS, SPECIALS)
    with pytest.raises(UnsupportedError, match="mask token"):
        Objective(bert.TRAITS, Specials(vocabulary_size=10, pad=0))
