"""Dropout whose random numbers are cheap on a CPU."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEVELS = 1 << 16
"""A place costs 16 random bits, four places a draw: the share that is dropped is exact to 1 / 131,072."""


class Dropout(nn.Module):
    """Zeroes a share of the values in training (Srivastava et al. 2014), as ``nn.Dropout`` does."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, values: Tensor) -> Tensor:
        """Any shape, which stays."""
        return dropout(values, self.rate) if self.training else values

    def extra_repr(self) -> str:
        """What a printed network says of it."""
        return f"rate={self.rate}"


def dropout(values: Tensor, rate: float) -> Tensor:
    """Zero a share ``rate`` of the values and scale the others so that the mean stays; no ``rate``: as is.

    Drawn from torch's generator, and the same for any number of threads. torch's own draws a whole random
    number a place on a CPU, which takes five times as long.
    """
    threshold = round(rate * LEVELS)
    if not threshold:
        return values
    if values.device.type != "cpu":
        return F.dropout(values, rate)
    return values * _scaled_mask(values, threshold)


def _scaled_mask(values: Tensor, threshold: int) -> Tensor:
    """0 where a value is dropped, what makes up for it elsewhere; of the shape of ``values``."""
    draws = torch.empty(-(-values.numel() // 4), dtype=torch.int64).random_(-(1 << 63), None)
    bits = draws.view(torch.int16)[: values.numel()].view(values.shape)
    factors = torch.empty(values.shape, dtype=values.dtype)
    torch.ge(bits, threshold - LEVELS // 2, out=factors)  # into floats at once: no mask to be converted
    return factors.mul_(LEVELS / max(1, LEVELS - threshold))
