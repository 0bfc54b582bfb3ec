"""Keys and values of the tokens that a decoder has already read."""

from __future__ import annotations

import torch
from torch import Tensor

from pretune.types import Layout


class KVCache:
    """Keys and values of every layer, the key of a row's position p in slot p.

    Rows may differ in length: whatever lies beyond a row's end is overwritten by its next tokens, and no
    place ever looks to its right. A step is ``network(batch, heads, cache=cache)`` with
    ``layout.cached = cache.lengths`` (None in the first step) and ``layout.lengths`` = the new tokens.

    The decoder of an encoder-decoder keeps those of its source, too: see `source.Source`.
    """

    def __init__(self) -> None:
        self.lengths: Tensor | None = None
        """(B,) tokens that each row holds."""
        self.source_layout: Layout | None = None
        """Of the source whose keys and values are kept; None: none has been read yet."""
        self._source_keys_values: list[tuple[Tensor, Tensor]] = []  # (B, G, S, K), keys and values
        self._layers: list[tuple[Tensor, Tensor]] = []  # (B, G, capacity, K), keys and values
        self._slots: Tensor | None = None  # (B, T), where the new tokens go; None: 0, 1, 2, ...
        self._length = 0

    def prepare(self, layout: Layout, seq_length: int) -> None:
        """Before the layers: say where the T = ``seq_length`` new tokens of each row go."""
        if layout.cache_lengths is None:
            self._slots, self._length, self._layers = None, seq_length, []
            self.source_layout, self._source_keys_values = None, []
            self.lengths = layout.lengths
            return
        self._length = int(layout.cache_lengths.max()) + seq_length
        self._slots = layout.cache_lengths[:, None] + torch.arange(
            seq_length, device=layout.cache_lengths.device
        )
        self.lengths = layout.cache_lengths + layout.lengths

    def extend(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Store the new (B, G, T, K) of a layer; returns all that it holds, (B, G, S, K) each."""
        if self._slots is None:
            self._layers.append((key, value))
            return key, value
        if self._layers[layer][0].shape[2] < self._length:
            # Half as much again: the copies of a long text add up to a constant share of its writing.
            self._layers[layer] = tuple(_enlarge(held, self._length * 3 // 2) for held in self._layers[layer])  # type: ignore[assignment]
        keys, values = self._layers[layer]
        rows = torch.arange(len(key), device=key.device)[:, None]  # (B, 1)
        keys[rows, :, self._slots] = key.transpose(1, 2)
        values[rows, :, self._slots] = value.transpose(1, 2)
        return keys[:, :, : self._length], values[:, :, : self._length]

    def store_source(self, key: Tensor, value: Tensor) -> None:
        """Keep what the next layer reads of the source, (B, G, S, K) each."""
        self._source_keys_values.append((key, value))

    def source_keys_values(self, layer: int) -> tuple[Tensor, Tensor]:
        """What a layer reads of the source, (B, G, S, K) each."""
        return self._source_keys_values[layer]

    def select(self, rows: Tensor) -> None:
        """Keep, repeat or reorder rows, as beams are: new row i is old row ``rows[i]``, (B,)."""
        self._layers = [(keys[rows], values[rows]) for keys, values in self._layers]
        self._source_keys_values = [(keys[rows], values[rows]) for keys, values in self._source_keys_values]
        if self.source_layout is not None:
            self.source_layout = Layout(lengths=self.source_layout.lengths[rows])
        if self.lengths is not None:
            self.lengths = self.lengths[rows]


def _enlarge(tensor: Tensor, capacity: int) -> Tensor:
    batch, groups, length, width = tensor.shape
    enlarged = tensor.new_zeros(batch, groups, capacity, width)  # zeros: what is masked must still be finite
    enlarged[:, :, :length] = tensor
    return enlarged


class SegmentMemory:
    """Hidden states of a text's earlier segments, which the next attends to (Dai et al. 2019, section 3.2).

    They carry no gradient. Rows of a batch belong to the same texts from segment to segment; one that has
    ended holds padding, which only padding looks at.
    """

    def __init__(self, max_length: int) -> None:
        """``max_length``: places that it holds at most."""
        self.max_length = max_length
        self._layers: dict[int, Tensor] = {}  # (B, M, D), what went into each layer

    @property
    def size(self) -> int:
        """M, the places that it holds."""
        return self._layers[0].shape[1] if self._layers else 0

    def extend(self, layer: int, hidden: Tensor) -> Tensor:
        """What the layer attends to, (B, M + T, D), of its own (B, T, D), which is remembered from now on."""
        extended = torch.cat([self._layers[layer], hidden], 1) if layer in self._layers else hidden
        self._layers[layer] = extended.detach()[:, -self.max_length :]
        return extended
