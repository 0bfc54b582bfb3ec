"""Tensors that are spread over the ranks, and whole ones: each made of the other.

torch's sharded tensors take a second to import, which a single process need not wait for: they are recognised
by what they can do, and the import stands where one is made.
"""

from __future__ import annotations

from torch import Tensor


def full_tensor(tensor: Tensor) -> Tensor:
    """The tensor with the parts of all ranks, who must all ask for it; one that is whole, as it is."""
    if not is_sharded(tensor):
        return tensor
    full: Tensor = tensor.full_tensor()  # type: ignore[attr-defined]
    return full


def shard_like(tensor: Tensor, like: Tensor) -> Tensor:
    """The rank's part of a tensor that all ranks have whole, spread as ``like``, if that is spread."""
    if is_sharded(tensor) or not is_sharded(like):
        return tensor
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(like, DTensor), "asked of spread tensors only"
    return distribute_tensor(tensor, like.device_mesh, like.placements, src_data_rank=None)


def is_sharded(tensor: Tensor) -> bool:
    """Does this rank hold only a part of it?"""
    return hasattr(tensor, "full_tensor")
