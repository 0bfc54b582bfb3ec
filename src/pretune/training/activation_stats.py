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
from pretune.training.sharding import whole_of

QUIET = 0.01
"""An activation below this share of its layer's root mean square says nothing."""
_GROUP = re.compile(r"(.*?\blayers\.\d+)\.|([^.]+)")

Findings = dict[str, dict[str, float]]


class Health:
    """What a few steps are watched for, by group of parameters: each layer, and each part besides them."""

    def __init__(self, network: nn.Module, every: int | None) -> None:
        self.network, self.every = network, every
        self._groups: dict[str, list[nn.Parameter]] = {}
        for name, parameter in network.named_parameters():
            if parameter.requires_grad:
                self._groups.setdefault(group_of(name), []).append(parameter)
        self._before: dict[str, list[Tensor]] = {}
        self._found: Findings = {}
        self._layers: dict[str, _Activity] = {}
        self._units: dict[str, _Activity] = {}

    def due(self, step: int) -> bool:
        """Whether ``step`` (0-based) is one that is watched."""
        return self.every is not None and step % self.every == 0

    @contextmanager
    def watching(self, step: int) -> Iterator[None]:
        """Within, the activations of the forward passes are seen, if the step is due."""
        if not self.due(step):
            yield
            return
        self._layers, self._units = {}, {}
        handles = []
        for name, module in self.network.named_modules():
            if isinstance(module, nn.ModuleList) and name.rpartition(".")[2] == "layers":
                for number, layer in enumerate(module):
                    activity = self._layers.setdefault(f"{name}.{number}", _Activity())
                    handles.append(layer.register_forward_hook(_output_into(activity)))
            elif isinstance(module, FeedForward | GatedFeedForward):
                activity = self._units.setdefault(group_of(f"{name}."), _Activity())
                handles.append(module.down.register_forward_pre_hook(_input_into(activity)))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    @torch.no_grad()
    def before_update(self, step: int) -> None:
        """Look at the gradients, not yet clipped, and remember the weights."""
        if self.due(step):
            gradients = {
                name: [p.grad for p in group if p.grad is not None] for name, group in self._groups.items()
            }
            self._found = {"gradient_norm": {name: _norm(found) for name, found in gradients.items()}}
            self._before = {name: [p.detach().clone() for p in g] for name, g in self._groups.items()}

    def forget(self) -> None:
        """The step changed nothing: what was seen of it does not count."""
        self._before, self._found = {}, {}

    @torch.no_grad()
    def after_update(self, step: int) -> Findings | None:
        """Everything that was seen in this step, or None where it was not watched."""
        if not self.due(step):
            return None
        ratios = {}
        for name, group in self._groups.items():
            moved = [p - old for p, old in zip(group, self._before[name], strict=True)]
            ratios[name] = _norm(moved) / max(1e-12, _norm(self._before[name]))
        self._before = {}
        return self._found | {
            "update_ratio": ratios,
            "rms": {name: seen.rms for name, seen in self._layers.items() if seen.count},
            "dead": {name: seen.dead for name, seen in self._units.items() if seen.count},
            "quiet": {name: seen.quiet / seen.count for name, seen in self._units.items() if seen.count},
        }


class _Activity:
    """The activations of one place of the network, added up over the micro-batches of a step."""

    def __init__(self) -> None:
        self.count, self.squares, self.quiet = 0, 0.0, 0.0
        self.highest: Tensor | None = None

    @torch.no_grad()
    def see(self, values: Tensor) -> None:
        """(..., F) activations of F units."""
        sizes = values.detach().float().flatten(0, -2).abs()  # (n, F)
        squares = float(sizes.square().sum())
        self.squares, self.count = self.squares + squares, self.count + sizes.numel()
        self.quiet += float((sizes < QUIET * (squares / max(1, sizes.numel())) ** 0.5).sum())
        highest = sizes.amax(0)  # (F,)
        self.highest = highest if self.highest is None else torch.maximum(self.highest, highest)

    @property
    def rms(self) -> float:
        return float((self.squares / max(1, self.count)) ** 0.5)

    @property
    def dead(self) -> float:
        """Share of the units that said nothing at any place."""
        assert self.highest is not None, "asked of what was seen only"
        return float((self.highest < QUIET * self.rms).float().mean())


def group_of(name: str) -> str:
    """The layer that a parameter lies in (``layers.3``), or the part of the network (``embeddings``)."""
    match = _GROUP.match(name)
    assert match is not None, "a parameter has a name"
    return match.group(1) or match.group(2)


def _output_into(activity: _Activity) -> Callable[[nn.Module, Any, Any], None]:
    def hook(module: nn.Module, inputs: Any, output: Any) -> None:
        activity.see(output[0] if isinstance(output, tuple) else output)

    return hook


def _input_into(activity: _Activity) -> Callable[[nn.Module, Any], None]:
    def hook(module: nn.Module, inputs: Any) -> None:
        activity.see(inputs[0])

    return hook


def _norm(tensors: list[Tensor]) -> float:
    return float(sum(float(whole_of(t.float().square().sum())) for t in tensors) ** 0.5)
