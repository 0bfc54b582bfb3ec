"""Where the places of a grid stand in their documents; sinusoids, rotary positions, a bias a distance."""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from pretune.types import Layout

Tables: TypeAlias = tuple[Tensor, Tensor]
"""Cosines and sines, (B, 1, T, K) each; both halves of K hold the same angles, the first has -sines."""


def positions(layout: Layout, width: int) -> Tensor:
    """The position of every place in its document, (B, T), or (1, T) where all rows agree."""
    if layout.positions is not None:
        return layout.positions
    places = torch.arange(width, device=layout.lengths.device)[None]  # (1, T)
    return places if layout.cached is None else places + layout.cached[:, None]


def sinusoids(positions: Tensor, size: int) -> Tensor:
    """Sinusoidal positions (Vaswani et al. 2017, section 3.5), sines before cosines as Marian has them.

    Args:
        positions: (B, T)
        size: D, which is even

    Returns:
        (B, T, D) in fp32
    """
    exponents = torch.arange(0, size, 2, dtype=torch.float64, device=positions.device) / size
    angles = positions[..., None].double() / 10_000.0**exponents  # (B, T, D / 2)
    return torch.cat([angles.sin(), angles.cos()], -1).float()


def rotary_tables(positions: Tensor, head_size: int, base: float) -> Tables:
    """Cosines and sines of rotary position embedding (Su et al. 2021, section 3.2.2).

    Made anew in every forward pass, and always in fp32: a buffer would be rounded with the weights when a
    network is cast to half precision, and far positions would turn by wrong angles.

    Args:
        positions: (B, T)
        head_size: K

    Returns:
        (B, 1, T, K) each
    """
    return tables_of(positions[:, None, :, None].float() * turns(head_size, base, positions.device))


def tables_of(angles: Tensor) -> Tables:
    """What turns each pair of dimensions by its angle, (B, 1, T, K / 2)."""
    cosines, sines = angles.cos(), angles.sin()
    return torch.cat([cosines, cosines], -1), torch.cat([-sines, sines], -1)


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
    """Times cosines, plus the halves swapped times sines, in whole rows: short ones cost a CPU more."""

    @staticmethod
    def forward(ctx: Any, heads: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
        ctx.save_for_backward(cosines, sines)
        return _swapped(heads).mul_(sines).addcmul_(heads, cosines)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
        cosines, sines = ctx.saved_tensors
        return _swapped(upstream * sines).addcmul_(upstream, cosines), None, None


def _swapped(heads: Tensor) -> Tensor:
    left, right = heads.chunk(2, dim=-1)
    return torch.cat([right, left], -1)


class RelativeBias(nn.Module):
    """A number a head for each distance of two places, far ones in buckets (Raffel et al. 2020, 2.1)."""

    def __init__(self, buckets: int, longest: int, heads: int, *, causal: bool) -> None:
        """``longest``: the distance from which on all share a bucket; ``causal``: no place looks right."""
        super().__init__()
        self.longest, self.causal = longest, causal
        self.embedding = nn.Embedding(buckets, heads)

    def forward(self, layout: Layout, width: int) -> Tensor:
        """What is added to the products of a (B, T = ``width``) grid, (1 or B, H, T, S)."""
        places = torch.arange(width, device=layout.lengths.device)
        # Two places of a document are as far apart in the grid, wherever the document begins.
        queries, size = places[None], width  # (1, T)
        if layout.cached is not None:
            queries, size = places + layout.cached[:, None], int(layout.cached.max()) + width  # (B, T)
        keys = torch.arange(size, device=places.device)
        bias: Tensor = self.embedding(self.buckets(keys - queries[:, :, None]))  # (1 or B, T, S, H)
        return bias.permute(0, 3, 1, 2)  # (1 or B, H, T, S)

    def buckets(self, distances: Tensor) -> Tensor:
        """The bucket of each distance (key less query), any shape: near ones alone, far ones by logarithm."""
        count, first = self.embedding.num_embeddings, torch.zeros_like(distances)
        if self.causal:
            distances = (-distances).clamp(min=0)
        else:
            count //= 2
            first, distances = (distances > 0) * count, distances.abs()
        near = count // 2
        # In fp32 and in this order, so that a bucket begins where it does in the released models.
        logs = torch.log(distances.float() / near) / math.log(self.longest / near) * (count - near)
        far = (near + logs.clamp(min=0).long()).clamp(max=count - 1)
        return first + torch.where(distances < near, distances, far)


def distance_table(width: int, size: int, dimensions: int, clamp: int, device: torch.device) -> Tensor:
    """Sinusoids of distances to a key, positive where it lies to the left (Dai et al. 2019, section 3.3).

    Args:
        width: T places that look.
        size: S keys; the last T of them are the places themselves.
        dimensions: D
        clamp: what lies farther counts as this far; below 1: no such limit.

    Returns:
        (R, D), of the distances from S down to 1 - T
    """
    distances = torch.arange(size, -width, -1, dtype=torch.float32, device=device)  # (R,)
    if clamp > 0:
        distances = distances.clamp(-clamp, clamp)
    exponents = torch.arange(0, dimensions, 2, dtype=torch.float32, device=device) / dimensions
    angles = distances[:, None] / 10000**exponents
    return torch.cat([angles.sin(), angles.cos()], -1)


def by_key(products: Tensor, width: int, size: int, columns: Tensor | None = None) -> Tensor:
    """Products with the distances of `distance_table`, (B, H, P, R), as products with keys, (B, H, P, S).

    Args:
        columns: (B, P) where the places stand among the T = ``width`` of their rows; None: everywhere, P = T.
    """
    if columns is not None:
        keys = torch.arange(size, device=products.device)
        numbers = (width - columns)[:, None, :, None] + keys  # (B, 1, P, S)
        return products.gather(3, numbers.expand(-1, products.shape[1], -1, -1))
    # A place further on begins one distance earlier, as do rows that are read as one shorter than they are.
    flat = products.flatten(2)[:, :, width:]
    return flat.view(*flat.shape[:2], width, -1)[..., :size]
