"""Keys and values of the tokens that a decoder has already read."""

from __future__ import annotations

import torch
from torch import Tensor

from pretune.types import Layout


class Cache:
    """Keys and values of every layer, the key of a row's position p in slot p.

    Rows may differ in length: whatever lies beyond a row's end is overwritten by its next tokens, and no
    place ever looks to its right. A step is ``network(batch, heads, cache=cache)`` with
    ``layout.cached = cache.lengths`` (None in the first step) and ``layout.lengths`` = the new tokens.

    The decoder of an encoder-decoder keeps those of its source, too: see `source.Source`.
    """

    def __init__(self) -> None:
        self.lengths: Tensor | None = None
        """(B,) tokens that each row holds."""
        self.source: Layout | None = None
        """Of the source whose keys and values are kept; None: none has been read yet."""
        self._sources: list[tuple[Tensor, Tensor]] = []  # (B, G, S, K), keys and values
        self._layers: list[tuple[Tensor, Tensor]] = []  # (B, G, capacity, K), keys and values
        self._slots: Tensor | None = None  # (B, T), where the new tokens go; None: 0, 1, 2, ...
        self._size = 0

    def open(self, layout: Layout, width: int) -> None:
        """Before the layers: say where the T = ``width`` new tokens of each row go."""
        if layout.cached is None:
            self._slots, self._size, self._layers = None, width, []
            self.source, self._sources = None, []
            self.lengths = layout.lengths
            return
        self._size = int(layout.cached.max()) + width
        self._slots = layout.cached[:, None] + torch.arange(width, device=layout.cached.device)
        self.lengths = layout.cached + layout.lengths

    def extend(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Store the new (B, G, T, K) of a layer; returns all that it holds, (B, G, S, K) each."""
        if self._slots is None:
            self._layers.append((key, value))
            return key, value
        if self._layers[layer][0].shape[2] < self._size:
            # Half as much again: the copies of a long text add up to a constant share of its writing.
            self._layers[layer] = tuple(_grown(held, self._size * 3 // 2) for held in self._layers[layer])  # type: ignore[assignment]
        keys, values = self._layers[layer]
        rows = torch.arange(len(key), device=key.device)[:, None]  # (B, 1)
        keys[rows, :, self._slots] = key.transpose(1, 2)
        values[rows, :, self._slots] = value.transpose(1, 2)
        return keys[:, :, : self._size], values[:, :, : self._size]

    def keep_source(self, key: Tensor, value: Tensor) -> None:
        """Keep what the next layer reads of the source, (B, G, S, K) each."""
        self._sources.append((key, value))

    def source_of(self, layer: int) -> tuple[Tensor, Tensor]:
        """What a layer reads of the source, (B, G, S, K) each."""
        return self._sources[layer]

    def select(self, rows: Tensor) -> None:
        """Keep, repeat or reorder rows, as beams are: new row i is old row ``rows[i]``, (B,)."""
        self._layers = [(keys[rows], values[rows]) for keys, values in self._layers]
        self._sources = [(keys[rows], values[rows]) for keys, values in self._sources]
        if self.source is not None:
            self.source = Layout(lengths=self.source.lengths[rows])
        if self.lengths is not None:
            self.lengths = self.lengths[rows]


def _grown(held: Tensor, capacity: int) -> Tensor:
    batch, groups, size, width = held.shape
    grown = held.new_zeros(batch, groups, capacity, width)  # zeros: what is masked must still be finite
    grown[:, :, :size] = held
    return grown


class Memory:
    """Hidden states of a text's earlier segments, which the next attends to (Dai et al. 2019, section 3.2).

    They carry no gradient. Rows of a batch belong to the same texts from segment to segment; one that has
    ended holds padding, which only padding looks at.
    """

    def __init__(self, length: int) -> None:
        """``length``: places that it holds at most."""
        self.length = length
        self._layers: dict[int, Tensor] = {}  # (B, M, D), what went into each layer

    @property
    def size(self) -> int:
        """M, the places that it holds."""
        return self._layers[0].shape[1] if self._layers else 0

    def extend(self, layer: int, hidden: Tensor) -> Tensor:
        """What the layer attends to, (B, M + T, D), of its own (B, T, D), which is remembered from now on."""
        whole = torch.cat([self._layers[layer], hidden], 1) if layer in self._layers else hidden
        self._layers[layer] = whole.detach()[:, -self.length :]
        return whole
