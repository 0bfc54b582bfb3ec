"""The gradient of a loss that depends on all examples of a step at once, divided among its micro-batches.

The loss is computed from representations of all examples, which a first pass without gradients has made; what
each representation changes in it is then carried on into the network micro-batch by micro-batch (Gao et al.
2021, "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup", section 3.2). So neither
accumulation nor the number of ranks changes the gradient by more than rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pretune.runtime.distributed import World


def whole_step_gradients(
    representations: Sequence[Tensor], mean_loss: Callable[[Tensor], Tensor], world: World
) -> tuple[float, list[Tensor]]:
    """The loss of the step, and its derivative by the representations of each micro-batch of this rank.

    Args:
        representations: (E, ...) of each micro-batch, without gradients.
        mean_loss: the loss, (), of those of all micro-batches of all ranks.
    """
    local = torch.cat(list(representations))  # (E of this rank, ...)
    sizes = world.all_gather(len(local))
    start = sum(sizes[: world.rank])
    every = local.new_zeros(sum(sizes), *local.shape[1:])  # (E of the step, ...)
    every[start : start + len(local)] = local
    world.all_reduce_([every])
    every.requires_grad_()
    loss = mean_loss(every)
    [gradient] = torch.autograd.grad(loss, every)
    own = gradient[start : start + len(local)]
    return loss.item(), list(torch.split(own, [len(part) for part in representations]))
