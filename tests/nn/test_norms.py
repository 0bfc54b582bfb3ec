"""The root mean square norm: torch's own, and its gradients."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from pretune.nn.norms import RMSNorm


@pytest.mark.parametrize("shape", [(3, 16), (2, 5, 16), (2, 5, 4, 16)])
@pytest.mark.parametrize("size", [1.0, 1e-3, 1e4])
def test_values_and_gradients_are_those_of_torch(shape: tuple[int, ...], size: float) -> None:
    torch.manual_seed(0)
    norm = RMSNorm(16, 1e-6)
    torch.nn.init.uniform_(norm.weight, 0.5, 1.5)
    hidden = (torch.randn(shape) * size).requires_grad_()
    upstream = torch.randn(shape)
    found = norm(hidden)
    reference = F.rms_norm(hidden, (16,), norm.weight, 1e-6)
    torch.testing.assert_close(found, reference, atol=1e-6, rtol=1e-5)  # rounding alone
    given = (hidden, norm.weight)
    for ours, theirs in zip(
        torch.autograd.grad(found, given, upstream),
        torch.autograd.grad(reference, given, upstream),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-5 / min(size, 1.0), rtol=1e-4)


def test_heads_that_are_turned_in_memory() -> None:
    """Queries come as a view whose rows do not follow each other."""
    torch.manual_seed(0)
    norm = RMSNorm(8, 1e-6)
    hidden = torch.randn(2, 3, 4, 8).transpose(1, 2).requires_grad_()
    norm(hidden).square().sum().backward()
    other = hidden.detach().clone().requires_grad_()
    F.rms_norm(other, (8,), norm.weight, 1e-6).square().sum().backward()
    torch.testing.assert_close(hidden.grad, other.grad, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_precisions_keep_their_type(dtype: torch.dtype) -> None:
    norm = RMSNorm(8, 1e-6).to(dtype)
    hidden = torch.randn(3, 8, dtype=dtype, requires_grad=True)
    found = norm(hidden)
    found.sum().backward()
    assert found.dtype == dtype
    assert hidden.grad is not None
    torch.testing.assert_close(found, F.rms_norm(hidden, (8,), norm.weight, 1e-6))
