"""Turns what the data say (``Layout``) and what a layer wants into a kernel; the only place that does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Literal

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
    blind: Tensor | None = None
    """(B, 1, T, 1) places that see nothing, and so take in nothing; None: there are none."""


_WATCHED: ContextVar[list[Tensor] | None] = ContextVar("attention weights that are looked at", default=None)

Stream = Literal["content", "query"]
"""XLNet's two: what stands at a place, and what asks which token stands there."""


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


def permuted(
    layout: Layout, width: int, *, stream: Stream, columns: Tensor | None = None, memory: int = 0
) -> Plan:
    """Decide what places see in an order of factorisation (Yang et al. 2019, section 2.3).

    The content of a place sees those before it in the order and itself, a query those before it only. Rank -1
    comes before all others, and places of it see each other; without an order all see all.

    Args:
        columns: (B, P) the places that look, in their rows; None: all of the T = ``width``.
        memory: keys of earlier segments that stand before the row's own; every place sees them.

    Raises:
        UnsupportedError: the layout asks for what has no order.
    """
    if layout.prefix is not None or layout.cached is not None or (memory and layout.documents is not None):
        raise UnsupportedError("a prefix, a cache, or a memory of packed rows goes with no permuted order")
    plain = layout.order is None and layout.documents is None and stream == "content"
    if plain and bool((layout.lengths == width).all()):
        return Plan(None, causal=False)
    places = torch.arange(width, device=layout.lengths.device)
    asking = places.expand(len(layout.lengths), -1) if columns is None else columns  # (B, P)
    documents = _documents(layout, places)  # (B, T)
    seen = documents.gather(1, asking)[:, :, None] == documents[:, None, :]  # (B, P, T)
    if layout.order is not None:
        ranks = layout.order.gather(1, asking).clamp(min=0)  # (B, P)
        seen &= (layout.order[:, None, :] < ranks[:, :, None]) | (asking[:, :, None] == places)
    if stream == "query":
        seen &= asking[:, :, None] != places
    if memory:
        seen = torch.cat([seen.new_ones(*seen.shape[:2], memory), seen], -1)  # (B, P, S)
    blind = ~seen.any(-1, keepdim=True)[:, None]  # (B, 1, P, 1)
    mask = torch.zeros(seen.shape, device=seen.device).masked_fill_(~seen, -torch.inf)[:, None]
    if not bool(blind.any()):
        return Plan(mask, causal=False)
    return Plan(
        mask.masked_fill(blind, 0.0), causal=False, blind=blind
    )  # a softmax over nothing is undefined


def biased(plan: Plan, bias: Tensor) -> Plan:
    """The plan of layers that add ``bias``, (1 or B, H, T, S), to their scaled products."""
    if plan.causal:
        ahead = torch.ones(bias.shape[-2:], dtype=torch.bool, device=bias.device).triu(1)  # (T, S)
        return replace(plan, mask=bias.masked_fill(ahead, -torch.inf), causal=False)
    return replace(plan, mask=bias if plan.mask is None else bias + plan.mask)


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
    watched_weights = _WATCHED.get()
    if watched_weights is not None:
        weights = _weights(query, key, plan, scale)
        watched_weights.append(weights if plan.blind is None else weights.masked_fill(plan.blind, 0.0))
    learns = plan.mask is not None and plan.mask.requires_grad
    if (dropout or learns) and query.device.type == "cpu":
        mixed = _written_out(query, key, value, plan, dropout, scale)  # (B, H, T, K)
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
    if plan.blind is not None:
        mixed = mixed.masked_fill(plan.blind, 0.0)
    return mixed.transpose(1, 2).flatten(2)  # (B, T, H * K)


@contextmanager
def watched() -> Iterator[list[Tensor]]:
    """Within, the weights of each call are kept, (B, H, T, S), in the order in which layers attend.

    An encoder-decoder's come stack by stack, each decoder layer's own before its source's; XLNet's stream by
    stream. For looking at a model; they are what dropout is applied to.
    """
    weights: list[Tensor] = []
    token = _WATCHED.set(weights)
    try:
        yield weights
    finally:
        _WATCHED.reset(token)


def _written_out(
    query: Tensor, key: Tensor, value: Tensor, plan: Plan, dropout: float, scale: float | None
) -> Tensor:
    """For a CPU, of whose kernels none drops weights or learns a bias; torch's way round is slow."""
    weights = drop(_weights(query, key, plan, scale), dropout)  # (B, H, T, S)
    repeats = query.shape[1] // key.shape[1]
    if repeats > 1:
        value = value.repeat_interleave(repeats, 1)
    return weights.to(value.dtype) @ value


def _weights(query: Tensor, key: Tensor, plan: Plan, scale: float | None) -> Tensor:
    """How much each place takes of each other, (B, H, T, S): the softmax over what it sees."""
    repeats = query.shape[1] // key.shape[1]
    if repeats > 1:
        key = key.repeat_interleave(repeats, 1)
    products = query * (query.shape[-1] ** -0.5 if scale is None else scale) @ key.mT  # (B, H, T, S)
    if plan.causal:
        width, size = products.shape[-2:]
        ahead = torch.ones(width, size, dtype=torch.bool, device=query.device).triu(1)
        products = products.masked_fill(ahead, -torch.inf)
    elif plan.mask is not None:
        products = products + plan.mask.to(products.dtype)
    return products.softmax(-1)


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
    documents = _documents(layout, places)  # (B, T)
    return seen & (documents[:, :, None] == documents[:, None, :])


def _documents(layout: Layout, places: Tensor) -> Tensor:
    """(B, T) the document of each place in its row; -1 is padding."""
    if layout.documents is not None:
        return layout.documents
    return torch.where(places < layout.lengths[:, None], 0, -1)
