"""The cross-entropy over a vocabulary, computed in chunks."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from pretune.types import IGNORE_INDEX

MAX_CHUNK_LOGITS = 1 << 22
"""Logits held at once: 16 MiB in fp32, near the cache of a desktop processor."""
MIN_CHUNK_ROWS = 256
"""At least as many places a chunk, so that the matrix products stay efficient at large V."""


def vocabulary_loss(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, label_smoothing: float = 0.0
) -> Tensor:
    """Cross-entropy in nats, summed over places, without ever holding the (N, V) logits.

    Gradients are computed chunk by chunk in the forward pass, while the logits of the chunk are at hand
    (as in Liger Kernel, Hsu et al. 2024, section 3.2). On CPU this is faster than both the plain loss, whose
    logits leave the cache, and ``F.linear_cross_entropy`` in chunks. There is no second derivative.

    Args:
        hidden: (N, D)
        weight: (V, D)
        bias: (V,) or None
        targets: (N,) ids; ``IGNORE_INDEX`` adds nothing.
        label_smoothing: share of each target that is spread evenly over V (Szegedy et al. 2016, section 7).

    Returns:
        () in fp32
    """
    needs_grad = torch.is_grad_enabled()
    loss: Tensor = _VocabularyLoss.apply(hidden, weight, bias, targets, label_smoothing, needs_grad)  # type: ignore[no-untyped-call]
    return loss


def vocabulary_nll(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, label_smoothing: float = 0.0
) -> Tensor:
    """Cross-entropy in nats of each position, (N,) in fp32, 0 where the target is `IGNORE_INDEX`.

    The arguments are those of `vocabulary_loss`. What each position will weigh is not known in the forward
    pass, so the backward pass computes the logits of each chunk a second time.
    """

    def chunk_nll(inputs: Tensor, chunk_targets: Tensor) -> Tensor:
        return F.cross_entropy(
            F.linear(inputs, weight, bias).float(), chunk_targets,
            reduction="none", ignore_index=IGNORE_INDEX, label_smoothing=label_smoothing,
        )  # fmt: skip

    rows = chunk_rows(len(hidden), weight.shape[0])
    chunks = zip(torch.split(hidden, rows), torch.split(targets, rows), strict=True)
    if not torch.is_grad_enabled():
        return torch.cat([chunk_nll(*chunk) for chunk in chunks])
    return torch.cat([checkpoint(chunk_nll, *chunk, use_reentrant=False) for chunk in chunks])


class _VocabularyLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        label_smoothing: float,
        needs_grad: bool,
    ) -> Tensor:
        device, dtype = hidden.device.type, product_dtype(hidden)
        rows = chunk_rows(len(hidden), weight.shape[0])
        with torch.autocast(device, enabled=False):
            matrix, offset = weight.to(dtype), None if bias is None else bias.to(dtype)
            total = torch.zeros((), device=hidden.device)
            gradients = _Gradients(hidden, weight, bias) if needs_grad else None
            for start in range(0, len(hidden), rows):
                chunk = slice(start, start + rows)
                inputs, counted = hidden[chunk].to(dtype), targets[chunk] != IGNORE_INDEX
                target_ids = targets[chunk].clamp(min=0)[:, None]  # (n, 1)
                logits = F.linear(inputs, matrix, offset).float()  # (n, V)
                top = logits.amax(-1)  # (n,)
                target_logits = logits.gather(1, target_ids)[:, 0]  # (n,)
                if label_smoothing:
                    target_logits = (1 - label_smoothing) * target_logits + label_smoothing * logits.mean(-1)
                # In place, as the logits would not fit the cache twice.
                probabilities = torch.softmax(logits, -1, out=logits)
                # The largest logit less the logarithm of its chance is that of the sum over all.
                total += torch.where(counted, top - probabilities.amax(-1).log() - target_logits, 0).sum()
                if gradients is not None:
                    # The derivative by the logits: chances less the target.
                    probabilities.scatter_add_(
                        1, target_ids, probabilities.new_full((), label_smoothing - 1.0).expand_as(target_ids)
                    )
                    if label_smoothing:
                        probabilities -= label_smoothing / probabilities.shape[1]
                    gradients.add(chunk, probabilities.to(dtype), inputs, matrix, counted.to(dtype)[:, None])
        if gradients is not None:
            ctx.save_for_backward(gradients.hidden, gradients.weight, gradients.bias)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias = ctx.saved_tensors
        grad_bias = None if bias is None else bias * grad_output
        # In place, as V x D is large; torch itself refuses a second backward pass.
        return hidden * grad_output, weight.mul_(grad_output), grad_bias, None, None, None


def product_dtype(hidden: Tensor) -> torch.dtype:
    """What the products with the vocabulary's matrix are computed in: autocast's, where it is on."""
    device = hidden.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype


def chunk_rows(num_positions: int, vocab_size: int) -> int:
    """How many places at a time, in chunks of about one size: a short last one would cost as much."""
    rows = max(MIN_CHUNK_ROWS, MAX_CHUNK_LOGITS // vocab_size)
    return -(-num_positions // max(1, -(-num_positions // rows))) or 1


class _Gradients:
    """The gradients of the loss, added up chunk by chunk."""

    def __init__(self, hidden: Tensor, weight: Tensor, bias: Tensor | None) -> None:
        self.hidden = torch.empty_like(hidden)
        self.weight = None if len(hidden) else torch.zeros_like(weight)  # None: the first chunk makes it
        self.bias = None if bias is None else torch.zeros_like(bias)

    def add(self, chunk: slice, errors: Tensor, inputs: Tensor, matrix: Tensor, is_target: Tensor) -> None:
        """``errors`` (n, V) count where ``is_target`` (n, 1) is 1, put to the narrow sides, not to V."""
        self.hidden[chunk] = (errors @ matrix).mul_(is_target)  # (n, D)
        inputs = inputs * is_target
        if self.weight is None:
            self.weight = (errors.t() @ inputs).to(self.hidden.dtype)  # (V, D)
        elif errors.dtype == self.weight.dtype:
            self.weight.addmm_(errors.t(), inputs)
        else:
            self.weight += errors.t() @ inputs
        if self.bias is not None:
            self.bias += (is_target.t() @ errors)[0]
