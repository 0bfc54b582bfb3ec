"""The cross-entropy over a vocabulary, computed in chunks."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from pretune.types import IGNORED

CHUNK_LOGITS = 1 << 22
"""Logits held at once: 16 MiB in fp32, near the cache of a desktop processor."""
CHUNK_ROWS = 256
"""At least as many places a chunk, so that the matrix products stay efficient at large V."""


def vocabulary_loss(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, smoothing: float = 0.0
) -> Tensor:
    """Cross-entropy in nats, summed over places, without ever holding the (N, V) logits.

    Gradients are computed chunk by chunk in the forward pass, while the logits of the chunk are at hand
    (as in Liger Kernel, Hsu et al. 2024, section 3.2). On CPU this is faster than both the plain loss, whose
    logits leave the cache, and ``F.linear_cross_entropy`` in chunks. There is no second derivative.

    Args:
        hidden: (N, D)
        weight: (V, D)
        bias: (V,) or None
        targets: (N,) ids; ``IGNORED`` adds nothing.
        smoothing: share of each target that is spread evenly over V (Szegedy et al. 2016, section 7).

    Returns:
        () in fp32
    """
    learning = torch.is_grad_enabled()
    loss: Tensor = _VocabularyLoss.apply(hidden, weight, bias, targets, smoothing, learning)  # type: ignore[no-untyped-call]
    return loss


class _VocabularyLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        smoothing: float,
        learning: bool,
    ) -> Tensor:
        device, dtype = hidden.device.type, product_dtype(hidden)
        rows = chunk_rows(len(hidden), weight.shape[0])
        with torch.autocast(device, enabled=False):
            matrix, offset = weight.to(dtype), None if bias is None else bias.to(dtype)
            total = torch.zeros((), device=hidden.device)
            gradients = _Gradients(hidden, weight, bias) if learning else None
            for start in range(0, len(hidden), rows):
                places = slice(start, start + rows)
                inputs, kept = hidden[places].to(dtype), targets[places] != IGNORED
                answers = targets[places].clamp(min=0)[:, None]  # (n, 1)
                logits = F.linear(inputs, matrix, offset).float()  # (n, V)
                top = logits.amax(-1)  # (n,)
                right = logits.gather(1, answers)[:, 0]  # (n,)
                if smoothing:
                    right = (1 - smoothing) * right + smoothing * logits.mean(-1)
                # In place, as the logits would not fit the cache twice.
                chances = torch.softmax(logits, -1, out=logits)
                # The largest logit less the logarithm of its chance is that of the sum over all.
                total += torch.where(kept, top - chances.amax(-1).log() - right, 0).sum()
                if gradients is not None:
                    # The derivative by the logits: chances less the target.
                    chances.scatter_add_(1, answers, chances.new_full((), smoothing - 1.0).expand_as(answers))
                    if smoothing:
                        chances -= smoothing / chances.shape[1]
                    gradients.add(places, chances.to(dtype), inputs, matrix, kept.to(dtype)[:, None])
        if gradients is not None:
            ctx.save_for_backward(gradients.hidden, gradients.weight, gradients.bias)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias = ctx.saved_tensors
        down = None if bias is None else bias * upstream
        # In place, as V x D is large; torch itself refuses a second backward pass.
        return hidden * upstream, weight.mul_(upstream), down, None, None, None


def product_dtype(hidden: Tensor) -> torch.dtype:
    """What the products with the vocabulary's matrix are computed in: autocast's, where it is on."""
    device = hidden.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype


def chunk_rows(places: int, vocabulary: int) -> int:
    """How many places at a time, in chunks of about one size: a short last one would cost as much."""
    rows = max(CHUNK_ROWS, CHUNK_LOGITS // vocabulary)
    return -(-places // max(1, -(-places // rows))) or 1


class _Gradients:
    """The gradients of the loss, added up chunk by chunk."""

    def __init__(self, hidden: Tensor, weight: Tensor, bias: Tensor | None) -> None:
        self.hidden = torch.empty_like(hidden)
        self.weight = None if len(hidden) else torch.zeros_like(weight)  # None: the first chunk makes it
        self.bias = None if bias is None else torch.zeros_like(bias)

    def add(self, places: slice, errors: Tensor, inputs: Tensor, matrix: Tensor, kept: Tensor) -> None:
        """``errors`` (n, V) count where ``kept`` (n, 1) is 1; it is put to the narrow sides, not to V."""
        self.hidden[places] = (errors @ matrix).mul_(kept)  # (n, D)
        inputs = inputs * kept
        if self.weight is None:
            self.weight = (errors.t() @ inputs).to(self.hidden.dtype)  # (V, D)
        elif errors.dtype == self.weight.dtype:
            self.weight.addmm_(errors.t(), inputs)
        else:
            self.weight += errors.t() @ inputs
        if self.bias is not None:
            self.bias += (kept.t() @ errors)[0]
