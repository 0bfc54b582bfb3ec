"""Rotary positions turn pairs of dimensions by an angle that depends on the distance alone."""

from __future__ import annotations

import pytest
import torch
import transformers

from pretune.nn.positions import (
    apply_rotary,
    build_position_ids,
    relative_shift,
    relative_sinusoids,
    rotary_tables,
)
from pretune.types import Layout


def test_products_depend_on_the_distance_alone() -> None:
    torch.manual_seed(0)
    query, key = torch.randn(2, 1, 1, 1, 16).double().unbind(0)

    def product(at: int, other: int) -> float:
        turned = [
            apply_rotary(x, rotary_tables(torch.tensor([[p]]), 16, 10_000.0))
            for x, p in ((query, at), (key, other))
        ]
        return float((turned[0] * turned[1]).sum())

    assert abs(product(7, 3) - product(107, 103)) < 1e-4  # the tables are in fp32
    assert abs(product(7, 3) - product(3, 7)) > 1e-2


def test_positions_follow_the_cache_or_the_data() -> None:
    lengths = torch.tensor([2, 2])
    assert build_position_ids(Layout(lengths), 3).tolist() == [[0, 1, 2]]
    assert build_position_ids(Layout(lengths, cache_lengths=torch.tensor([4, 0])), 2).tolist() == [
        [4, 5],
        [0, 1],
    ]
    given = torch.tensor([[0, 0], [0, 1]])
    assert build_position_ids(Layout(lengths, position_ids=given), 2) is given


def test_the_gradient_of_a_rotation_is_the_rotation_back() -> None:
    tables = rotary_tables(torch.tensor([[0, 3, 1, 7]]), 6, 100.0)
    heads = torch.randn(2, 4, 3, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda h: apply_rotary(h.transpose(1, 2), tables), heads)


@pytest.mark.parametrize(
    ("width", "size", "clamp"), [(5, 5, -1), (4, 9, -1), (1, 1, -1), (1, 3, 2), (6, 8, 3)]
)
def test_distances_are_those_of_stock_xlnet(width: int, size: int, clamp: int) -> None:
    config = transformers.XLNetConfig(
        vocab_size=8, d_model=8, n_layer=1, n_head=2, d_inner=8, clamp_len=clamp
    )
    stock = transformers.XLNetModel(config)
    wanted = stock.relative_positional_encoding(width, size)[:, 0]
    torch.testing.assert_close(relative_sinusoids(width, size, 8, clamp, torch.device("cpu")), wanted)


@pytest.mark.parametrize(("width", "size"), [(5, 5), (4, 9), (1, 1), (1, 3)])
def test_products_with_distances_become_products_with_keys(width: int, size: int) -> None:
    products = torch.randn(2, 3, width, size + width)
    wanted = torch.empty(2, 3, width, size)
    for place in range(width):
        for key in range(size):
            distance = size - width + place - key
            wanted[:, :, place, key] = products[:, :, place, size - distance]
    assert torch.equal(relative_shift(products, width, size), wanted)
    columns = torch.tensor([[width - 1, 0], [0, 0]])
    chosen = torch.stack([products[b, :, columns[b]] for b in range(2)])
    asked = torch.stack([wanted[b, :, columns[b]] for b in range(2)])
    assert torch.equal(relative_shift(chosen, width, size, columns), asked)
