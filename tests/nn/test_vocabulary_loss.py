"""The loss over a vocabulary: equal to the plain one, in every precision, and without its memory."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pretune.nn.vocabulary_loss import MIN_CHUNK_ROWS, vocabulary_loss, vocabulary_nll
from pretune.types import IGNORE_INDEX


def inputs(places: int, width: int, vocabulary: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    hidden = torch.randn(places, width, requires_grad=True)
    weight = (torch.randn(vocabulary, width) * 0.1).requires_grad_()
    bias = torch.randn(vocabulary, requires_grad=True)
    targets = torch.randint(0, vocabulary, (places,))
    targets[::3] = IGNORE_INDEX
    return hidden, weight, bias, targets


@pytest.mark.parametrize("with_bias", [True, False])
def test_several_chunks_equal_the_plain_loss(with_bias: bool) -> None:
    hidden, weight, bias, targets = inputs(3 * MIN_CHUNK_ROWS + 5, 8, 20_000)
    given = [hidden, weight, bias] if with_bias else [hidden, weight]
    offset = bias if with_bias else None
    plain = F.cross_entropy(
        F.linear(hidden, weight, offset), targets, reduction="sum", ignore_index=IGNORE_INDEX
    )
    ours = vocabulary_loss(hidden, weight, offset, targets)
    torch.testing.assert_close(ours, plain)
    pairs = zip(torch.autograd.grad(ours / 7, given), torch.autograd.grad(plain / 7, given), strict=True)
    for mine, reference in pairs:
        torch.testing.assert_close(mine, reference, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("smoothing", [0.1, 0.7])
def test_smoothed_equals_the_plain_loss_smoothed(smoothing: float) -> None:
    """As torch smooths, over several chunks, gradients included."""
    hidden, weight, bias, targets = inputs(2 * MIN_CHUNK_ROWS + 5, 8, 20_000)
    plain = F.cross_entropy(
        F.linear(hidden, weight, bias),
        targets, reduction="sum", ignore_index=IGNORE_INDEX, label_smoothing=smoothing,
    )  # fmt: skip
    ours = vocabulary_loss(hidden, weight, bias, targets, smoothing)
    torch.testing.assert_close(ours, plain)
    given = [hidden, weight, bias]
    pairs = zip(torch.autograd.grad(ours / 7, given), torch.autograd.grad(plain / 7, given), strict=True)
    for mine, reference in pairs:
        torch.testing.assert_close(mine, reference, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_of_each_position_equals_the_plain_one(smoothing: float) -> None:
    """Over several chunks, with a weight for each position that the forward pass does not know."""
    hidden, weight, bias, targets = inputs(2 * MIN_CHUNK_ROWS + 5, 8, 20_000)
    plain = F.cross_entropy(
        F.linear(hidden, weight, bias),
        targets, reduction="none", ignore_index=IGNORE_INDEX, label_smoothing=smoothing,
    )  # fmt: skip
    ours = vocabulary_nll(hidden, weight, bias, targets, smoothing)
    torch.testing.assert_close(ours, plain)
    given, weights = [hidden, weight, bias], torch.linspace(-1, 1, len(hidden))
    mine, theirs = (torch.autograd.grad((nll * weights).sum(), given) for nll in (ours, plain))
    for own, reference in zip(mine, theirs, strict=True):
        torch.testing.assert_close(own, reference, atol=1e-5, rtol=1e-4)
    with torch.no_grad():
        torch.testing.assert_close(vocabulary_nll(hidden, weight, bias, targets, smoothing), plain)


def test_targets_without_a_chance_cost_what_the_plain_loss_says() -> None:
    """Chances of 0 in fp32: their logarithm would be minus infinity."""
    hidden, weight, bias, targets = inputs(50, 8, 300)
    far = (hidden * 1000).detach().requires_grad_()
    plain = F.cross_entropy(F.linear(far, weight, bias), targets, reduction="sum", ignore_index=IGNORE_INDEX)
    ours = vocabulary_loss(far, weight, bias, targets)
    assert plain > 1000 * len(targets) / 10
    torch.testing.assert_close(ours, plain)
    given = [far, weight, bias]
    pairs = zip(torch.autograd.grad(ours, given), torch.autograd.grad(plain, given), strict=True)
    for mine, reference in pairs:
        torch.testing.assert_close(mine, reference, atol=1e-3, rtol=1e-4)


def test_no_place_gives_no_loss_and_gradients_of_zero() -> None:
    hidden, weight, bias, targets = inputs(0, 8, 50)
    loss = vocabulary_loss(hidden, weight, bias, targets)
    loss.backward()
    assert loss == 0
    assert weight.grad is not None
    assert not weight.grad.any()


def test_half_precision_by_autocast_learns_the_same() -> None:
    hidden, weight, bias, targets = inputs(40, 16, 300)
    exact = torch.autograd.grad(vocabulary_loss(hidden, weight, bias, targets), (hidden, weight, bias))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = vocabulary_loss(hidden, weight, bias, targets)
    assert loss.dtype == torch.float32
    for half, full in zip(torch.autograd.grad(loss, (hidden, weight, bias)), exact, strict=True):
        assert half.dtype == torch.float32
        assert F.cosine_similarity(half.flatten(), full.flatten(), dim=0) > 0.999  # 8 bits of mantissa


def test_a_second_backward_pass_is_refused() -> None:
    """The gradient is scaled where it lies: twice would be wrong."""
    hidden, weight, bias, targets = inputs(5, 4, 7)
    loss = vocabulary_loss(hidden, weight, bias, targets)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="inplace"):
        loss.backward()
