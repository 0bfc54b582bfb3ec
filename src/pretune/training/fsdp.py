"""A network that is spread over the ranks by torch's FSDP2; see `ddp`."""

from __future__ import annotations

import copy
import weakref

from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard

from pretune.runtime.distributed import World
from pretune.training.ddp import copy_weights, iter_layers


class ShardedNetwork:
    """Every rank trains its part of each tensor."""

    def __init__(self, full_network: nn.Module, world: World) -> None:
        self.full_network, self.world = full_network, world
        world.broadcast_([p.detach() for p in full_network.parameters()])
        self.network = copy.deepcopy(full_network).to(world.device)
        mesh = init_device_mesh(world.device.type, (world.world_size,))
        for layer in iter_layers(self.network):
            fully_shard(layer, mesh=mesh)
        fully_shard(self.network, mesh=mesh)
        for module in self.network.modules():
            if isinstance(module, FSDPModule):
                module.set_gradient_divide_factor(1.0)
                module.set_force_sum_reduction_for_comms(True)
        # torch remembers the layout of each spread tensor that it has met, and its mesh, for good; the mesh
        # must not hold the ranks' group, and gloo's threads, for longer than the network needs them.
        weakref.finalize(self, getattr(mesh, "_pg_registry", {}).clear)

    def reduce_gradients(self) -> None:
        """Each backward pass has summed its own."""

    def unshard_into(self) -> None:
        """Tensor by tensor."""
        copy_weights(self.network, self.full_network)

    def load_from(self) -> None:
        """Each rank takes its part of what it has whole."""
        copy_weights(self.full_network, self.network)
