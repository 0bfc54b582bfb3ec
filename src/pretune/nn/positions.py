"""Where the places of a grid stand in their documents, and rotary position embedding."""

from __future__ import annotations

from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from pretune.types import Layout

Tables: TypeAlias = tuple[Tensor, Tensor]
"""Cosines and sines, (B, 1, T, K / 2) each."""


def positions(layout: Layout, width: int) -> Tensor:
    """The position of every place in its document, (B, T), or (1, T) where all rows agree."""
    if layout.positions is not None:
        return layout.positions
    places = torch.arange(width, device=layout.lengths.device)[None]  # (1, T)
    return places if layout.cached is None else places + layout.cached[:, None]


def rotary_tables(positions: Tensor, head_size: int, base: float) -> Tables:
    """Cosines and sines of rotary position embedding (Su et al. 2021, section 3.2.2).

    Made anew in every forward pass, and always in fp32: a buffer would be rounded with the weights when a
    network is cast to half precision, and far positions would turn by wrong angles.

    Args:
        positions: (B, T)
        head_size: K

    Returns:
        (B, 1, T, K / 2) each
    """
    angles = positions[:, None, :, None].float() * turns(head_size, base, positions.device)
    return angles.cos(), angles.sin()


def turns(head_size: int, base: float | Tensor, device: torch.device) -> Tensor:
    """The angle that each pair of dimensions turns by from one position to the next, (..., K / 2) in fp32.

    Args:
        head_size: K
        base: one for all, or (..., 1)
    """
    exponents = torch.arange(0, head_size, 2, dtype=torch.float32, device=device) / head_size
    angles: Tensor = 1.0 / base**exponents
    return angles


def rotate(heads: Tensor, tables: Tables) -> Tensor:
    """Turn (B, H, T, K) queries or keys in Llama's half-split form: dimension i is paired with i + K / 2."""
    cosines, sines = (table.to(heads.dtype) for table in tables)
    rotated: Tensor = _Rotation.apply(heads, cosines, sines)  # type: ignore[no-untyped-call]
    return rotated


class _Rotation(torch.autograd.Function):
    """Written where the result lies; autograd's own way keeps and joins halves, twice the time on a CPU."""

    @staticmethod
    def forward(ctx: Any, heads: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
        ctx.save_for_backward(cosines, sines)
        return _turned(heads, cosines, sines, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
        cosines, sines = ctx.saved_tensors
        return _turned(upstream, cosines, sines, -1), None, None


def _turned(heads: Tensor, cosines: Tensor, sines: Tensor, direction: int) -> Tensor:
    left, right = heads.chunk(2, dim=-1)
    turned = torch.empty_like(heads)
    new_left, new_right = turned.chunk(2, dim=-1)
    torch.mul(left, cosines, out=new_left).addcmul_(right, sines, value=-direction)
    torch.mul(right, cosines, out=new_right).addcmul_(left, sines, value=direction)
    return turned
