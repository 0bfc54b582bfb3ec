"""Optimisers, and their state as plain named tensors."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from pretune.errors import CheckpointError
from pretune.training.settings import OptimizerSettings


def build(network: nn.Module, settings: OptimizerSettings) -> torch.optim.Optimizer:
    """AdamW over two groups: matrices decay, vectors (norms, biases) do not."""
    trainable = [p for p in network.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in trainable if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=settings.learning_rate,
        betas=settings.betas,
        eps=settings.epsilon,
        fused=True,
    )


def state_tensors(network: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """The optimiser's state as ``<parameter>/<name>`` tensors."""
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    tensors = {}
    for parameter, state in optimizer.state.items():
        for key, value in state.items():
            tensors[f"{names[id(parameter)]}/{key}"] = torch.as_tensor(value).detach().clone().contiguous()
    return tensors


def restore(
    network: nn.Module, optimizer: torch.optim.Optimizer, tensors: Mapping[str, torch.Tensor]
) -> None:
    """Put back what :func:`state_tensors` gave.

    Raises:
        CheckpointError: the tensors belong to another network.
    """
    parameters = dict(network.named_parameters())
    states: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        name, _, slot = key.rpartition("/")
        if name not in parameters:
            raise CheckpointError(f"optimizer.safetensors: the network has no parameter {name!r}")
        states.setdefault(name, {})[slot] = tensor.clone()
    for name, state in states.items():
        optimizer.state[parameters[name]] = state
