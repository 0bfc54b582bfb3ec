"""Optimisers, and their state as plain named tensors."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from pretune.errors import CheckpointError
from pretune.training.muon import Muon
from pretune.training.settings import OptimizerSettings


class Optimizers:
    """One optimiser or two side by side, each with its own peak learning rate, on one schedule."""

    def __init__(self, network: nn.Module, parts: list[torch.optim.Optimizer]) -> None:
        self._names: dict[torch.Tensor, str] = {p: name for name, p in network.named_parameters()}
        self.parts = parts
        self._peaks = [[group["lr"] for group in part.param_groups] for part in parts]

    def step(self, factor: float) -> None:
        """One update at this share of the peak learning rates; the gradients are gone afterwards."""
        for part, peaks in zip(self.parts, self._peaks, strict=True):
            for group, peak in zip(part.param_groups, peaks, strict=True):
                group["lr"] = peak * factor
            part.step()
        self.forget()

    def forget(self) -> None:
        """Drop the gradients."""
        for part in self.parts:
            part.zero_grad(set_to_none=True)

    def state_tensors(self) -> dict[str, torch.Tensor]:
        """The state as ``<parameter>/<name>`` tensors."""
        return {
            f"{self._names[parameter]}/{key}": torch.as_tensor(value).detach().clone().contiguous()
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
            for group in part.param_groups:
                for parameter in group["params"]:
                    found = states.pop(self._names[parameter], None)
                    if found is not None:
                        part.state[parameter] = found
        if states:
            raise CheckpointError(f"optimizer.safetensors: the network has no parameter {min(states)!r}")


def build(network: nn.Module, settings: OptimizerSettings) -> Optimizers:
    """The optimisers of a network's trainable parameters; vectors (norms, biases) do not decay."""
    trainable = [p for p in network.parameters() if p.requires_grad]
    hidden = _hidden_matrices(network) if settings.name == "muon" else set()
    matrices = [p for p in trainable if p in hidden]
    groups = [
        {
            "params": [p for p in trainable if p.ndim >= 2 and p not in hidden],
            "weight_decay": settings.weight_decay,
        },
        {"params": [p for p in trainable if p.ndim < 2], "weight_decay": 0.0},
    ]
    adamw = torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=settings.learning_rate,
        betas=settings.betas,
        eps=settings.epsilon,
        fused=True,
    )
    if not matrices:
        return Optimizers(network, [adamw])
    muon = Muon(
        matrices,
        lr=settings.muon_learning_rate,
        momentum=settings.muon_momentum,
        weight_decay=settings.weight_decay,
    )
    return Optimizers(network, [muon, adamw])


def _hidden_matrices(network: nn.Module) -> set[nn.Parameter]:
    """Matrices from hidden states to hidden states: no embedding, and nothing that a head holds."""
    outer = {
        p for module in network.modules() if isinstance(module, nn.Embedding) for p in module.parameters()
    }
    heads = getattr(network, "heads", None)
    outer |= set(heads.parameters()) if isinstance(heads, nn.Module) else set()
    return {p for p in network.parameters() if p.ndim == 2 and p not in outer}
