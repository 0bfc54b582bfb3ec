"""The loss estimated from some words: all of them give the plain one, some give it on average."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pretune.nn.sampled_softmax import sampled_softmax_loss
from pretune.nn.vocabulary_loss import MIN_CHUNK_ROWS
from pretune.objectives.wrappers.sampled_softmax import inclusion_probabilities
from pretune.types import IGNORE_INDEX, NegativeSamples


def inputs(places: int, width: int, vocabulary: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    hidden = torch.randn(places, width, requires_grad=True)
    weight = (torch.randn(vocabulary, width) * 0.3).requires_grad_()
    bias = torch.randn(vocabulary, requires_grad=True)
    targets = torch.randint(0, vocabulary, (places,))
    targets[::3] = IGNORE_INDEX
    return hidden, weight, bias, targets


def every(vocabulary: int) -> NegativeSamples:
    return NegativeSamples(torch.arange(vocabulary), torch.zeros(vocabulary))


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("places", [1, 40, 2 * MIN_CHUNK_ROWS + 5])
def test_from_all_words_it_is_the_plain_loss(places: int, with_bias: bool) -> None:
    hidden, weight, bias, targets = inputs(places, 8, 20_000 if places > MIN_CHUNK_ROWS else 50)
    given = [hidden, weight, bias] if with_bias else [hidden, weight]
    offset = bias if with_bias else None
    plain = F.cross_entropy(
        F.linear(hidden, weight, offset), targets, reduction="sum", ignore_index=IGNORE_INDEX
    )
    ours = sampled_softmax_loss(hidden, weight, offset, targets, every(len(weight)))
    torch.testing.assert_close(ours, plain)
    pairs = zip(torch.autograd.grad(ours / 7, given), torch.autograd.grad(plain / 7, given), strict=True)
    for mine, reference in pairs:
        torch.testing.assert_close(mine, reference, atol=1e-5, rtol=1e-4)


def test_from_some_words_it_is_the_softmax_over_these_and_the_target() -> None:
    """Written out place by place, with its gradients by torch's own derivatives."""
    hidden, weight, bias, targets = inputs(20, 8, 50)
    ids = torch.tensor([0, 3, 4, 17, 30, 49])
    targets[1], targets[2] = 17, 5  # one that is a candidate, too, and one that is not
    corrections = torch.rand(len(ids))
    total = torch.zeros(())
    for state, target in zip(hidden, targets.tolist(), strict=True):
        if target == IGNORE_INDEX:
            continue
        others = [k for k, word in enumerate(ids.tolist()) if word != target]
        logits = F.linear(state, weight, bias)
        terms = torch.cat([logits[target, None], logits[ids[others]] + corrections[others]])
        total = total + terms.logsumexp(0) - logits[target]
    ours = sampled_softmax_loss(hidden, weight, bias, targets, NegativeSamples(ids, corrections))
    torch.testing.assert_close(ours, total)
    given = [hidden, weight, bias]
    pairs = zip(torch.autograd.grad(ours, given), torch.autograd.grad(total, given), strict=True)
    for mine, reference in pairs:
        torch.testing.assert_close(mine, reference, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_the_sum_under_the_softmax_is_right_on_average() -> None:
    """Over 4,000 draws: within four standard errors, about 1 %."""
    hidden, weight, bias, _ = inputs(1, 8, 200)
    target, logits = torch.tensor([11]), F.linear(hidden, weight, bias)[0]
    chances = torch.from_numpy(
        inclusion_probabilities(torch.arange(1, 201).double().numpy()[::-1] ** -1.0, 40)
    )
    torch.manual_seed(1)
    sums = []
    for _ in range(4000):
        ids = (torch.rand(200) < chances).nonzero()[:, 0]
        loss = sampled_softmax_loss(
            hidden, weight, bias, target, NegativeSamples(ids, -chances[ids].log().float())
        )
        sums.append((loss + logits[11]).exp())
    found = torch.stack(sums)
    error = float(found.std()) / len(found) ** 0.5
    assert error < 0.02 * float(logits.exp().sum())
    assert abs(float(found.mean() - logits.exp().sum())) < 4 * error


def test_without_gradients_nothing_is_kept() -> None:
    hidden, weight, bias, targets = inputs(10, 8, 50)
    with torch.no_grad():
        alone = sampled_softmax_loss(hidden, weight, bias, targets, every(50))
    assert not alone.requires_grad
    torch.testing.assert_close(alone, sampled_softmax_loss(hidden, weight, bias, targets, every(50)).detach())


def test_no_place_gives_no_loss_and_gradients_of_zero() -> None:
    hidden, weight, bias, targets = inputs(0, 8, 50)
    loss = sampled_softmax_loss(hidden, weight, bias, targets, every(50))
    loss.backward()
    assert loss == 0
    assert weight.grad is not None
    assert not weight.grad.any()


def test_half_precision_by_autocast_learns_the_same() -> None:
    hidden, weight, bias, targets = inputs(40, 16, 300)
    exact = torch.autograd.grad(
        sampled_softmax_loss(hidden, weight, bias, targets, every(300)), (hidden, weight, bias)
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = sampled_softmax_loss(hidden, weight, bias, targets, every(300))
    halves = torch.autograd.grad(loss, (hidden, weight, bias))
    for half, whole in zip(halves, exact, strict=True):
        assert half.dtype == whole.dtype
        assert (half - whole).norm() < 0.02 * whole.norm()
