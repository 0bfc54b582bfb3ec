"""How the ranks share one network: each holds all of it, or a part of each of its tensors.

``ddp``: every rank has the whole network; gradients are summed in buckets after the last backward pass of a
step. torch's DistributedDataParallel would sum within that pass, but must know beforehand which pass is the
last and wants the forward pass for itself; an objective may run several passes a batch, through the network's
own methods. What is lost is the overlap of the sum with the pass.

``fsdp``: torch's FSDP2. What is trained is a copy of the network whose tensors, gradients and optimiser state
are spread over the ranks; the network itself stays whole in main memory, to be evaluated and written, and
takes the trained weights before that. Gradients are summed after each backward pass: to keep them whole until
the last would take back the memory that is saved.

Gradients are summed, never averaged: each term of the loss is divided by its count over all ranks already.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Protocol

import torch
from torch import nn

from pretune.runtime.device import network_device
from pretune.runtime.distributed import World
from pretune.training.sharding import full_tensor, shard_like


class Parallel(Protocol):
    """A network as the ranks train it together."""

    network: nn.Module
    """What is trained on this rank."""
    world: World

    def reduce_gradients(self) -> None:
        """After the last backward pass of a step: the gradients are those of all ranks."""

    def unshard_into(self) -> None:
        """The whole network takes the weights of the one that is trained."""

    def load_from(self) -> None:
        """The one that is trained takes the weights of the whole network."""


class ReplicatedNetwork:
    """Every rank trains the whole network, or a copy of it on its GPU."""

    def __init__(self, full_network: nn.Module, world: World) -> None:
        self.full_network, self.world = full_network, world
        world.broadcast_([p.detach() for p in full_network.parameters()])
        on_device = network_device(full_network) == world.device
        self.network = full_network if on_device else copy.deepcopy(full_network).to(world.device)

    def reduce_gradients(self) -> None:
        """Sum the gradients over the ranks; what no rank touched has none, as in a process alone."""
        if self.world.world_size == 1:
            return
        trained = [p for p in self.network.parameters() if p.requires_grad]
        without_gradient = {i for i, p in enumerate(trained) if p.grad is None}
        without_gradient_anywhere = set.intersection(
            *map(set, self.world.all_gather(sorted(without_gradient)))
        )
        for number in without_gradient - without_gradient_anywhere:
            trained[number].grad = torch.zeros_like(trained[number])
        self.world.all_reduce_([p.grad for p in trained if p.grad is not None])

    def unshard_into(self) -> None:
        """From the GPU, if it was trained there."""
        copy_weights(self.network, self.full_network)

    def load_from(self) -> None:
        """To the GPU, if it is trained there."""
        copy_weights(self.full_network, self.network)


@torch.no_grad()
def copy_weights(source: nn.Module, target: nn.Module) -> None:
    """The weights of one network into another of its shape, whole or spread."""
    if source is not target:
        for source_weight, target_weight in zip(source.parameters(), target.parameters(), strict=True):
            target_weight.copy_(shard_like(full_tensor(source_weight), target_weight))


def build_parallel(full_network: nn.Module, world: World, strategy: str) -> Parallel:
    """The network as ``world`` trains it; in a world of one there is nothing to share."""
    if world.world_size == 1 or strategy == "ddp":
        return ReplicatedNetwork(full_network, world)
    from pretune.training.fsdp import ShardedNetwork  # only here: what it imports takes a second

    return ShardedNetwork(full_network, world)


def iter_layers(network: nn.Module) -> Iterator[nn.Module]:
    """The blocks of a network: those of each list that is called ``layers``."""
    for name, module in network.named_modules():
        if isinstance(module, nn.ModuleList) and name.rpartition(".")[2] == "layers":
            yield from module


@torch.no_grad()
def clip_gradients(network: nn.Module, max_norm: float) -> float:
    """The L2 norm of all gradients, which are no longer than ``max_norm`` afterwards; 0: no limit."""
    parameters = [p for p in network.parameters() if p.grad is not None]
    norm = full_tensor(nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None]))
    length = float(norm)
    if max_norm and not length + _CLIP_EPSILON <= max_norm:  # else it would multiply all of them by one
        nn.utils.clip_grads_with_norm_(parameters, max_norm, norm)
    return length


_CLIP_EPSILON = 1e-6
"""What torch adds to a norm before it divides by it."""
