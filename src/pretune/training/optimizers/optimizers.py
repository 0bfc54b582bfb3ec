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
from pretune.training.sharding import part_of, whole_of


class Optimizers:
    """One optimiser or two side by side, on one schedule, each with the peak learning rate of its setting."""

    def __init__(self, network: nn.Module, parts: Mapping[str, torch.optim.Optimizer]) -> None:
        """``parts``: each under the name of the setting that holds its peak learning rate."""
        self._names: dict[torch.Tensor, str] = {p: name for name, p in network.named_parameters()}
        self.parts = list(parts.values())
        self._peaks = {name: float(part.param_groups[0]["lr"]) for name, part in parts.items()}

    def step(self, factor: float, number: int) -> None:
        """Update ``number`` at this share of the peak learning rates; the gradients are gone afterwards."""
        for part, peak in zip(self.parts, self._peaks.values(), strict=True):
            for group in part.param_groups:
                group["lr"], group["number"] = peak * factor, number
            part.step()
        self.forget()

    def adopt(self, settings: OptimizerSettings) -> None:
        """Take over what a change in mid-run may change: the peaks and the weight decay."""
        self._peaks = {name: float(getattr(settings, name)) for name in self._peaks}
        for group in self._groups():
            group["weight_decay"] = settings.weight_decay if group["decays"] else 0.0

    def forget(self) -> None:
        """Drop the gradients."""
        for part in self.parts:
            part.zero_grad(set_to_none=True)

    def state_tensors(self) -> dict[str, torch.Tensor]:
        """The state as ``<parameter>/<name>`` tensors, whole: all ranks must ask for it."""
        return {
            f"{self._names[parameter]}/{key}": whole_of(torch.as_tensor(value).detach()).clone().contiguous()
            for part in self.parts
            for parameter, state in part.state.items()
            for key, value in state.items()
        }

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Put back what :meth:`state_tensors` gave.

        Raises:
            CheckpointError: the tensors belong to another network.
        """
        states: dict[str, dict[str, torch.Tensor]] = {}
        for key, tensor in tensors.items():
            name, _, slot = key.rpartition("/")
            states.setdefault(name, {})[slot] = tensor.clone()
        for part in self.parts:
            part.state.clear()
            for group in part.param_groups:
                for parameter in group["params"]:
                    found = states.pop(self._names[parameter], None)
                    if found is not None:
                        part.state[parameter] = {key: _placed(t, parameter) for key, t in found.items()}
        if states:
            raise CheckpointError(f"optimizer.safetensors: the network has no parameter {min(states)!r}")

    def _groups(self) -> Iterator[dict[str, Any]]:
        for part in self.parts:
            yield from part.param_groups


def _placed(tensor: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
    """State as the optimisers keep it: where its parameter is; what is shaped like it, spread like it."""
    tensor = tensor.to(parameter.device)
    return part_of(tensor, parameter) if tensor.shape == parameter.shape else tensor


def build(network: nn.Module, settings: OptimizerSettings) -> Optimizers:
    """The optimisers of a network's trainable parameters.

    Vectors (norms, biases) do not decay, nor do embeddings where the settings say so.
    """
    return Optimizers(network, PARTS[settings.name](network, settings))


Parts = dict[str, torch.optim.Optimizer]


def _adamw(
    network: nn.Module, settings: OptimizerSettings, but: Container[nn.Parameter] = frozenset()
) -> Parts:
    optimizer = torch.optim.AdamW(
        _groups(network, settings, but),
        lr=settings.learning_rate,
        betas=settings.betas,
        eps=settings.epsilon,
        fused=True,
    )
    return {"learning_rate": optimizer}


def _muon(network: nn.Module, settings: OptimizerSettings) -> Parts:
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


def _sgd(network: nn.Module, settings: OptimizerSettings) -> Parts:
    optimizer = torch.optim.SGD(
        _groups(network, settings),
        lr=settings.learning_rate,
        momentum=settings.momentum,
        nesterov=settings.nesterov,
    )
    return {"learning_rate": optimizer}


def _adafactor(network: nn.Module, settings: OptimizerSettings) -> Parts:
    return {"learning_rate": Adafactor(_groups(network, settings), lr=settings.learning_rate)}


PARTS: dict[str, Callable[[nn.Module, OptimizerSettings], Parts]] = {
    "adamw": _adamw,
    "muon": _muon,
    "sgd": _sgd,
    "adafactor": _adafactor,
}
"""By the name in the settings."""


def _groups(
    network: nn.Module, settings: OptimizerSettings, but: Container[nn.Parameter] = frozenset()
) -> list[dict[str, Any]]:
    """The trainable parameters without ``but``: those that decay, then those that do not."""
    kept = [p for p in network.parameters() if p.requires_grad and p not in but]
    spared = set() if settings.decay_embeddings else _embeddings(network)
    decays = [p.ndim >= 2 and p not in spared for p in kept]
    groups = [
        {
            "params": [p for p, with_decay in zip(kept, decays, strict=True) if with_decay is wanted],
            "weight_decay": settings.weight_decay if wanted else 0.0,
            "decays": wanted,
        }
        for wanted in (True, False)
    ]
    return [group for group in groups if group["params"]]


def _hidden_matrices(network: nn.Module) -> set[nn.Parameter]:
    """Matrices from hidden states to hidden states: no embedding, and nothing that a head holds."""
    outer = _embeddings(network)
    heads = getattr(network, "heads", None)
    outer |= set(heads.parameters()) if isinstance(heads, nn.Module) else set()
    return {p for p in network.parameters() if p.ndim == 2 and p not in outer}


def _embeddings(network: nn.Module) -> set[nn.Parameter]:
    return {
        p for module in network.modules() if isinstance(module, nn.Embedding) for p in module.parameters()
    }
