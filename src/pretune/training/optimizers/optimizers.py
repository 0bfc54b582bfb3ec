"""Optimisers, and their state as plain named tensors."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from pretune.errors import CheckpointError
from pretune.training.optimizers.adafactor import Adafactor
from pretune.training.optimizers.muon import Muon
from pretune.training.settings import OptimizerSettings
from pretune.training.sharding import full_tensor, shard_like


class Optimizers:
    """One optimiser or two side by side, on one schedule, each with the peak learning rate of its setting."""

    def __init__(self, network: nn.Module, optimizers: Mapping[str, torch.optim.Optimizer]) -> None:
        """``optimizers``: each under the name of the setting that holds its peak learning rate."""
        self._names: dict[torch.Tensor, str] = {p: name for name, p in network.named_parameters()}
        self.optimizers = list(optimizers.values())
        self._peak_learning_rates = {
            name: float(optimizer.param_groups[0]["lr"]) for name, optimizer in optimizers.items()
        }

    def step(self, lr_factor: float, step_number: int) -> None:
        """Update ``step_number`` at this share of the peak learning rates; the gradients are gone
        afterwards.
        """
        for optimizer, peak in zip(self.optimizers, self._peak_learning_rates.values(), strict=True):
            for group in optimizer.param_groups:
                group["lr"], group["number"] = peak * lr_factor, step_number
            optimizer.step()
        self.zero_grad()

    def update_hyperparameters(self, settings: OptimizerSettings) -> None:
        """Take over what a change in mid-run may change: the peaks and the weight decay."""
        self._peak_learning_rates = {
            name: float(getattr(settings, name)) for name in self._peak_learning_rates
        }
        for group in self._param_groups():
            group["weight_decay"] = settings.weight_decay if group["decays"] else 0.0

    def zero_grad(self) -> None:
        """Drop the gradients."""
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)

    def state_tensors(self) -> dict[str, torch.Tensor]:
        """The state as ``<parameter>/<name>`` tensors, whole: all ranks must ask for it."""
        return {
            f"{self._names[parameter]}/{key}": full_tensor(torch.as_tensor(value).detach())
            .clone()
            .contiguous()
            for optimizer in self.optimizers
            for parameter, state in optimizer.state.items()
            for key, value in state.items()
        }

    def load_state_tensors(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Put back what :meth:`state_tensors` gave.

        Raises:
            CheckpointError: the tensors belong to another network.
        """
        states: dict[str, dict[str, torch.Tensor]] = {}
        for key, tensor in tensors.items():
            name, _, slot = key.rpartition("/")
            states.setdefault(name, {})[slot] = tensor.clone()
        for optimizer in self.optimizers:
            optimizer.state.clear()
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    state = states.pop(self._names[parameter], None)
                    if state is not None:
                        optimizer.state[parameter] = {
                            key: _place_state(t, parameter) for key, t in state.items()
                        }
        if states:
            raise CheckpointError(f"optimizer.safetensors: the network has no parameter {min(states)!r}")

    def _param_groups(self) -> Iterator[dict[str, Any]]:
        for optimizer in self.optimizers:
            yield from optimizer.param_groups


def _place_state(tensor: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
    """State as the optimisers keep it: where its parameter is; what is shaped like it, spread like it."""
    tensor = tensor.to(parameter.device)
    return shard_like(tensor, parameter) if tensor.shape == parameter.shape else tensor


def build_optimizers(network: nn.Module, settings: OptimizerSettings) -> Optimizers:
    """The optimisers of a network's trainable parameters.

    Vectors (norms, biases) do not decay, nor do embeddings where the settings say so.
    """
    return Optimizers(network, BUILDERS[settings.name](network, settings))


OptimizersBySetting = dict[str, torch.optim.Optimizer]


def _adamw(
    network: nn.Module, settings: OptimizerSettings, exclude: Container[nn.Parameter] = frozenset()
) -> OptimizersBySetting:
    optimizer = torch.optim.AdamW(
        _parameter_groups(network, settings, exclude),
        lr=settings.learning_rate,
        betas=settings.betas,
        eps=settings.epsilon,
        fused=True,
    )
    return {"learning_rate": optimizer}


def _muon(network: nn.Module, settings: OptimizerSettings) -> OptimizersBySetting:
    hidden = _hidden_matrices(network)
    matrices = [p for p in network.parameters() if p.requires_grad and p in hidden]
    if not matrices:
        return _adamw(network, settings)
    muon = Muon(
        [{"params": matrices, "weight_decay": settings.weight_decay, "decays": True}],
        lr=settings.muon_learning_rate,
        momentum=settings.muon_momentum,
        every=settings.muon_every,
    )
    return {"muon_learning_rate": muon, **_adamw(network, settings, hidden)}


def _sgd(network: nn.Module, settings: OptimizerSettings) -> OptimizersBySetting:
    optimizer = torch.optim.SGD(
        _parameter_groups(network, settings),
        lr=settings.learning_rate,
        momentum=settings.momentum,
        nesterov=settings.nesterov,
    )
    return {"learning_rate": optimizer}


def _adafactor(network: nn.Module, settings: OptimizerSettings) -> OptimizersBySetting:
    return {"learning_rate": Adafactor(_parameter_groups(network, settings), lr=settings.learning_rate)}


BUILDERS: dict[str, Callable[[nn.Module, OptimizerSettings], OptimizersBySetting]] = {
    "adamw": _adamw,
    "muon": _muon,
    "sgd": _sgd,
    "adafactor": _adafactor,
}
"""By the name in the settings."""


def _parameter_groups(
    network: nn.Module, settings: OptimizerSettings, exclude: Container[nn.Parameter] = frozenset()
) -> list[dict[str, Any]]:
    """The trainable parameters without ``exclude``: those that decay, then those that do not."""
    parameters = [p for p in network.parameters() if p.requires_grad and p not in exclude]
    without_decay = set() if settings.decay_embeddings else _embedding_parameters(network)
    decays = [p.ndim >= 2 and p not in without_decay for p in parameters]
    groups = [
        {
            "params": [p for p, with_decay in zip(parameters, decays, strict=True) if with_decay is decay],
            "weight_decay": settings.weight_decay if decay else 0.0,
            "decays": decay,
        }
        for decay in (True, False)
    ]
    return [group for group in groups if group["params"]]


def _hidden_matrices(network: nn.Module) -> set[nn.Parameter]:
    """Matrices from hidden states to hidden states: no embedding, and nothing that a head holds."""
    outer = _embedding_parameters(network)
    heads = dict(network.named_children()).get("heads")
    outer |= set() if heads is None else set(heads.parameters())
    return {p for p in network.parameters() if p.ndim == 2 and p not in outer}


def _embedding_parameters(network: nn.Module) -> set[nn.Parameter]:
    return {
        p for module in network.modules() if isinstance(module, nn.Embedding) for p in module.parameters()
    }
