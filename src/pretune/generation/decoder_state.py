"""Several texts that a network reads while they grow, keys and values kept in a cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from pretune.nn.cache import KVCache
from pretune.nn.nonfinite import check_finite
from pretune.runtime.device import network_device
from pretune.types import Batch, Layout

HEAD = "causal_lm"


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a text is written from."""

    tokens: Sequence[int]
    """What the text begins with: of an encoder-decoder no more than what starts its decoder."""
    source: Sequence[int] | None = None
    """What an encoder-decoder reads; None: the network is a decoder only."""
    bidirectional: bool = False
    """Do the places of ``tokens`` see each other both ways?"""

    @property
    def num_tokens(self) -> int:
        """Tokens that are read before the first is written."""
        return len(self.tokens) + len(self.source or ())

    @property
    def context(self) -> Sequence[int]:
        """What the first new word follows on, if it is text at all."""
        return self.tokens if self.source is None else ()


class DecoderState:
    """The logits of the next token of several texts of any lengths.

    Where a text outgrows ``max_length`` its beginning is forgotten: the later half of what the model can
    read is read anew, so a long text costs one extra pass each half length. The texts of an encoder-decoder
    do not outgrow it: its decoder would miss what it begins with.

    A prompt that is read both ways is so in one pass, after which its keys and values stay as they are: what
    is written later is seen from its right only. What is read anew of a text is its new beginning, and read
    as the old one was.
    """

    def __init__(
        self, network: nn.Module, prompts: Sequence[Prompt], *, max_length: int, use_cache: bool = True
    ) -> None:
        self.texts = [list(prompt.tokens) for prompt in prompts]
        self._sources = [prompt.source for prompt in prompts if prompt.source is not None]
        self._network, self._max_length, self._use_cache = network, max_length, use_cache
        self._device = network_device(network)
        self._cache = KVCache()
        self._window_starts = [max(0, len(text) - max_length) for text in self.texts]
        self._prefix_lengths = [
            len(text) - begin if prompt.bidirectional else 0
            for text, begin, prompt in zip(self.texts, self._window_starts, prompts, strict=True)
        ]

    def prefill(self) -> Tensor:
        """Logits (B, V) of the token after each text, all of it read."""
        self._cache = KVCache()
        return self._forward(
            [text[begin:] for text, begin in zip(self.texts, self._window_starts, strict=True)]
        )

    def append(self, tokens: Sequence[int]) -> Tensor:
        """Put a token behind each text; logits (B, V) of the token after it."""
        is_full = False
        for row, token in enumerate(tokens):
            text = self.texts[row]
            text.append(token)
            if len(text) - self._window_starts[row] > self._max_length:
                self._window_starts[row] = len(text) - max(1, self._max_length // 2)
                if self._prefix_lengths[row]:
                    self._prefix_lengths[row] = len(text) - self._window_starts[row]
                is_full = True
        return (
            self.prefill() if is_full or not self._use_cache else self._forward([[token] for token in tokens])
        )

    def select(self, rows: Sequence[int]) -> None:
        """Keep, repeat or reorder rows: new row i is old row ``rows[i]``."""
        if list(rows) == list(range(len(self.texts))):
            return
        self.texts = [list(self.texts[row]) for row in rows]
        self._window_starts = [self._window_starts[row] for row in rows]
        self._sources = [self._sources[row] for row in rows] if self._sources else []
        self._prefix_lengths = [self._prefix_lengths[row] for row in rows]
        self._cache.select(torch.tensor(list(rows), device=self._device))

    def history(self) -> Tensor:
        """(B, T) the whole texts, -1 behind the shorter ones."""
        return _pad(self.texts, -1)

    def _forward(self, new_tokens: Sequence[Sequence[int]]) -> Tensor:
        lengths = torch.tensor([len(tokens) for tokens in new_tokens])
        grid = _pad(new_tokens, 0)  # (B, T)
        last = torch.arange(len(new_tokens)) * grid.shape[1] + lengths - 1
        layout = Layout(lengths, cache_lengths=self._cache.lengths)
        if any(self._prefix_lengths) and layout.cache_lengths is None:
            layout = replace(layout, prefix_lengths=torch.tensor(self._prefix_lengths))
        batch = Batch(grid, layout, positions={HEAD: last})
        if self._sources and self._cache.source_layout is None:
            sizes = torch.tensor([len(source) for source in self._sources])
            batch = replace(batch, source_tokens=_pad(self._sources, 0), source_layout=Layout(sizes))
        cache = self._cache if self._use_cache else None
        logits: Tensor = self._network(batch.to(self._device), heads=(HEAD,), cache=cache).logits[HEAD]
        return check_finite(logits).cpu()  # what is chosen from them is chosen there


def _pad(rows: Sequence[Sequence[int]], pad_value: int) -> Tensor:
    width = max(len(row) for row in rows)
    return torch.tensor([[*row, *[pad_value] * (width - len(row))] for row in rows])
