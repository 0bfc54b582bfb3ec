"""Tensors that are spread over the ranks, and whole ones: each made of the other.

torch's spread tensors take a second to import, which a process alone need not wait for: they are told by what
they can do, and made in :mod:`sharded`, which is loaded where ranks share a network so.
"""

from __future__ import annotations

from torch import Tensor

from pretune.registry import find


def whole_of(tensor: Tensor) -> Tensor:
    """The tensor with the parts of all ranks, who must all ask for it; one that is whole, as it is."""
    if not is_spread(tensor):
        return tensor
    whole: Tensor = tensor.full_tensor()  # type: ignore[attr-defined]
    return whole


def part_of(tensor: Tensor, like: Tensor) -> Tensor:
    """The rank's part of a tensor that all ranks have whole, spread as ``like``, if that is spread."""
    if is_spread(tensor) or not is_spread(like):
        return tensor
    part: Tensor = find("training", "sharded").part(tensor, like)
    return part


def is_spread(tensor: Tensor) -> bool:
    """Does this rank hold only a part of it?"""
    return hasattr(tensor, "full_tensor")
