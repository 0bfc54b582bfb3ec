"""A loss that needs the whole step: its gradient is the same however the step is divided."""

from __future__ import annotations

import contrastive
import pytest
import torch


def distance(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("packing", [False, True])
@pytest.mark.parametrize("micro_batch", [8, 4, 2, 1])
def test_the_gradient_is_that_of_one_pass_over_the_whole_step(micro_batch: int, packing: bool) -> None:
    """To 1e-5 in L2: sums are rounded in another order."""
    loss, gradient = contrastive.gradient(micro_batch, packing=packing)
    expected_loss, expected = contrastive.reference()
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    assert distance(gradient, expected) < 1e-5


def test_both_passes_draw_the_same_dropout() -> None:
    """Of the loss that is reported and of the gradient: else the step would not be that of its seed."""
    (loss, gradient), (again, same) = (contrastive.gradient(4, dropout=0.3) for _ in range(2))
    assert loss == again
    assert torch.equal(gradient, same)
    plain, _ = contrastive.gradient(4)
    assert loss != plain
