"""Where the places of a grid stand in their documents, and rotary position embedding."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pretune.types import Layout


def positions(layout: Layout, width: int) -> Tensor:
    """The position of every place in its document, (B, T), or (1, T) where all rows agree."""
    if layout.positions is not None:
        return layout.positions
    places = torch.arange(width, device=layout.lengths.device)[None]  # (1, T)
    return places if layout.cached is None else places + layout.cached[:, None]


class Rotary(nn.Module):
    """Tables of rotary position embedding (Su et al. 2021, section 3.2) in Llama's half-split form."""

    frequencies: Tensor

    def __init__(self, head_size: int, base: float) -> None:
        super().__init__()
        exponents = torch.arange(0, head_size, 2, dtype=torch.float32) / head_size
        self.register_buffer("frequencies", 1.0 / base**exponents, persistent=False)

    def forward(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T) positions to cosines and sines, (B, 1, T, K / 2) each, always in fp32."""
        angles = positions[:, None, :, None].float() * self.frequencies.float()
        return angles.cos(), angles.sin()


def rotate(heads: Tensor, tables: tuple[Tensor, Tensor]) -> Tensor:
    """Turn (B, H, T, K) queries or keys; dimension i is paired with i + K / 2."""
    cosines, sines = (table.to(heads.dtype) for table in tables)
    left, right = heads.chunk(2, dim=-1)
    return torch.cat((left * cosines - right * sines, right * cosines + left * sines), dim=-1)
