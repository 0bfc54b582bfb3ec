"""Muon (Jordan et al. 2024): momentum whose every update is made nearly orthogonal.

For the matrices between hidden states only; embeddings, heads, norms and biases take AdamW. torch's own
``torch.optim.Muon`` iterates in bfloat16, which a CPU without bfloat16 units computes several times slower
than float32, and one matrix at a time; here matrices of one shape are iterated together, in float32. Where
ranks hold parts of a matrix, each of them iterates the whole one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from pretune.training.sharding import full_tensor, shard_like

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic iteration: they push singular values to about 1 fast rather than exactly."""
ITERATIONS = 5
MIN_ASPECT_RATIO = 2
"""From this ratio of sides on, products among small matrices save operations: 4 of 9 at 4 to 1."""


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalised, scaled by the square root of max(1, rows / columns).

    Where ``every`` is more than 1, the momentum goes on in each step, but a matrix is moved in one step of so
    many, that much further. Directions of neighbouring steps are nearly the same, and the iteration is most
    of Muon's cost. Neighbouring matrices move in different steps, so that each step costs about the same.

    Args:
        parameters: matrices, or groups of them.
        lr: length of an update, in units of an orthogonal matrix; 0.02 suits most.
        momentum: share of the old direction that is kept.
        weight_decay: decoupled, as AdamW's.
        every: steps from one update of a matrix to the next. With more than 1, the ``"number"`` of each group
            says before each step which it is: nothing is counted here that a resume would have to restore.
    """

    def __init__(
        self,
        parameters: Iterable[Any],
        lr: float = 0.02,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        every: int = 1,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "every": every, "number": 0}
        super().__init__(parameters, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Go on with every matrix that has a gradient, and move those whose turn it is."""
        assert closure is None, "the trainer computes the gradients"
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[nn.Parameter]] = {}  # of those whose turn it is
            for index, parameter in enumerate(group["params"]):
                if parameter.grad is None:
                    continue
                self._update_momentum(parameter, parameter.grad, group)
                if (group["number"] + index) % group["every"] == 0:
                    by_shape.setdefault(parameter.shape, []).append(parameter)
            learning_rate = group["lr"] * group["every"]
            for shape, parameters in by_shape.items():
                updates = newton_schulz(
                    torch.stack([full_tensor(self._direction(p, group)) for p in parameters])
                )
                length = learning_rate * max(1.0, shape[0] / shape[1]) ** 0.5
                for parameter, update in zip(parameters, updates, strict=True):
                    parameter.mul_(1 - learning_rate * group["weight_decay"])
                    parameter.add_(shard_like(update, parameter), alpha=-length)

    def _update_momentum(self, parameter: nn.Parameter, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        state["momentum"].lerp_(gradient, 1 - group["momentum"])

    def _direction(self, parameter: nn.Parameter, group: dict[str, Any]) -> Tensor:
        gradient, momentum = parameter.grad, self.state[parameter]["momentum"]
        assert gradient is not None, "asked for matrices with a gradient only"
        return gradient.lerp(momentum, group["momentum"])


def newton_schulz(matrices: Tensor) -> Tensor:
    """The nearest orthogonal matrix, about, of each of (n, R, C) matrices, by a Newton-Schulz iteration."""
    wide = matrices.shape[-2] <= matrices.shape[-1]
    x: Tensor = matrices if wide else matrices.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)  # largest singular value at most 1
    x = _newton_schulz_gram(x) if x.shape[-1] >= MIN_ASPECT_RATIO * x.shape[-2] else _newton_schulz_direct(x)
    return x if wide else x.mT


def _newton_schulz_direct(x: Tensor) -> Tensor:
    """Each iteration turns x into p(x x') x with the polynomial p, whose constant is `COEFFICIENTS[0]`."""
    for _ in range(ITERATIONS):
        x = torch.baddbmm(x, _polynomial(x @ x.mT), x, beta=COEFFICIENTS[0])
    return x


def _newton_schulz_gram(x: Tensor) -> Tensor:
    """The same, all but the first and the last product among small (R, R) matrices.

    All polynomials of G = x x' commute, so that a step p multiplies x by p and turns G into p G p.
    """
    square, factor = x @ x.mT, None  # (n, R, R)
    for number in range(ITERATIONS):
        p = _polynomial(square)
        p.diagonal(dim1=-2, dim2=-1).add_(COEFFICIENTS[0])
        factor = p if factor is None else p @ factor
        if number < ITERATIONS - 1:
            square = p @ square @ p
    assert factor is not None, "there is at least one iteration"
    return factor @ x


def _polynomial(square: Tensor) -> Tensor:
    """Of (n, R, R) matrices G, b G + c G G; the share a of the identity is left to the caller."""
    _, b, c = COEFFICIENTS
    return torch.baddbmm(square, square, square, beta=b, alpha=c)
