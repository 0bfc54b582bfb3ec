"""Masked language modelling by the paper's rule, on a sentence and over many draws."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from pretune.data.order import training_rng
from pretune.errors import ConfigError, DataError, UnsupportedError
from pretune.families import bert, llama
from pretune.objectives import parse_objective
from pretune.objectives.masked_lm import HEAD, Objective, Options, ngram_mask
from pretune.text.segmentation import find_word_starts
from pretune.types import Feature, SpecialTokens

SPECIALS = SpecialTokens(
    vocabulary_size=100,
    pad_id=0,
    mask_id=3,
    eos_id=4,
    all_ids=(0, 1, 2, 3, 4),
    single=((1,), (2,)),
    pair=((1,), (2,), (2,)),
)
TEXT = np.arange(10, 30)


def feature(tokens: np.ndarray[tuple[int], np.dtype[np.int64]] = TEXT) -> Feature:
    return Feature(7, 0, (tokens,))


def test_frame_and_targets() -> None:
    objective = Objective(bert.TRAITS, SPECIALS)
    row = objective.build(feature(), training_rng(0, 0, 0)).rows[0]
    assert len(row.tokens) == 22
    assert row.tokens[0] == 1
    assert row.tokens[-1] == 2
    places, targets = row.positions[HEAD], row.targets[HEAD]
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
        row = objective.build(feature(long), training_rng(0, epoch, 0)).rows[0]
        shown, targets = row.tokens[row.positions[HEAD]], row.targets[HEAD]
        chosen += len(targets)
        masked += int((shown == SPECIALS.mask_id).sum())
        kept += int((shown == targets).sum())
        assert not np.isin(
            shown[shown != SPECIALS.mask_id], SPECIALS.all_ids
        ).any()  # never a special as replacement
    assert chosen == 40 * 150
    # Three standard errors of a binomial share of 6,000 draws: 0.016 and 0.012.
    assert masked / chosen == pytest.approx(0.8, abs=0.016)
    assert kept / chosen == pytest.approx(0.101, abs=0.012)


def test_dynamic_and_keyed() -> None:
    objective = Objective(bert.TRAITS, SPECIALS)
    first, again = (objective.build(feature(), training_rng(0, 0, 5)).rows[0] for _ in range(2))
    other = objective.build(feature(), training_rng(0, 1, 5)).rows[0]
    assert list(first.tokens) == list(again.tokens)
    assert list(first.positions[HEAD]) != list(other.positions[HEAD])  # another epoch, another mask


def test_special_tokens_are_never_predicted() -> None:
    objective = Objective(bert.TRAITS, SPECIALS, Options(mask_rate=0.99))
    text = np.array([4, 10, 11, 4])
    row = objective.build(feature(text), training_rng(0, 0, 0)).rows[0]
    assert list(row.targets[HEAD]) == [10, 11]
    only_specials = objective.build(feature(np.array([4])), training_rng(0, 0, 0)).rows[0]
    assert len(only_specials.positions[HEAD]) == 0


def test_windows_leave_room_for_the_frame() -> None:
    objective = Objective(bert.TRAITS, SPECIALS)
    window = Objective.window_spec(SPECIALS, 16)
    assert window.length == 14
    assert objective.length_bounds(np.array([[window.length]])).tolist() == [16]


def test_contexts_are_the_true_tokens() -> None:
    objective = Objective(bert.TRAITS, SPECIALS, Options(mask_rate=0.99))
    example = objective.build(feature(), training_rng(0, 0, 0))
    previous, target = Objective.ngram_contexts(feature(), example, SPECIALS)
    assert all((p == -1 and t == 10) or t == p + 1 for p, t in zip(previous, target, strict=True))


def words_of(text: str) -> tuple[Feature, list[str]]:
    """A text of one token a character, with its word starts as the shards store them."""
    offsets = np.array([[i, i + 1] for i in range(len(text))], np.int64)
    flags = find_word_starts(text, offsets)
    return Feature(7, 0, (np.arange(10, 10 + len(text)),), word_starts=(flags,)), list(text)


def hidden_words(text: str, seed: int) -> str:
    """The text with the places that are predicted shown as underscores."""
    read, characters = words_of(text)
    objective = Objective(bert.TRAITS, SPECIALS, Options(whole_words=True))
    row = objective.build(read, training_rng(seed, 0, 0)).rows[0]
    for place in row.positions[HEAD] - 1:
        characters[place] = "_"
    return "".join(characters)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("the captain saw a ship",
         {"___ captain saw a ship", "the captain ___ a ship", "the captain saw a ____"}),
        ("明天我们去北京图书馆看书",
         {"__我们去北京图书馆看书", "明天__去北京图书馆看书", "明天我们去__图书馆看书",
          "明天我们去北京___看书", "明天我们去北京图书馆__"}),
    ],
)  # fmt: skip
def test_whole_words_are_hidden_together(text: str, expected: set[str]) -> None:
    """2 or 3 places are chosen: whole words only, be they English or Chinese."""
    found = {hidden_words(text, seed) for seed in range(200)}
    assert expected <= found
    for said in found:
        at = 0
        for word in re.findall(r"[a-z]+|明天|我们|去|北京|图书馆|看书| ", text):
            piece = said[at : at + len(word)]
            assert piece in (word, "_" * len(word)), said
            at += len(word)


def test_whole_words_keep_the_rate() -> None:
    """Words of 1 to 9 tokens: the share of places is the same as without words, on average."""
    draw = np.random.default_rng(0)
    sizes = draw.integers(1, 10, 40)
    flags = np.zeros(int(sizes.sum()), np.uint8)
    flags[np.cumsum(sizes) - sizes] = 1
    read = Feature(0, 0, (np.full(len(flags), 50),), word_starts=(flags,))
    objective = Objective(bert.TRAITS, SPECIALS, Options(whole_words=True))
    counts = [len(objective.build(read, training_rng(0, n, 0)).rows[0].positions[HEAD]) for n in range(2000)]
    # The number is right but for the last word: its deviation is below 4, and below 0.1 for the mean.
    assert np.mean(counts) == pytest.approx(round(0.15 * len(flags)), abs=0.3)


def test_whole_words_need_to_know_of_words() -> None:
    objective = Objective(bert.TRAITS, SPECIALS, Options(whole_words=True))
    with pytest.raises(DataError, match="whole_words"):
        objective.build(feature(), training_rng(0, 0, 0))


def hidden_stretches(text: str, seed: int, **options: Any) -> list[int]:
    """Words (tokens, without ``whole_words``) of each stretch that is predicted."""
    read, _ = words_of(text)
    objective = Objective(bert.TRAITS, SPECIALS, Options(**options))
    row = objective.build(read, training_rng(seed, 0, 0)).rows[0]
    hidden = np.zeros(len(row.tokens) + 1, bool)
    hidden[row.positions[HEAD]] = True
    ends = np.flatnonzero(np.diff(hidden.astype(int), prepend=0)).reshape(-1, 2)
    return [int(end - begin) for begin, end in ends]


def test_stretches_by_eye() -> None:
    """15 % of 20 letters are three: in a row, two and one apart, or three apart."""
    found = {
        tuple(sorted(hidden_stretches("abcdefghijklmnopqrst", seed, max_ngram=3))) for seed in range(200)
    }
    assert found == {(3,), (1, 2), (1, 1, 1)}
    assert {
        tuple(hidden_stretches("abcdefghijklmnopqrst", s, max_ngram=3, mask_rate=0.02)) for s in range(9)
    } == {(1,)}


def test_stretches_of_whole_words() -> None:
    """Four of 17 places: no word is hidden in part, and neighbours are hidden together."""
    text = "to be or not to be"
    read, letters = words_of(text)
    objective = Objective(bert.TRAITS, SPECIALS, Options(whole_words=True, max_ngram=3, mask_rate=0.25))
    found = set()
    for seed in range(300):
        places = objective.build(read, training_rng(seed, 0, 0)).rows[0].positions[HEAD] - 1
        assert len(places) <= 4
        found.add("".join("_" if place in places else letter for place, letter in enumerate(letters)))
    assert {"to____or not to be", "to be or____ to be"} <= found  # three in a row: a space is one, too
    for said in found:
        at = 0
        for word in re.findall(r"[a-z]+| ", text):
            assert said[at : at + len(word)] in (word, "_" * len(word)), said
            at += len(word)


def alberts_choice(units: list[list[int]], number: int, longest: int, draw: np.random.Generator) -> list[int]:
    """The places that `create_masked_lm_predictions` of google-research/albert hides, of the same draws."""
    ngrams = np.arange(1, longest + 1)
    pvals = 1.0 / np.arange(1, longest + 1)
    pvals /= pvals.sum(keepdims=True)
    sets = [[units[idx : idx + n] for n in ngrams] for idx in range(len(units))]
    covered: set[int] = set()
    for cand_index_set in [sets[i] for i in draw.permutation(len(sets))]:
        if len(covered) >= number:
            break
        n = draw.choice(ngrams, p=pvals)
        index_set = [index for unit in cand_index_set[n - 1] for index in unit]
        n -= 1
        while len(covered) + len(index_set) > number:
            if n == 0:
                break
            index_set = [index for unit in cand_index_set[n - 1] for index in unit]
            n -= 1
        if len(covered) + len(index_set) > number or covered & set(index_set):
            continue
        covered |= set(index_set)
    return sorted(covered)


@pytest.mark.parametrize("longest", [2, 3, 5])
@pytest.mark.parametrize("whole_words", [False, True])
def test_stretches_are_those_of_albert(longest: int, whole_words: bool) -> None:
    for seed in range(100):
        sizes = np.random.default_rng(seed).integers(1, 4 if whole_words else 2, 40)
        words = np.repeat(np.arange(40), sizes)
        places = np.arange(len(words)) + 1
        units = [places[words == word].tolist() for word in range(40)]
        number = round(0.15 * len(words))
        found = ngram_mask(places, words, number, longest, np.random.default_rng(seed))
        assert places[found].tolist() == alberts_choice(units, number, longest, np.random.default_rng(seed))


def test_lengths_of_stretches_over_many_draws() -> None:
    """So small a share that stretches hardly touch, and so much text that the last ones do not matter."""
    objective = Objective(bert.TRAITS, SPECIALS, Options(max_ngram=3, mask_rate=0.01))
    sizes: list[int] = []
    for seed in range(30):
        row = objective.build(feature(np.tile(np.arange(10, 60), 200)), training_rng(0, seed, 0)).rows[0]
        assert len(row.positions[HEAD]) == 100
        gaps = np.flatnonzero(np.diff(row.positions[HEAD]) > 1)
        sizes += np.diff(np.concatenate([[-1], gaps, [99]])).tolist()
    shares = np.bincount(sizes, minlength=4)[1:4] / len(sizes)
    expected = np.array([1, 1 / 2, 1 / 3]) / (11 / 6)
    assert np.abs(shares - expected).max() < 4 * (0.25 / len(sizes)) ** 0.5 + 0.02


def test_no_stretch_spans_a_special_token() -> None:
    objective = Objective(bert.TRAITS, SPECIALS, Options(max_ngram=3, mask_rate=0.5))
    for seed in range(50):
        row = objective.build(feature(np.array([10, 4, 11, 4, 12, 13])), training_rng(seed, 0, 0)).rows[0]
        assert row.tokens[[2, 4]].tolist() == [4, 4]
        assert len(row.positions[HEAD]) == 2


def test_refuses_what_cannot_be() -> None:
    with pytest.raises(UnsupportedError, match="masked_lm"):
        Objective(llama.TRAITS, SPECIALS)
    with pytest.raises(UnsupportedError, match="mask token"):
        Objective(bert.TRAITS, SpecialTokens(vocabulary_size=10, pad_id=0))


# -- a rate that changes over the run --------------------------------------------------------------


def falling(**options: Any) -> Objective:
    return Objective(bert.TRAITS, SPECIALS, Options(mask_rate=0.4, final_mask_rate=0.15, **options))


@pytest.mark.parametrize(
    ("progress", "places"),
    [(0.0, [2, 5, 10, 12, 13, 16, 18, 19]), (0.5, [2, 6, 14, 15, 18, 20]), (1.0, [6, 16, 18])],
)
def test_the_places_at_the_start_in_the_middle_and_at_the_end(progress: float, places: list[int]) -> None:
    """Of 20 tokens 40 % are 8, 27.5 % are 6 (5.5, to even), 15 % are 3."""
    row = falling().at_step(0, progress).build(feature(), training_rng(0, 0, 0)).rows[0]
    assert row.positions[HEAD].tolist() == places
    fixed = Objective(bert.TRAITS, SPECIALS, Options(mask_rate=0.4 - 0.25 * progress))
    assert list(row.tokens) == list(fixed.build(feature(), training_rng(0, 0, 0)).rows[0].tokens)


@pytest.mark.parametrize("options", [{}, {"whole_words": True}, {"max_ngram": 3}])
def test_shares_at_the_start_in_the_middle_and_at_the_end(options: dict[str, Any]) -> None:
    draw = np.random.default_rng(1)
    starts_of_words = (draw.random(1000) < 0.6).astype(np.uint8)  # words of 1.7 tokens on average
    long = Feature(7, 0, (np.tile(np.arange(10, 60), 20),), word_starts=(starts_of_words,))
    for progress, share in ((0.0, 0.4), (0.25, 0.3375), (0.5, 0.275), (1.0, 0.15)):
        objective = falling(**options).at_step(0, progress)
        rows = [objective.build(long, training_rng(0, epoch, 0)).rows[0] for epoch in range(40)]
        found = [len(row.positions[HEAD]) for row in rows]
        assert np.mean(found) / 1000 == pytest.approx(share, abs=0.002)
        masked = np.mean(
            np.concatenate([row.tokens[row.positions[HEAD]] == SPECIALS.mask_id for row in rows])
        )
        assert masked == pytest.approx(0.8, abs=0.02)  # the fates of the places stay 80 / 10 / 10


def test_without_an_end_the_rate_stays() -> None:
    objective = Objective(bert.TRAITS, SPECIALS)
    assert objective.at_step(0, 0.7) is objective


def test_beside_another_objective_the_rate_changes_too() -> None:
    kind = parse_objective("masked_lm+sentence_order")
    combined = kind.build_objective(bert.TRAITS, SPECIALS, {"mask_rate": 0.4, "final_mask_rate": 0.15})
    whole = Feature(7, 0, (TEXT,), word_starts=(np.full(20, 3, np.uint8),))
    counts = []
    for progress in (0.0, 1.0):
        row = combined.at_step(0, progress).build(whole, training_rng(0, 0, 0)).rows[0]
        counts.append(len(row.positions[HEAD]))
        assert len(row.positions["next_sentence"]) == 1
    assert counts == [8, 3]


def test_an_end_that_is_no_share_is_refused() -> None:
    with pytest.raises(ConfigError, match="final_mask_rate"):
        parse_objective("masked_lm").check_options({"final_mask_rate": 1.5}, "objective_options")
