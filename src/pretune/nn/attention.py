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
class AttentionMask:
    """How the layers of one forward pass attend; made by `plan`, used by `attend`, opaque in between."""

    additive_mask: Tensor | None
    """(B, 1 or H, T, S), 0 where a place sees another, else minus infinity; None: no mask but ``causal``."""
    causal: bool
    fully_masked: Tensor | None = None
    """(B, 1, T, 1) places that see nothing, and so take in nothing; None: there are none."""


_RECORDED_WEIGHTS: ContextVar[list[Tensor] | None] = ContextVar(
    "attention weights that are looked at", default=None
)

Stream = Literal["content", "query"]
"""XLNet's two: what stands at a place, and what asks which token stands there."""


def build_mask(layout: Layout, seq_length: int, *, causal: bool, window: int | None = None) -> AttentionMask:
    """Decide once a forward pass what every place of a (B, T = ``seq_length``) grid sees.

    Keys lie in the order of their positions: T of them, or, where ``layout.cache_lengths`` is given, as
    many as
    `cache.KVCache.extend` returns. Padding sees padding, so that no row of the softmax is empty.

    Args:
        causal: a place sees none to its right, but within ``layout.prefix``.
        window: a place sees only those less than ``window`` places away.

    Raises:
        UnsupportedError: the layout asks for a factorisation order.
    """
    if layout.order is not None:
        raise UnsupportedError("this family has no attention in permuted order; choose another objective")
    if window is not None and window >= seq_length and layout.cache_lengths is None:
        window = None  # it reaches from end to end
    is_plain = (
        layout.documents is None
        and layout.cache_lengths is None
        and layout.prefix_lengths is None
        and window is None
    )
    if is_plain and causal:
        return AttentionMask(None, causal=True)  # padding lies to the right, where no real place looks
    if is_plain and bool((layout.lengths == seq_length).all()):
        return AttentionMask(None, causal=False)
    if layout.cache_lengths is not None:
        if _is_one_token_step(layout, seq_length, window):
            return AttentionMask(None, causal=False)
        query_offsets, key_length = layout.cache_lengths, int(layout.cache_lengths.max()) + seq_length
    else:
        query_offsets, key_length = torch.zeros_like(layout.lengths), seq_length
    visible = _visible_keys(layout, query_offsets, seq_length, key_length, causal, window)  # (B, T, S)
    # What is added to the products, made once a forward pass: from True and False each layer makes it anew.
    mask = torch.zeros(visible.shape, device=visible.device).masked_fill_(~visible, -torch.inf)
    return AttentionMask(mask[:, None], causal=False)


def cross_attention_mask(layout: Layout, source_layout: Layout, source_length: int) -> AttentionMask:
    """Decide once a forward pass what every place of a target sees of its (B, S = ``source_length``) source.

    A place sees the source of its own document, and none of the padding. One that would see nothing, as
    padding does, sees all: no row of the softmax is empty.
    """
    if layout.documents is not None and source_layout.documents is not None:
        visible = layout.documents[:, :, None] == source_layout.documents[:, None, :]  # (B, T, S)
    elif bool((source_layout.lengths == source_length).all()):
        return AttentionMask(None, causal=False)
    else:
        visible = (
            torch.arange(source_length, device=source_layout.lengths.device)
            < source_layout.lengths[:, None, None]
        )  # (B, 1, S)
    hidden = ~visible & visible.any(-1, keepdim=True)
    mask = torch.zeros(visible.shape, device=visible.device).masked_fill_(hidden, -torch.inf)
    return AttentionMask(mask[:, None], causal=False)


def permutation_mask(
    layout: Layout,
    seq_length: int,
    *,
    stream: Stream,
    query_positions: Tensor | None = None,
    memory_length: int = 0,
) -> AttentionMask:
    """Decide what places see in an order of factorisation (Yang et al. 2019, section 2.3).

    The content of a place sees those before it in the order and itself, a query those before it only. Rank -1
    comes before all others, and places of it see each other; without an order all see all.

    Args:
        query_positions: (B, P) the places that look, in their rows; None: all of the T = ``seq_length``.
        memory_length: keys of earlier segments that stand before the row's own; every place sees them.

    Raises:
        UnsupportedError: the layout asks for what has no order.
    """
    if (
        layout.prefix_lengths is not None
        or layout.cache_lengths is not None
        or (memory_length and layout.documents is not None)
    ):
        raise UnsupportedError("a prefix, a cache, or a memory of packed rows goes with no permuted order")
    plain = layout.order is None and layout.documents is None and stream == "content"
    if plain and bool((layout.lengths == seq_length).all()):
        return AttentionMask(None, causal=False)
    positions = torch.arange(seq_length, device=layout.lengths.device)
    queries = (
        positions.expand(len(layout.lengths), -1) if query_positions is None else query_positions
    )  # (B, P)
    documents = _document_ids(layout, positions)  # (B, T)
    visible = documents.gather(1, queries)[:, :, None] == documents[:, None, :]  # (B, P, T)
    if layout.order is not None:
        ranks = layout.order.gather(1, queries).clamp(min=0)  # (B, P)
        visible &= (layout.order[:, None, :] < ranks[:, :, None]) | (queries[:, :, None] == positions)
    if stream == "query":
        visible &= queries[:, :, None] != positions
    if memory_length:
        visible = torch.cat([visible.new_ones(*visible.shape[:2], memory_length), visible], -1)  # (B, P, S)
    fully_masked = ~visible.any(-1, keepdim=True)[:, None]  # (B, 1, P, 1)
    mask = torch.zeros(visible.shape, device=visible.device).masked_fill_(~visible, -torch.inf)[:, None]
    if not bool(fully_masked.any()):
        return AttentionMask(mask, causal=False)
    return AttentionMask(
        mask.masked_fill(fully_masked, 0.0), causal=False, fully_masked=fully_masked
    )  # a softmax over nothing is undefined


