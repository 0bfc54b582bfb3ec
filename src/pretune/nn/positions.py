"""Where the places of a grid stand in their documents; sinusoids, rotary positions, a bias a distance."""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from pretune.types import Layout

RotaryTables: TypeAlias = tuple[Tensor, Tensor]
"""Cosines and sines, (B, 1, T, K) each; both halves of K hold the same angles, the first has -sines."""


def build_position_ids(layout: Layout, seq_length: int) -> Tensor:
    """The position of every place in its document, (B, T), or (1, T) where all rows agree."""
    if layout.position_ids is not None:
        return layout.position_ids
    positions = torch.arange(seq_length, device=layout.lengths.device)[None]  # (1, T)
    return positions if layout.cache_lengths is None else positions + layout.cache_lengths[:, None]


def sinusoids(position_ids: Tensor, hidden_size: int) -> Tensor:
    """Sinusoidal positions (Vaswani et al. 2017, section 3.5), sines before cosines as Marian has them.

    Args:
        position_ids: (B, T)
        hidden_size: D, which is even

    Returns:
        (B, T, D) in fp32
    """
    exponents = torch.arange(0, hidden_size, 2, dtype=torch.float64, device=position_ids.device) / hidden_size
    angles = position_ids[..., None].double() / 10_000.0**exponents  # (B, T, D / 2)
    return torch.cat([angles.sin(), angles.cos()], -1).float()


def rotary_tables(position_ids: Tensor, head_size: int, base: float) -> RotaryTables:
    """Cosines and sines of rotary position embedding (Su et al. 2021, section 3.2.2).

    Made anew in every forward pass, and always in fp32: a buffer would be rounded with the weights when a
    network is cast to half precision, and far positions would turn by wrong angles.

    Args:
        position_ids: (B, T)
        head_size: K

    Returns:
        (B, 1, T, K) each
    """
    return tables_from_angles(
        position_ids[:, None, :, None].float() * inverse_frequencies(head_size, base, position_ids.device)
    )


def tables_from_angles(angles: Tensor) -> RotaryTables:
    """What turns each pair of dimensions by its angle, (B, 1, T, K / 2)."""
    cosines, sines = angles.cos(), angles.sin()
    return torch.cat([cosines, cosines], -1), torch.cat([-sines, sines], -1)


def inverse_frequencies(head_size: int, base: float | Tensor, device: torch.device) -> Tensor:
    """The angle that each pair of dimensions turns by from one position to the next, (..., K / 2) in fp32.

    Args:
        head_size: K
        base: one for all, or (..., 1)
    """
    exponents = torch.arange(0, head_size, 2, dtype=torch.float32, device=device) / head_size
    angles: Tensor = 1.0 / base**exponents
    return angles


def apply_rotary(tensor: Tensor, tables: RotaryTables) -> Tensor:
    """Turn (B, H, T, K) queries or keys in Llama's half-split form: dimension i is paired with i + K / 2."""
    cosines, sines = (table.to(tensor.dtype) for table in tables)
    rotated: Tensor = _RotaryFunction.apply(tensor, cosines, sines)  # type: ignore[no-untyped-call]
    return rotated


class _RotaryFunction(torch.autograd.Function):
    """Times cosines, plus the halves swapped times sines, in whole rows: short ones cost a CPU more."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
        ctx.save_for_backward(cosines, sines)
        return _swap_halves(tensor).mul_(sines).addcmul_(tensor, cosines)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None, None]:
        cosines, sines = ctx.saved_tensors
        return _swap_halves(grad_output * sines).addcmul_(grad_output, cosines), None, None


def _swap_halves(tensor: Tensor) -> Tensor:
    left, right = tensor.chunk(2, dim=-1)
    return torch.cat([right, left], -1)


class RelativePositionBias(nn.Module):
    """A number a head for each distance of two places, far ones in buckets (Raffel et al. 2020, 2.1)."""

    def __init__(self, num_buckets: int, max_distance: int, num_heads: int, *, causal: bool) -> None:
        """``max_distance``: the distance from which on all share a bucket; ``causal``: no place looks
        right.
        """
        super().__init__()
        self.max_distance, self.causal = max_distance, causal
        self.embedding = nn.Embedding(num_buckets, num_heads)

    def forward(self, layout: Layout, seq_length: int) -> Tensor:
        """What is added to the products of a (B, T = ``seq_length``) grid, (1 or B, H, T, S)."""
        positions = torch.arange(seq_length, device=layout.lengths.device)
        # Two places of a document are as far apart in the grid, wherever the document begins.
        queries, size = positions[None], seq_length  # (1, T)
        if layout.cache_lengths is not None:
            queries, size = (
                positions + layout.cache_lengths[:, None],
                int(layout.cache_lengths.max()) + seq_length,
            )  # (B, T)
        keys = torch.arange(size, device=positions.device)
        bias: Tensor = self.embedding(self.bucket_indices(keys - queries[:, :, None]))  # (1 or B, T, S, H)
        return bias.permute(0, 3, 1, 2)  # (1 or B, H, T, S)

    def bucket_indices(self, distances: Tensor) -> Tensor:
        """The bucket of each distance (key less query), any shape: near ones alone, far ones by logarithm."""
        count, first = self.embedding.num_embeddings, torch.zeros_like(distances)
        if self.causal:
            distances = (-distances).clamp(min=0)
        else:
            count //= 2
            first, distances = (distances > 0) * count, distances.abs()
        near = count // 2
        # In fp32 and in this order, so that a bucket begins where it does in the released models.
        logs = torch.log(distances.float() / near) / math.log(self.max_distance / near) * (count - near)
        far = (near + logs.clamp(min=0).long()).clamp(max=count - 1)
        return first + torch.where(distances < near, distances, far)


def relative_sinusoids(
    query_length: int, key_length: int, hidden_size: int, max_distance: int, device: torch.device
) -> Tensor:
    """Sinusoids of distances to a key, positive where it lies to the left (Dai et al. 2019, section 3.3).

    Args:
        width: T places that look.
        size: S keys; the last T of them are the places themselves.
        hidden_size: D
        max_distance: what lies farther counts as this far; below 1: no such limit.

    Returns:
        (R, D), of the distances from S down to 1 - T
    """
    distances = torch.arange(key_length, -query_length, -1, dtype=torch.float32, device=device)  # (R,)
    if max_distance > 0:
        distances = distances.clamp(-max_distance, max_distance)
    exponents = torch.arange(0, hidden_size, 2, dtype=torch.float32, device=device) / hidden_size
    angles = distances[:, None] / 10000**exponents
    return torch.cat([angles.sin(), angles.cos()], -1)


def relative_shift(
    products: Tensor, query_length: int, key_length: int, query_positions: Tensor | None = None
) -> Tensor:
    """Products with the distances of `relative_sinusoids`, (B, H, P, R), as products with keys, (B, H, P, S).

    Args:
        query_positions: (B, P) where the places stand among the T = ``query_length`` of their rows; None:
            everywhere, P = T.
    """
    if query_positions is not None:
        keys = torch.arange(key_length, device=products.device)
        numbers = (query_length - query_positions)[:, None, :, None] + keys  # (B, 1, P, S)
        return products.gather(3, numbers.expand(-1, products.shape[1], -1, -1))
    # A place further on begins one distance earlier, as do rows that are read as one shorter than they are.
    flat = products.flatten(2)[:, :, query_length:]
    return flat.view(*flat.shape[:2], query_length, -1)[..., :key_length]
