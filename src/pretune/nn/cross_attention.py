"""What the decoder of an encoder-decoder reads of its source, which is encoded once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from pretune.errors import UnsupportedError
from pretune.nn import attention
from pretune.nn.cache import Cache
from pretune.types import Batch, Layout

KeysAndValues = tuple[Tensor, Tensor]
"""(B, G, S, K) each."""


@dataclass(frozen=True)
class Source:
    """The source as the layers of one forward pass attend to it."""

    plan: attention.Plan
    memory: Tensor | None
    """(B, S, D), what the encoder said; None: all that is read of it lies in the cache."""
    cache: Cache | None

    def read(self, layer: int, project: Callable[[Tensor], KeysAndValues]) -> KeysAndValues:
        """The keys and values of a layer, made by ``project`` of the memory unless they are kept already."""
        if self.memory is None:
            assert self.cache is not None, "the memory is left out where a cache holds what is read of it"
            return self.cache.source_of(layer)
        key, value = project(self.memory)
        if self.cache is not None:
            self.cache.keep_source(key, value)
        return key, value


def source_of(batch: Batch, encode: Callable[[Batch], Tensor], cache: Cache | None) -> Source:
    """The source of a batch, encoded; where a cache holds one, the batch need not bring it again.

    Raises:
        UnsupportedError: the batch has no source.
    """
    if cache is not None and cache.source is not None:
        size = cache.source_of(0)[0].shape[2]
        return Source(attention.cross_plan(batch.layout, cache.source, size), None, cache)
    _, layout = tokens_of(batch)
    memory = encode(batch)  # (B, S, D)
    if cache is not None:
        cache.source = layout
    return Source(attention.cross_plan(batch.layout, layout, memory.shape[1]), memory, cache)


def tokens_of(batch: Batch) -> tuple[Tensor, Layout]:
    """The (B, S) tokens that the encoder reads, and their layout.

    Raises:
        UnsupportedError: the batch has none.
    """
    if batch.source_tokens is None or batch.source_layout is None:
        raise UnsupportedError(
            "an encoder-decoder reads a source and writes a target, and this batch has no source; choose an "
            "objective that builds one, or a family that is a decoder only"
        )
    return batch.source_tokens, batch.source_layout
