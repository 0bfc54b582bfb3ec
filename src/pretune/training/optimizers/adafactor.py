"""Adafactor (Shazeer & Stern 2018): second moments of a matrix kept as one row and one column.

Without momentum, and without the paper's own step size (section 8): the schedule says how long a step is,
as for every other optimiser. An update has a root mean square of about 1 before ``lr`` scales it, as Adam's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from pretune.training.sharding import full_tensor, shard_like

DECAY_EXPONENT = 0.8
"""Of the second moments: at step t the old ones keep 1 - t ** -DECAY (section 7.2)."""
EPSILON = 1e-30
"""Added to each squared gradient, so that no moment is 0."""
CLIP_THRESHOLD = 1.0
"""Largest root mean square of an update (section 6)."""


class Adafactor(torch.optim.Optimizer):
    """Adam with factored second moments: memory of R + C in place of R * C for each (R, C) matrix."""

    def __init__(self, parameters: Iterable[Any], lr: float = 1e-3, weight_decay: float = 0.0) -> None:
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        assert closure is None, "the trainer computes the gradients"
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    update = shard_like(self._compute_update(parameter, parameter.grad), parameter)
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.add_(update, alpha=-group["lr"])

    def _compute_update(self, parameter: nn.Parameter, gradient: Tensor) -> Tensor:
        state = self.state[parameter]
        if gradient.ndim >= 2:
            gradient = full_tensor(gradient)  # where ranks hold parts of it: rows and columns are of all
        squares = gradient.square() + EPSILON
        state["step"] = state.get("step", torch.zeros(())) + 1
        new = float(state["step"]) ** -DECAY_EXPONENT
        if gradient.ndim < 2:
            update = gradient * _update_average(state, "squares", squares, new).rsqrt()
        else:
            rows = _update_average(state, "rows", squares.mean(-1), new)  # (..., R)
            columns = _update_average(state, "columns", squares.mean(-2), new)  # (..., C)
            scale = (rows / rows.mean(-1, keepdim=True)).rsqrt()[..., None] * columns.rsqrt()[..., None, :]
            update = gradient * scale
        return update / (full_tensor(update.square().mean()).sqrt() / CLIP_THRESHOLD).clamp(min=1.0)


def _update_average(state: dict[str, Tensor], name: str, value: Tensor, weight: float) -> Tensor:
    """The running average of ``value``, of which ``weight`` is the share of the new one; all of the first."""
    state[name] = state[name].mul_(1 - weight).add_(value, alpha=weight) if name in state else value * weight
    return state[name]
