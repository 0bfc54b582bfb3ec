"""How far one network's chances and hidden states are from another's: what distillation lessens."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from pretune.nn.vocabulary_loss import chunk_rows


def kl_divergence(logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """Kullback-Leibler divergence of softened chances in nats, summed over places, times temperature squared.

    The square keeps the gradient's size as the temperature rises (Hinton et al. 2015, section 2).

    Args:
        logits: (N, C), those that learn.
        teacher_logits: (N, C), those of the teacher.

    Returns:
        () in fp32
    """
    ours = F.log_softmax(logits.float() / temperature, -1)  # (N, C)
    theirs = F.log_softmax(teacher_logits.float() / temperature, -1)  # (N, C)
    return F.kl_div(ours, theirs, reduction="sum", log_target=True) * temperature**2


def vocabulary_kl_divergence(
    head: nn.Module,
    hidden: Tensor,
    teacher_head: nn.Module,
    teacher_hidden: Tensor,
    *,
    vocab_size: int,
    temperature: float,
) -> Tensor:
    """The `kl_divergence` of two vocabulary heads, without ever holding the (N, V) logits of either.

    Gradients are computed chunk by chunk in the forward pass, as in `vocabulary_loss`. There is no
    second derivative, and none by anything of the teacher.

    Args:
        hidden: (N, D), what ``head`` reads.
        teacher_hidden: (N, E), what the teacher's head reads at the same places.
        vocab_size: ids that the tokenizer has; a network may have more, which mean nothing.

    Returns:
        () in fp32
    """
    needs_grad = torch.is_grad_enabled()
    weights = [weight for weight in head.parameters() if weight.requires_grad]
    heads = (head, teacher_head, vocab_size, temperature)
    total: Tensor = _VocabularyKLDivergence.apply(heads, needs_grad, teacher_hidden, hidden, *weights)  # type: ignore[no-untyped-call]
    return total


class _VocabularyKLDivergence(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        heads: tuple[nn.Module, nn.Module, int, float],
        needs_grad: bool,
        teacher_hidden: Tensor,
        hidden: Tensor,
        *weights: Tensor,
    ) -> Tensor:
        head, teacher_head, vocab_size, temperature = heads
        total = torch.zeros((), device=hidden.device)
        gradients = [torch.zeros_like(tensor) for tensor in (hidden, *weights)] if needs_grad else []
        rows = chunk_rows(len(hidden), vocab_size)
        for start in range(0, len(hidden), rows):
            chunk = slice(start, start + rows)
            teacher_logits = teacher_head(teacher_hidden[chunk])[:, :vocab_size]  # (n, V)
            inputs = hidden[chunk].detach().requires_grad_(needs_grad)  # (n, D)
            with torch.set_grad_enabled(needs_grad):
                loss = kl_divergence(head(inputs)[:, :vocab_size], teacher_logits, temperature)
            total += loss.detach()
            if needs_grad:
                of_inputs, *of_weights = torch.autograd.grad(loss, (inputs, *weights))
                gradients[0][chunk] = of_inputs
                for total_gradient, chunk_gradient in zip(gradients[1:], of_weights, strict=True):
                    total_gradient += chunk_gradient
        ctx.save_for_backward(*gradients)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        # In place, as V x D is large; torch itself refuses a second backward pass.
        return None, None, None, *(gradient.mul_(grad_output) for gradient in ctx.saved_tensors)


def cosine_distance(hidden: Tensor, teacher_hidden: Tensor, lengths: Tensor) -> Tensor:
    """One less the cosine of two networks' hidden states, (B, T, D) each, summed over the real places.

    As DistilBERT's (Sanh et al. 2019, section 2), which asks both networks for one width: no map between
    them is learnt.

    Returns:
        () in fp32
    """
    positions = torch.arange(hidden.shape[1], device=hidden.device)
    distances = 1 - F.cosine_similarity(hidden.float(), teacher_hidden.float(), dim=-1)  # (B, T)
    return torch.where(positions < lengths[:, None], distances, 0).sum()