def add_bias(mask: AttentionMask, bias: Tensor) -> AttentionMask:
    """The plan of layers that add ``bias``, (1 or B, H, T, S), to their scaled products."""
    if mask.causal:
        future = torch.ones(bias.shape[-2:], dtype=torch.bool, device=bias.device).triu(1)  # (T, S)
        return replace(mask, additive_mask=bias.masked_fill(future, -torch.inf), causal=False)
    return replace(mask, additive_mask=bias if mask.additive_mask is None else bias + mask.additive_mask)


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: AttentionMask,
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
    recorder = _RECORDED_WEIGHTS.get()
    if recorder is not None:
        weights = _attention_weights(query, key, mask, scale)
        recorder.append(weights if mask.fully_masked is None else weights.masked_fill(mask.fully_masked, 0.0))
    needs_grad = mask.additive_mask is not None and mask.additive_mask.requires_grad
    if (dropout or needs_grad) and query.device.type == "cpu":
        mixed = _explicit_attention(query, key, value, mask, dropout, scale)  # (B, H, T, K)
    else:
        mixed = F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=None if mask.additive_mask is None else mask.additive_mask.to(query.dtype),
            dropout_p=dropout,
            is_causal=mask.causal,
            scale=scale,
            enable_gqa=query.shape[1] != key.shape[1],
        )  # (B, H, T, K)
    if mask.fully_masked is not None:
        mixed = mixed.masked_fill(mask.fully_masked, 0.0)
    return mixed.transpose(1, 2).flatten(2)  # (B, T, H * K)


@contextmanager
def record_weights() -> Iterator[list[Tensor]]:
    """Within, the weights of each call are kept, (B, H, T, S), in the order in which layers attend.

    An encoder-decoder's come stack by stack, each decoder layer's own before its source's; XLNet's stream by
    stream. For looking at a model; they are what dropout is applied to.
    """
    weights: list[Tensor] = []
    token = _RECORDED_WEIGHTS.set(weights)
    try:
        yield weights
    finally:
        _RECORDED_WEIGHTS.reset(token)


def _explicit_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: AttentionMask, dropout: float, scale: float | None
) -> Tensor:
    """For a CPU, of whose kernels none drops weights or learns a bias; torch's way round is slow."""
    weights = drop(_attention_weights(query, key, mask, scale), dropout)  # (B, H, T, S)
    repeats = query.shape[1] // key.shape[1]
    if repeats > 1:
        value = value.repeat_interleave(repeats, 1)
    return weights.to(value.dtype) @ value


def _attention_weights(query: Tensor, key: Tensor, mask: AttentionMask, scale: float | None) -> Tensor:
    """How much each place takes of each other, (B, H, T, S): the softmax over what it sees."""
    repeats = query.shape[1] // key.shape[1]
    if repeats > 1:
        key = key.repeat_interleave(repeats, 1)
    products = query * (query.shape[-1] ** -0.5 if scale is None else scale) @ key.mT  # (B, H, T, S)
    if mask.causal:
        width, size = products.shape[-2:]
        future = torch.ones(width, size, dtype=torch.bool, device=query.device).triu(1)
        products = products.masked_fill(future, -torch.inf)
    elif mask.additive_mask is not None:
        products = products + mask.additive_mask.to(products.dtype)
    return products.softmax(-1)


def _is_one_token_step(layout: Layout, seq_length: int, window: int | None) -> bool:
    """Every row adds one token to equally many: it sees all that is there."""
    if layout.cache_lengths is None or layout.documents is not None or window is not None or seq_length != 1:
        return False
    return bool((layout.cache_lengths == layout.cache_lengths[0]).all())


def _visible_keys(
    layout: Layout, query_offsets: Tensor, seq_length: int, key_length: int, causal: bool, window: int | None
) -> Tensor:
    positions = torch.arange(key_length, device=query_offsets.device)
    queries = (positions[:seq_length] + query_offsets[:, None])[:, :, None]  # (B, T, 1)
    keys = positions[None, None]  # (1, 1, S)
    visible = keys <= queries if causal else torch.ones_like(queries == keys)  # (B, T, S)
    if layout.prefix_lengths is not None:
        visible = visible | (keys < layout.prefix_lengths[:, None, None])
    if window is not None:
        visible = visible & ((queries - keys).abs() < window)
    if layout.cache_lengths is not None:
        if layout.documents is not None or not causal:
            raise UnsupportedError("a cache goes with causal attention and one document a row only")
        return visible  # what the cache holds beyond a row's end lies to the right of every real place
    documents = _document_ids(layout, positions)  # (B, T)
    return visible & (documents[:, :, None] == documents[:, None, :])


def _document_ids(layout: Layout, positions: Tensor) -> Tensor:
    """(B, T) the document of each place in its row; -1 is padding."""
    if layout.documents is not None:
        return layout.documents
    return torch.where(positions < layout.lengths[:, None], 0, -1)
