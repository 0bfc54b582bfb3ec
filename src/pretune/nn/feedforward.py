"""Feed-forward blocks: plain and gated."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated

import pydantic
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pretune.nn.dropout import Dropout

Activation = Callable[[Tensor], Tensor]

ACTIVATIONS: dict[str, Activation] = {
    "gelu": F.gelu,
    "gelu_fast": partial(F.gelu, approximate="tanh"),
    "gelu_new": partial(F.gelu, approximate="tanh"),
    "gelu_python": F.gelu,
    "gelu_pytorch_tanh": partial(F.gelu, approximate="tanh"),
    "quick_gelu": lambda hidden: hidden * torch.sigmoid(1.702 * hidden),
    "relu": F.relu,
    "relu2": lambda hidden: F.relu(hidden).square(),
    "silu": F.silu,
    "swish": F.silu,
    "tanh": torch.tanh,
}
"""By the names that config.json uses."""


def _check_activation(name: str) -> str:
    if name not in ACTIVATIONS:
        raise ValueError(f"there is no such activation; there are: {', '.join(ACTIVATIONS)}")
    return name


ActivationName = Annotated[str, pydantic.AfterValidator(_check_activation)]
"""A key of `ACTIVATIONS`, checked where a config is read."""


class FeedForward(nn.Module):
    """Two linear maps with an activation and dropout between them (Vaswani et al. 2017, section 3.3)."""

    def __init__(
        self, hidden_size: int, inner_size: int, activation: str, *, bias: bool = True, dropout: float = 0.0
    ) -> None:
        """``dropout``: of what lies between the maps."""
        super().__init__()
        self.up = nn.Linear(hidden_size, inner_size, bias=bias)
        self.activation = ACTIVATIONS[activation]
        self.dropout = Dropout(dropout)
        self.down = nn.Linear(inner_size, hidden_size, bias=bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """(..., D) to (..., D)"""
        output: Tensor = self.down(self.dropout(self.activation(self.up(hidden))))
        return output


class GatedFeedForward(nn.Module):
    """A feed-forward block with a gate: SwiGLU where the activation is SiLU (Shazeer 2020, section 2)."""

    def __init__(
        self, hidden_size: int, inner_size: int, activation: str, *, bias: bool = False, dropout: float = 0.0
    ) -> None:
        """``dropout``: of what lies between the maps."""
        super().__init__()
        self.gate = nn.Linear(hidden_size, inner_size, bias=bias)
        self.up = nn.Linear(hidden_size, inner_size, bias=bias)
        self.activation = ACTIVATIONS[activation]
        self.dropout = Dropout(dropout)
        self.down = nn.Linear(inner_size, hidden_size, bias=bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """(..., D) to (..., D)"""
        output: Tensor = self.down(self.dropout(self.activation(self.gate(hidden)) * self.up(hidden)))
        return output
