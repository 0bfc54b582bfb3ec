"""Turns what the data say (``Layout``) and what a layer wants into a kernel; the only place that does."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pretune.errors import UnsupportedError
from pretune.nn.dropout import dropout as drop
from pretune.types import Layout


@dataclass(frozen=True)
class Plan:
    """How the layers of one forward pass attend; made by `plan`, used by `attend`, opaque in between."""

    mask: Tensor | None
    """(B, 1 or H, T, S), 0 where a place sees another, else minus infinity; None: no mask but ``causal``."""
    causal: bool


def plan(layout: Layout, width: int, *, causal: bool, window: int | None = None) -> Plan:
    """Decide once a forward pass what every place of a (B, T = ``width``) grid sees.

    Keys lie in the order of their positions: T of them, or, where ``layout.cached`` is given, as many as
    `cache.Cache.extend` returns. Padding sees padding, so that no row of the softmax is empty.

    Args:
        causal: a place sees none to its right, but within ``layout.prefix``.
        window: a place sees only those less than ``window`` places away.

    Raises:
        UnsupportedError: the layout asks for a factorisation order.
    """
    if layout.order is not None:
        raise UnsupportedError("this family has no attention in permuted order; choose another objective")
    if window is not None and window >= width and layout.cached is None:
        window = None  # it reaches from end to end
    plain = layout.documents is None and layout.cached is None and layout.prefix is None and window is None
    if plain and causal:
        return Plan(None, causal=True)  # padding lies to the right, where no real place looks
    if plain and bool((layout.lengths == width).all()):
        return Plan(None, causal=False)
    if layout.cached is not None:
        if _one_token_each(layout, width, window):
            return Plan(None, causal=False)
        starts, size = layout.cached, int(layout.cached.max()) + width
    else:
        starts, size = torch.zeros_like(layout.lengths), width
    seen = _seen(layout, starts, width, size, causal, window)  # (B, T, S)
    # What is added to the products, made once a forward pass: from True and False each layer makes it anew.
    mask = torch.zeros(seen.shape, device=seen.device).masked_fill_(~seen, -torch.inf)
    return Plan(mask[:, None], causal=False)


def cross_plan(layout: Layout, source: Layout, size: int) -> Plan:
    """Decide once a forward pass what every place of a target sees of its (B, S = ``size``) source.

    A place sees the source of its own document, and none of the padding. One that would see nothing, as
    padding does, sees all: no row of the softmax is empty.
    """
    if layout.documents is not None and source.documents is not None:
        seen = layout.documents[:, :, None] == source.documents[:, None, :]  # (B, T, S)
    elif bool((source.lengths == size).all()):
        return Plan(None, causal=False)
    else:
        seen = torch.arange(size, device=source.lengths.device) < source.lengths[:, None, None]  # (B, 1, S)
    hidden = ~seen & seen.any(-1, keepdim=True)
    mask = torch.zeros(seen.shape, device=seen.device).masked_fill_(hidden, -torch.inf)
    return Plan(mask[:, None], causal=False)


def biased(plan: Plan, bias: Tensor) -> Plan:
    """The plan of layers that all add the same ``bias``, (1 or B, H, T, S), to their scaled products."""
    if plan.causal:
        ahead = torch.ones(bias.shape[-2:], dtype=torch.bool, device=bias.device).triu(1)  # (T, S)
        return Plan(bias.masked_fill(ahead, -torch.inf), causal=False)
    return Plan(bias if plan.mask is None else bias + plan.mask, causal=False)


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    plan: Plan,
    *,
    dropout: float = 0.0,
    scale: float | None = None,
) -> Tensor:
    """Scaled dot-product attention (Vaswani et al. 2017, section 3.2.1), grouped where G < H.

    Args:
        query: (B, H, T, K)
        key: (B, G, S, K), where G divides H (Ainslie et al. 2023, section 2.2)
        value: (B, G, S, K)
        dropout: probability of dropping a weight; 0 outside training.
        scale: of the products; K ** -0.5 where None.

    Returns:
        (B, T, H * K)
    """
    if dropout and query.device.type == "cpu":
        mixed = _with_dropout(query, key, value, plan, dropout, scale)  # (B, H, T, K)
    else:
        mixed = F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=None if plan.mask is None else plan.mask.to(query.dtype),
            dropout_p=dropout,
            is_causal=plan.causal,
            scale=scale,
            enable_gqa=query.shape[1] != key.shape[1],
        )  # (B, H, T, K)
    return mixed.transpose(1, 2).flatten(2)  # (B, T, H * K)


def _with_dropout(
    query: Tensor, key: Tensor, value: Tensor, plan: Plan, dropout: float, scale: float | None
) -> Tensor:
    """Attention written out: no kernel of a CPU drops weights, and torch's way round draws them slowly."""
    repeats = query.shape[1] // key.shape[1]
    if repeats > 1:
        key, value = key.repeat_interleave(repeats, 1), value.repeat_interleave(repeats, 1)
    products = query * (query.shape[-1] ** -0.5 if scale is None else scale) @ key.mT  # (B, H, T, S)
    if plan.causal:
        width, size = products.shape[-2:]
        ahead = torch.ones(width, size, dtype=torch.bool, device=query.device).triu(1)
        products = products.masked_fill(ahead, -torch.inf)
    elif plan.mask is not None:
        products = products + plan.mask.to(products.dtype)
    weights = drop(products.softmax(-1), dropout)
    return weights.to(value.dtype) @ value


def _one_token_each(layout: Layout, width: int, window: int | None) -> bool:
    """Every row adds one token to equally many: it sees all that is there."""
    if layout.cached is None or layout.documents is not None or window is not None or width != 1:
        return False
    return bool((layout.cached == layout.cached[0]).all())


def _seen(layout: Layout, starts: Tensor, width: int, size: int, causal: bool, window: int | None) -> Tensor:
    places = torch.arange(size, device=starts.device)
    queries = (places[:width] + starts[:, None])[:, :, None]  # (B, T, 1)
    keys = places[None, None]  # (1, 1, S)
    seen = keys <= queries if causal else torch.ones_like(queries == keys)  # (B, T, S)
    if layout.prefix is not None:
        seen = seen | (keys < layout.prefix[:, None, None])
    if window is not None:
        seen = seen & ((queries - keys).abs() < window)
    if layout.cached is not None:
        if layout.documents is not None or not causal:
            raise UnsupportedError("a cache goes with causal attention and one document a row only")
        return seen  # what the cache holds beyond a row's end lies to the right of every real place
    documents = layout.documents
    if documents is None:
        documents = torch.where(places < layout.lengths[:, None], 0, -1)  # (B, T)
    return seen & (documents[:, :, None] == documents[:, None, :])
