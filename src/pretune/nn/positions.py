"""Where the places of a grid stand in their documents, and rotary position embedding."""

from __future__ import annotations

import torch
from torch import Tensor

from pretune.types import Layout


def positions(layout: Layout, width: int) -> Tensor:
    """The position of every place in its document, (B, T), or (1, T) where all rows agree."""
    if layout.positions is not None:
        return layout.positions
    places = torch.arange(width, device=layout.lengths.device)[None]  # (1, T)
    return places if layout.cached is None else places + layout.cached[:, None]


def rotary_tables(positions: Tensor, head_size: int, base: float) -> tuple[Tensor, Tensor]:
    """Cosines and sines of rotary position embedding (Su et al. 2021, section 3.2.2).

    Made anew in every forward pass, and always in fp32: a buffer would be rounded with the weights when a
    network is cast to half precision, and far positions would turn by wrong angles.

    Args:
        positions: (B, T)
        head_size: K

    Returns:
        (B, 1, T, K / 2) each
    """
    exponents = torch.arange(0, head_size, 2, dtype=torch.float32, device=positions.device) / head_size
    angles = positions[:, None, :, None].float() * (1.0 / base**exponents)
    return angles.cos(), angles.sin()


def rotate(heads: Tensor, tables: tuple[Tensor, Tensor]) -> Tensor:
    """Turn (B, H, T, K) queries or keys in Llama's half-split form: dimension i is paired with i + K / 2."""
    cosines, sines = (table.to(heads.dtype) for table in tables)
    left, right = heads.chunk(2, dim=-1)
    return torch.cat((left * cosines - right * sines, right * cosines + left * sines), dim=-1)
