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
from pretune.types import IGNORE_INDEX, NegativeSamples


def sampled_softmax_loss(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, negative_samples: NegativeSamples
) -> Tensor:
    """Estimated cross-entropy in nats, summed over places.

    Gradients are computed chunk by chunk in the forward pass, as in `vocabulary_loss`. There is no second
    derivative.

    Args:
        hidden: (N, D)
        weight: (V, D)
        bias: (V,) or None
        targets: (N,) ids; ``IGNORE_INDEX`` adds nothing.

    Returns:
        () in fp32
    """
    needs_grad = torch.is_grad_enabled()
    loss: Tensor = _SampledSoftmaxLoss.apply(  # type: ignore[no-untyped-call]
        hidden, weight, bias, targets, negative_samples.ids, negative_samples.corrections, needs_grad
    )
    return loss


class _SampledSoftmaxLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        ids: Tensor,
        corrections: Tensor,
        needs_grad: bool,
    ) -> Tensor:
        device, dtype = hidden.device.type, product_dtype(hidden)
        with torch.autocast(device, enabled=False):
            matrix = weight.index_select(0, ids).to(dtype)  # (M, D)
            offset = corrections if bias is None else corrections + bias.index_select(0, ids).float()
            counted = targets != IGNORE_INDEX  # (N,)
            target_ids = targets.clamp(min=0)
            target_rows = weight.index_select(0, target_ids).to(dtype)  # (N, D)
            target_logits = (hidden.to(dtype) * target_rows).sum(-1).float()  # (N,)
            target_logits = (
                target_logits if bias is None else target_logits + bias.index_select(0, target_ids).float()
            )
            # Where the target is a candidate, too, it counts once: as the target.
            index = torch.searchsorted(ids, target_ids).clamp(max=len(ids) - 1)  # (N,)
            is_sampled = ids[index] == target_ids

            total = torch.zeros((), device=hidden.device)
            of_hidden = torch.empty_like(hidden)
            of_matrix = torch.zeros(matrix.shape, dtype=weight.dtype, device=weight.device)
            of_offset, errors = torch.zeros_like(offset), torch.empty_like(target_logits)  # (M,), (N,)
            rows = chunk_rows(len(hidden), len(ids))
            for start in range(0, len(hidden), rows):
                chunk = slice(start, start + rows)
                inputs, chunk_counted, own_logits = (
                    hidden[chunk].to(dtype),
                    counted[chunk],
                    target_logits[chunk],
                )
                logits = (inputs @ matrix.t()).float().add_(offset)  # (n, M)
                both = is_sampled[chunk].nonzero()[:, 0]
                logits[both, index[chunk][both]] = -torch.inf
                top = torch.maximum(logits.amax(-1), own_logits)  # (n,)
                # In place, as the logits would not fit the cache twice.
                exponentials = logits.sub_(top[:, None]).exp_()
                own_exponential = (own_logits - top).exp()
                normalizer = exponentials.sum(-1) + own_exponential
                total += torch.where(chunk_counted, normalizer.log() + top - own_logits, 0).sum()
                if needs_grad:
                    # The derivative by the logits: chances less the target.
                    exponentials.mul_((chunk_counted / normalizer)[:, None])
                    errors[chunk] = (own_exponential / normalizer - 1) * chunk_counted
                    chances = exponentials.to(dtype)
                    of_hidden[chunk] = (
                        chances @ matrix + errors[chunk][:, None].to(dtype) * target_rows[chunk]
                    )
                    of_matrix += chances.t() @ inputs
                    of_offset += exponentials.sum(0)
        if needs_grad:
            ctx.save_for_backward(hidden, target_ids, ids, of_hidden, of_matrix, of_offset, errors)
            ctx.size, ctx.biased = len(weight), None if bias is None else bias.dtype
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        hidden, target_ids, ids, of_hidden, of_matrix, of_offset, errors = ctx.saved_tensors
        errors = errors * grad_output  # (N,)
        grad_weight = of_matrix.new_zeros(ctx.size, of_matrix.shape[1])  # (V, D)
        grad_weight.index_copy_(0, ids, of_matrix.mul_(grad_output))
        grad_weight.index_add_(
            0, target_ids, errors[:, None].to(grad_weight.dtype) * hidden.to(grad_weight.dtype)
        )
        grad_bias = None
        if ctx.biased is not None:
            grad_bias = of_offset.new_zeros(ctx.size).index_copy_(0, ids, of_offset * grad_output)
            grad_bias = grad_bias.index_add_(0, target_ids, errors).to(ctx.biased)
        return of_hidden.mul_(grad_output), grad_weight, grad_bias, None, None, None, None
