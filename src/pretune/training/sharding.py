"""Tensors that are spread over the ranks, and whole ones: each made of the other."""

from __future__ import annotations

from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor


def whole_of(tensor: Tensor) -> Tensor:
    """The tensor with the parts of all ranks, who must all ask for it; one that is whole, as it is."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def part_of(tensor: Tensor, like: Tensor) -> Tensor:
    """The rank's part of a tensor that all ranks have whole, spread as ``like``, if that is spread."""
    if not isinstance(like, DTensor) or isinstance(tensor, DTensor):
        return tensor
    return distribute_tensor(tensor, like.device_mesh, like.placements, src_data_rank=None)
