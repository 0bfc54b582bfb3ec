"""What the decoder of an encoder-decoder reads of its source, which is encoded once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from pretune.errors import UnsupportedError
from pretune.nn import attention
from pretune.nn.cache import KVCache
from pretune.types import Batch, Layout

KeysAndValues = tuple[Tensor, Tensor]
"""(B, G, S, K) each."""


@dataclass(frozen=True)
class EncoderOutput:
    """The source as the layers of one forward pass attend to it."""

    mask: attention.AttentionMask
    hidden: Tensor | None
    """(B, S, D), what the encoder said; None: all that is read of it lies in the cache."""
    cache: KVCache | None

    def keys_values(self, layer: int, project: Callable[[Tensor], KeysAndValues]) -> KeysAndValues:
        """The keys and values of a layer, made by ``project`` of the memory unless they are kept already."""
        if self.hidden is None:
            assert self.cache is not None, "the memory is left out where a cache holds what is read of it"
            return self.cache.source_keys_values(layer)
        key, value = project(self.hidden)
        if self.cache is not None:
            self.cache.store_source(key, value)
        return key, value


def encode_source(batch: Batch, encode: Callable[[Batch], Tensor], cache: KVCache | None) -> EncoderOutput:
    """The source of a batch, encoded; where a cache holds one, the batch need not bring it again.

    Raises:
        UnsupportedError: the batch has no source.
    """
    if cache is not None and cache.source_layout is not None:
        size = cache.source_keys_values(0)[0].shape[2]
        return EncoderOutput(
            attention.cross_attention_mask(batch.layout, cache.source_layout, size), None, cache
        )
    _, layout = source_inputs(batch)
    hidden = encode(batch)  # (B, S, D)
    if cache is not None:
        cache.source_layout = layout
    return EncoderOutput(attention.cross_attention_mask(batch.layout, layout, hidden.shape[1]), hidden, cache)


def source_inputs(batch: Batch) -> tuple[Tensor, Layout]:
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
