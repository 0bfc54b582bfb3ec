"""Normalisation layers that torch does not have as we need them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class RMSNorm(nn.Module):
    """Root mean square norm (Zhang & Sennrich 2019, section 3) over the last dimension, any shape."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, hidden: Tensor) -> Tensor:
        # The fused kernel computes the mean in fp32 and equals Llama's formula bit for bit in fp32.
        return F.rms_norm(hidden, self.weight.shape, self.weight, self.eps)
