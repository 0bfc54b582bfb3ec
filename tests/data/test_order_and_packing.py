"""The order drops and repeats nothing; the grid holds what a naive one holds."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pretune.data.order import MixtureSampler, StepPlan, training_rng, validation_rng
from pretune.data.packing import collate, group_by_length, pack, pack_tight
from pretune.errors import ConfigError
from pretune.types import IGNORE_INDEX, Example, Row

bounds = st.lists(st.integers(1, 30), min_size=1, max_size=40)


@settings(max_examples=150, deadline=None)
@given(bounds=bounds, extra=st.integers(0, 100), seed=st.integers(-5, 1 << 70))
def test_every_feature_once_an_epoch_and_no_step_empty(bounds: list[int], extra: int, seed: int) -> None:
    per_step = max(bounds) + extra
    plan = StepPlan(np.array(bounds), per_step, seed, "data")
    steps = [plan.step(s) for s in range(int(3 * plan.steps_per_epoch) + 2)]
    assert all(steps)
    laid = list(itertools.chain(*steps))
    assert [epoch for epoch, _ in laid] == sorted(epoch for epoch, _ in laid)
    for epoch in range(3):
        assert sorted(f for e, f in laid if e == epoch) == list(range(len(bounds)))
    at = 0
    for s, step in enumerate(steps):  # each feature in the step in which it starts
        for _, feature in step:
            assert at // per_step == s
            at += bounds[feature]
    for s in (len(steps) - 1, 0, len(steps) // 2):  # a step alone is the step of the sequence
        assert StepPlan(np.array(bounds), per_step, seed, "data").step(s) == steps[s]
        assert plan.step(s) == steps[s]


def test_seed_and_data_and_epoch_change_the_order() -> None:
    ones = np.ones(100, np.int64)
    made = [StepPlan(ones, 100, seed, data).step(s) for seed in (0, 1) for data in "ab" for s in (0, 1)]
    assert len({tuple(feature for _, feature in step) for step in made}) == len(made)


def test_a_step_that_could_be_empty_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"a step of 9 is smaller than the longest example \(10\)"):
        StepPlan(np.array([1, 10]), 9, 0, "")


def test_generators_are_keyed() -> None:
    draws = [training_rng(s, e, f).integers(1 << 60) for s in (0, 1) for e in (0, 1) for f in (0, 1)]
    draws += [validation_rng(f).integers(1 << 60) for f in (0, 1)]
    assert len(set(draws)) == len(draws)
    assert training_rng(3, 4, 5).integers(1 << 60) == training_rng(3, 4, 5).integers(1 << 60)


@settings(max_examples=150, deadline=None)
@given(bounds=bounds, capacity=st.integers(30, 64))
def test_packing_is_first_fit_decreasing(bounds: list[int], capacity: int) -> None:
    naive: list[list[int]] = []
    for i in sorted(range(len(bounds)), key=lambda i: (-bounds[i], i)):
        fits = [row for row in naive if sum(bounds[j] for j in row) + bounds[i] <= capacity]
        if fits:
            fits[0].append(i)
        else:
            naive.append([i])
    assert pack(bounds, capacity) == naive


def test_packing_says_what_does_not_fit() -> None:
    assert pack([], 4) == []
    with pytest.raises(ConfigError, match="example 1 needs 5 places, a row has 4"):
        pack([4, 5], 4)


@settings(max_examples=150, deadline=None)
@given(bounds=st.lists(st.integers(1, 30), max_size=40), capacity=st.integers(30, 400))
def test_tight_rows_hold_each_example_once_and_cost_no_more(bounds: list[int], capacity: int) -> None:
    def grid(rows: list[list[int]]) -> tuple[int, int]:
        return len(rows), max((sum(bounds[i] for i in row) for row in rows), default=0)

    tight, wide = pack_tight(bounds, capacity), pack(bounds, capacity)
    assert sorted(i for row in tight for i in row) == list(range(len(bounds)))
    (rows, width), (others, widest) = grid(tight), grid(wide)
    assert width <= capacity
    assert rows * width * (768 + width) <= others * widest * (768 + widest)


def test_a_few_short_texts_lie_in_narrow_rows() -> None:
    """Sixteen of 20 tokens would fill a row of 320 of 512: attention in it costs more than in four of 80."""
    assert [len(row) for row in pack_tight([20] * 16, 512)] == [1] * 16
    assert [len(row) for row in pack_tight([20] * 8 + [10] * 16, 512)] == [1] * 8 + [2] * 8
    with pytest.raises(ConfigError, match="example 1 needs 5 places, a row has 4"):
        pack_tight([4, 5], 4)


def test_similar_lengths_lie_together() -> None:
    assert group_by_length([3, 9, 3, 8, 1], 2) == [[1, 3], [0, 2], [4]]


def example(feature: int, sizes: list[int], generator: np.random.Generator) -> Example:
    rows = []
    for size in sizes:
        places = np.sort(generator.choice(size, generator.integers(0, size + 1), replace=False))
        targets = generator.integers(0, 50, len(places))
        targets[: len(targets) // 3] = IGNORE_INDEX
        rows.append(
            Row(
                tokens=generator.integers(1, 50, size),
                positions={"lm": places, "sentence": np.array([0])},
                targets={"lm": targets, "sentence": generator.random((1, 2))},
                segments=generator.integers(0, 2, size),
                source_tokens=generator.integers(1, 50, size + 1),
            )
        )
    return Example(feature, tuple(rows))


@settings(max_examples=100, deadline=None)
@given(
    shape=st.lists(
        st.lists(st.lists(st.integers(1, 6), min_size=1, max_size=3), min_size=1, max_size=3),
        min_size=1,
        max_size=4,
    ),
    packed=st.booleans(),
    multiple=st.sampled_from([1, 8]),
    seed=st.integers(0, 99),
)
def test_the_grid_is_the_naive_one(
    shape: list[list[list[int]]], packed: bool, multiple: int, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    numbers = itertools.count(100)
    groups = [[example(next(numbers), sizes, generator) for sizes in members] for members in shape]
    batch = collate(
        groups, pad_id=0, heads=("lm", "sentence"), pad_to_multiple_of=multiple, segments=True, packed=packed
    )
    lines = [[(row, e.record) for e in members for row in e.rows] for members in groups]
    if not packed:
        lines = [[item] for line in lines for item in line]
    longest = max(sum(len(row.tokens) for row, _ in line) for line in lines)
    width = -(-longest // multiple) * multiple
    assert batch.tokens.shape == (len(lines), width)
    read = {"lm": [], "sentence": []}
    for b, line in enumerate(lines):
        tokens = np.concatenate([row.tokens for row, _ in line])
        used, rest = len(tokens), width - len(tokens)
        assert batch.layout.lengths[b] == used
        assert batch.tokens[b].tolist() == [*tokens, *[0] * rest]
        segments = np.concatenate([row.segments for row, _ in line])
        assert batch.layout.segments[b].tolist() == [*segments, *[0] * rest]
        source = np.concatenate([row.source_tokens for row, _ in line])
        assert batch.source_tokens[b, : len(source)].tolist() == source.tolist()
        assert batch.source_layout.lengths[b] == len(source)
        if batch.layout.documents is not None:
            documents = [n for n, (row, _) in enumerate(line) for _ in row.tokens]
            assert batch.layout.documents[b].tolist() == documents + [-1] * rest
            positions = [p for row, _ in line for p in range(len(row.tokens))]
            assert batch.layout.position_ids[b].tolist() == positions + [0] * rest
        at = b * width
        for row, _ in line:
            for head, places in row.positions.items():
                read[head] += (places + at).tolist()
            at += len(row.tokens)
    several = any(len(line) > 1 for line in lines)
    assert (batch.layout.documents is None) == (batch.layout.position_ids is None) == (not several)
    flat = [row for line in lines for row, _ in line]
    for head, places in read.items():
        assert batch.positions[head].tolist() == places
    lm = np.concatenate([row.targets["lm"] for row in flat])
    assert batch.targets["lm"].tolist() == lm.tolist()
    assert batch.counts == {"lm": int((lm != IGNORE_INDEX).sum()), "sentence": len(flat)}
    assert batch.targets["sentence"].shape == (len(flat), 2)
    assert batch.targets["sentence"].dtype == torch.float32
    numbers_by_record = {e.record: n for n, e in enumerate(e for members in groups for e in members)}
    rows = [
        (numbers_by_record[e.record], n) for members in groups for e in members for n in range(len(e.rows))
    ]
    counts = [len(row.positions["lm"]) for row in flat]
    assert batch.example.tolist() == np.repeat([number for number, _ in rows], counts).tolist()
    assert batch.row.tolist() == np.repeat([number for _, number in rows], counts).tolist()


def test_a_prefix_goes_with_its_row() -> None:
    def alone(size: int, prefix: int | None) -> Example:
        return Example(0, (Row(np.arange(size), {}, {}, prefix_length=prefix),))

    assert collate([[alone(3, 2)], [alone(5, 1)]], pad_id=0, heads=()).layout.prefix_lengths.tolist() == [
        2,
        1,
    ]
    assert collate([[alone(3, None)]], pad_id=0, heads=()).layout.prefix_lengths is None
    for wrong in ([[alone(3, 2), alone(5, 1)]], [[alone(3, 2)], [alone(5, None)]]):
        with pytest.raises(AssertionError, match="prefix"):
            collate(wrong, pad_id=0, heads=())


def test_without_targets_or_segments_there_are_none() -> None:
    rows = (Row(np.arange(3), {"lm": np.array([2])}, {}),)
    batch = collate([[Example(0, rows)]], pad_id=0, heads=("lm", "other"), segments=True)
    assert (batch.targets, batch.counts, batch.layout.segments) == ({}, {}, None)
    assert batch.positions["lm"].tolist() == [2]
    assert batch.positions["other"].tolist() == []


DRAWN = [0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 1, 0, 0, 2, 0, 0]


def test_the_parts_that_a_seed_draws() -> None:
    assert [part for part, _ in MixtureSampler([0.7, 0.2, 0.1], seed=0).draw(0, 24)] == DRAWN
    assert MixtureSampler([0.7, 0.2, 0.1], seed=1).draw(0, 24) != MixtureSampler(
        [0.7, 0.2, 0.1], seed=0
    ).draw(0, 24)
    assert MixtureSampler([5.0], seed=0).draw(7, 10) == [(0, 7), (0, 8), (0, 9)]


@pytest.mark.parametrize("weights", [[0.7, 0.2, 0.1], [1, 1], [3, 2, 0.001]])
def test_each_part_is_drawn_by_its_weight_and_its_pieces_are_counted(weights: list[float]) -> None:
    count = 20_000  # across blocks
    drawn = MixtureSampler(weights, seed=5).draw(0, count)
    for part, weight in enumerate(weights):
        share = weight / sum(weights)
        own = [number for chosen, number in drawn if chosen == part]
        assert own == list(range(len(own)))  # one after another, none left out
        assert len(own) / count == pytest.approx(share, abs=1 / 64)
        for start in range(0, count - 64, 64):
            among = sum(chosen == part for chosen, _ in drawn[start : start + 64])
            assert abs(among - 64 * share) < 2
    pairs = np.bincount([2 * (a[0] > 0) + (b[0] > 0) for a, b in itertools.pairwise(drawn)], minlength=4)
    rest = 1 - weights[0] / sum(weights)
    assert pairs[3] / pairs.sum() == pytest.approx(
        rest * rest, rel=0.1
    )  # neighbours know little of each other
    for low, high in ((0, 3), (4090, 4100), (19_990, count), (0, 3)):  # a piece alone is that of the whole
        assert MixtureSampler(weights, seed=5).draw(low, high) == drawn[low:high]
