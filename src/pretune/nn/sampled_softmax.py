"""The cross-entropy over a vocabulary, estimated from a part of its words (sampled softmax).

The sum over all words under the softmax is a place's own target, exactly, and of the others the candidates,
each divided by the chance with which it was drawn: so the sum is right on average, whatever the chances
(Bengio & Senécal 2008, "Adaptive importance sampling", section III; Jean et al. 2015, "On using very large
target vocabulary", section 3). Its logarithm, and so the loss, is a little too small on average.

All places of a step share the candidates, so that the products are with a (M, D) matrix in place of the whole
(V, D), and the estimate does not change as a step is packed or divided.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from pretune.nn.vocabulary_loss import chunk_rows, product_dtype
from pretune.types import IGNORED, Candidates


def sampled_loss(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, candidates: Candidates
) -> Tensor:
    """Estimated cross-entropy in nats, summed over places.

    Gradients are computed chunk by chunk in the forward pass, as in `vocabulary_loss`. There is no second
    derivative.

    Args:
        hidden: (N, D)
        weight: (V, D)
        bias: (V,) or None
        targets: (N,) ids; ``IGNORED`` adds nothing.

    Returns:
        () in fp32
    """
    learning = torch.is_grad_enabled()
    loss: Tensor = _SampledLoss.apply(  # type: ignore[no-untyped-call]
        hidden, weight, bias, targets, candidates.ids, candidates.corrections, learning
    )
    return loss


class _SampledLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        ids: Tensor,
        corrections: Tensor,
        learning: bool,
    ) -> Tensor:
        device, dtype = hidden.device.type, product_dtype(hidden)
        with torch.autocast(device, enabled=False):
            matrix = weight.index_select(0, ids).to(dtype)  # (M, D)
            offset = corrections if bias is None else corrections + bias.index_select(0, ids).float()
            kept = targets != IGNORED  # (N,)
            answers = targets.clamp(min=0)
            own = weight.index_select(0, answers).to(dtype)  # (N, D)
            right = (hidden.to(dtype) * own).sum(-1).float()  # (N,)
            right = right if bias is None else right + bias.index_select(0, answers).float()
            # Where the target is a candidate, too, it counts once: as the target.
            place = torch.searchsorted(ids, answers).clamp(max=len(ids) - 1)  # (N,)
            doubled = ids[place] == answers

            total = torch.zeros((), device=hidden.device)
            of_hidden = torch.empty_like(hidden)
            of_matrix = torch.zeros(matrix.shape, dtype=weight.dtype, device=weight.device)
            of_offset, errors = torch.zeros_like(offset), torch.empty_like(right)  # (M,), (N,)
            rows = chunk_rows(len(hidden), len(ids))
            for start in range(0, len(hidden), rows):
                part = slice(start, start + rows)
                inputs, here, said = hidden[part].to(dtype), kept[part], right[part]
                logits = (inputs @ matrix.t()).float().add_(offset)  # (n, M)
                both = doubled[part].nonzero()[:, 0]
                logits[both, place[part][both]] = -torch.inf
                top = torch.maximum(logits.amax(-1), said)  # (n,)
                # In place, as the logits would not fit the cache twice.
                parts = logits.sub_(top[:, None]).exp_()
                mine = (said - top).exp()
                whole = parts.sum(-1) + mine
                total += torch.where(here, whole.log() + top - said, 0).sum()
                if learning:
                    # The derivative by the logits: chances less the target.
                    parts.mul_((here / whole)[:, None])
                    errors[part] = (mine / whole - 1) * here
                    chances = parts.to(dtype)
                    of_hidden[part] = chances @ matrix + errors[part][:, None].to(dtype) * own[part]
                    of_matrix += chances.t() @ inputs
                    of_offset += parts.sum(0)
        if learning:
            ctx.save_for_backward(hidden, answers, ids, of_hidden, of_matrix, of_offset, errors)
            ctx.size, ctx.biased = len(weight), None if bias is None else bias.dtype
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        hidden, answers, ids, of_hidden, of_matrix, of_offset, errors = ctx.saved_tensors
        errors = errors * upstream  # (N,)
        whole = of_matrix.new_zeros(ctx.size, of_matrix.shape[1])  # (V, D)
        whole.index_copy_(0, ids, of_matrix.mul_(upstream))
        whole.index_add_(0, answers, errors[:, None].to(whole.dtype) * hidden.to(whole.dtype))
        down = None
        if ctx.biased is not None:
            down = of_offset.new_zeros(ctx.size).index_copy_(0, ids, of_offset * upstream)
            down = down.index_add_(0, answers, errors).to(ctx.biased)
        return of_hidden.mul_(upstream), whole, down, None, None, None, None
