"""Normalisation layers that torch does not have as we need them."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class RMSNorm(nn.Module):
    """Root mean square norm (Zhang & Sennrich 2019, section 3) over the last dimension, any shape."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, hidden: Tensor) -> Tensor:
        plain = hidden.device.type == "cpu" and hidden.dtype == self.weight.dtype == torch.float32
        if plain and torch.is_grad_enabled():
            normed: Tensor = _RMSNormFunction.apply(hidden, self.weight, self.eps)  # type: ignore[no-untyped-call]
            return normed
        # The fused kernel computes the mean in fp32 and equals Llama's formula bit for bit in fp32.
        return F.rms_norm(hidden, self.weight.shape, self.weight, self.eps)


class _RMSNormFunction(torch.autograd.Function):
    """What a CPU has no kernel for, in half the passes over memory that torch's own way makes."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, eps: float) -> Tensor:
        rows = hidden.reshape(-1, len(weight))  # (N, D)
        lengths = torch.linalg.vector_norm(rows, dim=-1, keepdim=True)  # (N, 1)
        scales = (lengths.square_() / len(weight)).add_(eps).rsqrt_()
        ctx.save_for_backward(rows, scales, weight)
        normed = hidden.new_empty(hidden.shape)  # and no view of it: FSDP2 hangs hooks on what a layer gives
        torch.mul(rows, scales, out=normed.view(rows.shape)).mul_(weight)
        return normed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, Tensor, None]:
        rows, scales, weight = ctx.saved_tensors
        grad_rows = grad_output.reshape(rows.shape)  # (N, D)
        # A layer norm is this norm of rows whose mean is 0: its kernel is told that they are. But then it
        # takes the mean of the gradient out, too, and that is put back.
        size, output_mask = [len(weight)], [True, True, False]
        mean = torch.zeros_like(scales)
        grad_input, of_weight, _ = torch.ops.aten.native_layer_norm_backward(
            grad_rows, rows, size, mean, scales, weight, None, output_mask
        )
        grad_input.add_((grad_rows @ weight)[:, None].mul_(scales).div_(len(weight)))  # (N, D)
        return grad_input.view(grad_output.shape), of_weight, None
