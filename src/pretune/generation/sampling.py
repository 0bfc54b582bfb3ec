"""Sampling as pure functions of logits."""

from __future__ import annotations

import pydantic
import torch

from pretune.config import Settings


class Sampling(Settings):
    """How the next token is drawn; temperature 0 takes the likeliest."""

    temperature: float = pydantic.Field(default=0.8, ge=0)
    top_k: int = pydantic.Field(default=50, ge=0)
    """Only the k likeliest tokens; 0: all."""
    top_p: float = pydantic.Field(default=0.95, gt=0, le=1)
    """Only the likeliest tokens that together have this probability (Holtzman et al. 2020)."""


def probabilities(logits: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """The distribution, (B, V), that the next tokens are drawn from, of their logits, (B, V)."""
    if sampling.temperature == 0:
        return torch.nn.functional.one_hot(logits.argmax(-1), logits.shape[-1]).to(logits.dtype)
    scaled = logits.float() / sampling.temperature
    if 0 < sampling.top_k < scaled.shape[-1]:
        threshold = scaled.topk(sampling.top_k, -1).values[:, -1:]
        scaled = scaled.masked_fill(scaled < threshold, -torch.inf)
    share = scaled.softmax(-1)
    if sampling.top_p < 1:
        ranked, order = share.sort(-1, descending=True)
        beyond = ranked.cumsum(-1) - ranked >= sampling.top_p  # the token that crosses the line stays
        share = share.masked_fill(torch.zeros_like(beyond).scatter(-1, order, beyond), 0.0)
        share = share / share.sum(-1, keepdim=True)
    return share  # (B, V)


def draw(logits: torch.Tensor, sampling: Sampling, generator: torch.Generator | None) -> torch.Tensor:
    """Next tokens, (B,), of their logits, (B, V)."""
    share = probabilities(logits, sampling)
    if sampling.temperature == 0:
        return share.argmax(-1)
    return torch.multinomial(share, 1, generator=generator).squeeze(-1)
