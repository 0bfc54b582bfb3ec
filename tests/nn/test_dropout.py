"""Dropout against the binomial distribution and torch's own, and that a generator decides it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from pretune.nn import attention
from pretune.nn.dropout import Dropout, dropout
from pretune.types import Layout

N = 1 << 20


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_drops_the_share_that_is_asked(rate: float) -> None:
    torch.manual_seed(0)
    dropped = float((dropout(torch.ones(N), rate) == 0).double().mean())
    assert dropped == pytest.approx(rate, abs=5 * (rate * (1 - rate) / N) ** 0.5)


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_the_mean_stays(rate: float) -> None:
    torch.manual_seed(0)
    found = dropout(torch.ones(N), rate).double()
    assert float(found.mean()) == pytest.approx(1, abs=5 * (rate / (1 - rate) / N) ** 0.5)
    assert found.unique().tolist() == pytest.approx([0.0, 1 / (1 - rate)], rel=1e-4)


@pytest.mark.parametrize("apart", [1, 2, 3, 4, 5, 256])
def test_neighbours_are_independent(apart: int) -> None:
    """Four places share a draw: their bits must not know of each other."""
    torch.manual_seed(0)
    gone = (dropout(torch.ones(N), 0.25) == 0).double() - 0.25
    correlation = float((gone[apart:] * gone[:-apart]).mean()) / (0.25 * 0.75)
    assert abs(correlation) < 5 / N**0.5


@pytest.mark.parametrize("shape", [(1,), (3, 5), (7, 1, 3), (0, 4)])
def test_takes_any_shape_and_keeps_it(shape: tuple[int, ...]) -> None:
    values = torch.randn(shape)
    assert dropout(values, 0.3).shape == values.shape
    assert dropout(values.T if values.ndim == 2 else values, 0.3).numel() == values.numel()


def test_the_generator_decides() -> None:
    found = []
    for threads, seed in ((1, 3), (2, 3), (2, 4)):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        torch.manual_seed(seed)
        found.append(dropout(torch.ones(512, 512), 0.1))
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[1], found[2])


def test_gradients_pass_where_values_do() -> None:
    values = torch.randn(64, 64, requires_grad=True)
    torch.manual_seed(0)
    kept = dropout(values, 0.4)
    kept.sum().backward()
    assert values.grad is not None
    assert torch.equal(values.grad == 0, kept == 0)


def test_nothing_is_dropped_outside_training() -> None:
    layer = Dropout(0.5).eval()
    values = torch.randn(8, 8)
    assert layer(values) is values
    assert Dropout(0.0)(values) is values
    assert isinstance(layer, nn.Module)


def layouts() -> list[Layout]:
    documents = torch.tensor([[0, 0, 0, 1, 1, -1]]).expand(3, 6)
    return [Layout(lengths=torch.tensor([6, 3, 5])), Layout(torch.full((3,), 5), documents=documents)]


@pytest.mark.parametrize("layout", layouts())
@pytest.mark.parametrize("causal", [False, True])
def test_attention_with_dropout_is_attention_on_average(layout: Layout, causal: bool) -> None:
    torch.manual_seed(0)
    plan = attention.build_mask(layout, 6, causal=causal)
    query, key, value = torch.randn(3, 4, 6, 8), torch.randn(3, 2, 6, 8), torch.randn(3, 2, 6, 8)
    exact = attention.attend(query, key, value, plan)
    total: Tensor = torch.zeros_like(exact)
    for _ in range(4000):
        total += attention.attend(query, key, value, plan, dropout=0.1)
    # A weight w adds w * v times a factor of deviation 1/3: |error| < 6 deviations of the mean.
    torch.testing.assert_close(total / 4000, exact, atol=6 * 3 / 3 / 4000**0.5, rtol=0)
    torch.testing.assert_close(attention.attend(query, key, value, plan, dropout=1e-9), exact)
