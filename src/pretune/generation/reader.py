"""Several texts that a network reads while they grow, keys and values kept in a cache."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pretune.nn.cache import Cache
from pretune.types import Batch, Layout

HEAD = "causal_lm"


class Reader:
    """The logits of the next token of several texts of any lengths.

    Where a text outgrows ``max_length`` its beginning is forgotten: the later half of what the model can
    read is read anew, so a long text costs one extra pass each half length.
    """

    def __init__(
        self, network: nn.Module, texts: Sequence[Sequence[int]], *, max_length: int, caching: bool = True
    ) -> None:
        self.texts = [list(text) for text in texts]
        self._network, self._max_length, self._caching = network, max_length, caching
        self._cache = Cache()
        self._begins = [max(0, len(text) - max_length) for text in self.texts]

    def read(self) -> Tensor:
        """Logits (B, V) of the token after each text, all of it read."""
        self._cache = Cache()
        return self._read([text[begin:] for text, begin in zip(self.texts, self._begins, strict=True)])

    def add(self, tokens: Sequence[int]) -> Tensor:
        """Put a token behind each text; logits (B, V) of the token after it."""
        full = False
        for row, token in enumerate(tokens):
            text = self.texts[row]
            text.append(token)
            if len(text) - self._begins[row] > self._max_length:
                self._begins[row] = len(text) - max(1, self._max_length // 2)
                full = True
        return self.read() if full or not self._caching else self._read([[token] for token in tokens])

    def select(self, rows: Sequence[int]) -> None:
        """Keep, repeat or reorder rows: new row i is old row ``rows[i]``."""
        if list(rows) == list(range(len(self.texts))):
            return
        self.texts = [list(self.texts[row]) for row in rows]
        self._begins = [self._begins[row] for row in rows]
        self._cache.select(torch.tensor(list(rows)))

    def history(self) -> Tensor:
        """(B, T) the whole texts, -1 behind the shorter ones."""
        return _grid(self.texts, -1)

    def _read(self, new: Sequence[Sequence[int]]) -> Tensor:
        lengths = torch.tensor([len(tokens) for tokens in new])
        grid = _grid(new, 0)  # (B, T)
        last = torch.arange(len(new)) * grid.shape[1] + lengths - 1
        batch = Batch(grid, Layout(lengths, cached=self._cache.lengths), places={HEAD: last})
        cache = self._cache if self._caching else None
        logits: Tensor = self._network(batch, heads=(HEAD,), cache=cache).logits[HEAD]
        return logits


def _grid(rows: Sequence[Sequence[int]], empty: int) -> Tensor:
    width = max(len(row) for row in rows)
    return torch.tensor([[*row, *[empty] * (width - len(row))] for row in rows])
