"""How a network fares within: gradients, updates and activations, seen without touching the training.

Hooks look at what passes and add up sums; they draw no random number and change no tensor, so a run that is
watched is bit for bit the run that is not. Of several ranks, activations are those of the rank's own rows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from pretune.nn.feedforward import FeedForward, GatedFeedForward
from pretune.training.sharding import full_tensor

QUIET_THRESHOLD = 0.01
"""An activation below this share of its layer's root mean square says nothing."""
_LAYER_NAME = re.compile(r"(.*?\blayers\.\d+)\.|([^.]+)")

GroupStats = dict[str, dict[str, float]]


class ActivationStats:
    """What a few steps are watched for, by group of parameters: each layer, and each part besides them."""

    def __init__(self, network: nn.Module, every: int | None) -> None:
        self.network, self.every = network, every
        self._groups: dict[str, list[nn.Parameter]] = {}
        for name, parameter in network.named_parameters():
            if parameter.requires_grad:
                self._groups.setdefault(layer_name(name), []).append(parameter)
        self._weights_before: dict[str, list[Tensor]] = {}
        self._stats: GroupStats = {}
        self._layers: dict[str, _ActivityCounter] = {}
        self._units: dict[str, _ActivityCounter] = {}

    def is_due(self, step: int) -> bool:
        """Whether ``step`` (0-based) is one that is watched."""
        return self.every is not None and step % self.every == 0

    @contextmanager
    def record_activations(self, step: int) -> Iterator[None]:
        """Within, the activations of the forward passes are seen, if the step is due."""
        if not self.is_due(step):
            yield
            return
        self._layers, self._units = {}, {}
        handles = []
        for name, module in self.network.named_modules():
            if isinstance(module, nn.ModuleList) and name.rpartition(".")[2] == "layers":
                for number, layer in enumerate(module):
                    activity = self._layers.setdefault(f"{name}.{number}", _ActivityCounter())
                    handles.append(layer.register_forward_hook(_output_hook(activity)))
            elif isinstance(module, FeedForward | GatedFeedForward):
                activity = self._units.setdefault(layer_name(f"{name}."), _ActivityCounter())
                handles.append(module.down.register_forward_pre_hook(_input_hook(activity)))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    @torch.no_grad()
    def record_gradients(self, step: int) -> None:
        """Look at the gradients, not yet clipped, and remember the weights."""
        if self.is_due(step):
            gradients = {
                name: [p.grad for p in group if p.grad is not None] for name, group in self._groups.items()
            }
            self._stats = {"gradient_norm": {name: _norm(tensors) for name, tensors in gradients.items()}}
            self._weights_before = {name: [p.detach().clone() for p in g] for name, g in self._groups.items()}

    def discard(self) -> None:
        """The step changed nothing: what was seen of it does not count."""
        self._weights_before, self._stats = {}, {}

    @torch.no_grad()
    def collect(self, step: int) -> GroupStats | None:
        """Everything that was seen in this step, or None where it was not watched."""
        if not self.is_due(step):
            return None
        ratios = {}
        for name, group in self._groups.items():
            moved = [p - old for p, old in zip(group, self._weights_before[name], strict=True)]
            ratios[name] = _norm(moved) / max(1e-12, _norm(self._weights_before[name]))
        self._weights_before = {}
        return self._stats | {
            "update_ratio": ratios,
            "rms": {name: activity.rms for name, activity in self._layers.items() if activity.count},
            "dead_share": {name: seen.dead_share for name, seen in self._units.items() if seen.count},
            "quiet_share": {
                name: seen.quiet_count / seen.count for name, seen in self._units.items() if seen.count
            },
        }


class _ActivityCounter:
    """The activations of one place of the network, added up over the micro-batches of a step."""

    def __init__(self) -> None:
        self.count, self.sum_of_squares, self.quiet_count = 0, 0.0, 0.0
        self.max_abs: Tensor | None = None

    @torch.no_grad()
    def add(self, values: Tensor) -> None:
        """(..., F) activations of F units."""
        sizes = values.detach().float().flatten(0, -2).abs()  # (n, F)
        squares = float(sizes.square().sum())
        self.sum_of_squares, self.count = self.sum_of_squares + squares, self.count + sizes.numel()
        self.quiet_count += float((sizes < QUIET_THRESHOLD * (squares / max(1, sizes.numel())) ** 0.5).sum())
        max_abs = sizes.amax(0)  # (F,)
        self.max_abs = max_abs if self.max_abs is None else torch.maximum(self.max_abs, max_abs)

    @property
    def rms(self) -> float:
        return float((self.sum_of_squares / max(1, self.count)) ** 0.5)

    @property
    def dead_share(self) -> float:
        """Share of the units that said nothing at any place."""
        assert self.max_abs is not None, "asked of what was seen only"
        return float((self.max_abs < QUIET_THRESHOLD * self.rms).float().mean())


def layer_name(name: str) -> str:
    """The layer that a parameter lies in (``layers.3``), or the part of the network (``embeddings``)."""
    match = _LAYER_NAME.match(name)
    assert match is not None, "a parameter has a name"
    return match.group(1) or match.group(2)


def _output_hook(activity: _ActivityCounter) -> Callable[[nn.Module, Any, Any], None]:
    def hook(module: nn.Module, inputs: Any, output: Any) -> None:
        activity.add(output[0] if isinstance(output, tuple) else output)

    return hook


def _input_hook(activity: _ActivityCounter) -> Callable[[nn.Module, Any], None]:
    def hook(module: nn.Module, inputs: Any) -> None:
        activity.add(inputs[0])

    return hook


def _norm(tensors: list[Tensor]) -> float:
    return float(sum(float(full_tensor(t.float().square().sum())) for t in tensors) ** 0.5)
