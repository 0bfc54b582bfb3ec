"""A network that is spread over the ranks by torch's FSDP2; see `ddp`."""

from __future__ import annotations

import copy
import weakref

from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard

from pretune.runtime.distributed import World
from pretune.training.ddp import copy_weights, layers


class Sharded:
    """Every rank trains its part of each tensor."""

    def __init__(self, whole: nn.Module, world: World) -> None:
        self.whole, self.world = whole, world
        world.lay_down([p.detach() for p in whole.parameters()])
        self.network = copy.deepcopy(whole).to(world.device)
        mesh = init_device_mesh(world.device.type, (world.size,))
        for layer in layers(self.network):
            fully_shard(layer, mesh=mesh)
        fully_shard(self.network, mesh=mesh)
        for module in self.network.modules():
            if isinstance(module, FSDPModule):
                module.set_gradient_divide_factor(1.0)
                module.set_force_sum_reduction_for_comms(True)
        # torch remembers the layout of each spread tensor that it has met, and its mesh, for good; the mesh
        # must not hold the ranks' group, and gloo's threads, for longer than the network needs them.
        weakref.finalize(self, getattr(mesh, "_pg_registry", {}).clear)

    def reduce(self) -> None:
        """Each backward pass has summed its own."""

    def gather(self) -> None:
        """Tensor by tensor."""
        copy_weights(self.network, self.whole)

    def spread(self) -> None:
        """Each rank takes its part of what it has whole."""
        copy_weights(self.whole, self.network)
