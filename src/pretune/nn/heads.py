"""Reading hidden states at the places of a head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from pretune.errors import ConfigError, UnsupportedError
from pretune.nn.dropout import Dropout
from pretune.nn.sampled_softmax import sampled_softmax_loss
from pretune.nn.vocabulary_loss import vocabulary_loss
from pretune.types import Batch, Layout, NegativeSamples, Outputs

Pooling = Literal["all", "first", "last", "mean"]
"""Where a head reads if it is given no places: everywhere, or at each row's first or last real place;
``mean`` reads at the first, too, and finds at any place the mean of its text."""


class VocabularyHead(nn.Module):
    """A transform and a linear map to the vocabulary, whose weight may be the word embedding's own."""

    pooling: Pooling = "all"

    def __init__(self, decoder: nn.Linear, transform: nn.Module | None = None) -> None:
        super().__init__()
        self.transform = transform or nn.Identity()
        self.decoder = decoder

    def forward(self, hidden: Tensor) -> Tensor:
        """(N, D) to logits (N, V)"""
        logits: Tensor = self.decoder(self.transform(hidden))
        return logits

    def loss(
        self,
        hidden: Tensor,
        targets: Tensor,
        label_smoothing: float = 0.0,
        negative_samples: NegativeSamples | None = None,
    ) -> Tensor:
        """(N, D) hidden states and (N,) ids to the summed cross-entropy, (), estimated by
        ``negative_samples``.

        What is smoothed needs all logits, and is no estimate.
        """
        weight, bias = self.decoder.weight, self.decoder.bias
        if negative_samples is None or label_smoothing:
            return vocabulary_loss(self.transform(hidden), weight, bias, targets, label_smoothing)
        return sampled_softmax_loss(self.transform(hidden), weight, bias, targets, negative_samples)


class TanhClassifier(nn.Module):
    """Two maps, tanh between them, from the last place, which has read the whole text, to the classes.

    That of encoder-decoders (Lewis et al. 2020, section 3.1).

    Raises:
        ConfigError: there are no classes.
    """

    pooling: Pooling = "last"

    def __init__(self, hidden_size: int, num_labels: int, dropout: float) -> None:
        super().__init__()
        if num_labels < 1:
            raise ConfigError("num_labels: a classification head needs at least one")
        self.dense = nn.Linear(hidden_size, hidden_size)
        self.dropout = Dropout(dropout)
        self.output = nn.Linear(hidden_size, num_labels)

    def forward(self, hidden: Tensor) -> Tensor:
        """(N, D) to (N, C)"""
        inner = self.dense(self.dropout(hidden)).tanh()
        logits: Tensor = self.output(self.dropout(inner))
        return logits


def run_heads(
    heads: nn.ModuleDict,
    hidden: Tensor,
    batch: Batch,
    head_names: Sequence[str],
    targets: Mapping[str, Tensor] | None = None,
    cache: Any = None,
) -> Outputs:
    """Run the heads that are asked for, each at its own places.

    Args:
        hidden: (B, T, D), or (M, D), the places that `narrow` told.

    Raises:
        UnsupportedError: the network was built without a head that is asked for.
    """
    logits, sums = {}, {}
    is_full_grid, start = hidden.ndim == 3, 0
    for name in head_names:
        head, positions = _get_head(heads, name), _head_positions(heads, batch, name)
        if is_full_grid:
            inputs = head_inputs(heads, hidden, batch, name)
        else:
            assert positions is not None, "narrow leaves the grid whole where a head reads all of it"
            inputs, start = hidden[start : start + len(positions)], start + len(positions)
        if targets is not None and name in targets and isinstance(head, VocabularyHead):
            label_smoothing = batch.label_smoothing.get(name, 0.0)
            sums[name] = head.loss(inputs, targets[name], label_smoothing, batch.negative_samples)
        else:
            logits[name] = head(inputs)
    return Outputs(logits=logits, sums=sums, hidden=hidden if is_full_grid else None, cache=cache)


def head_inputs(heads: nn.ModuleDict, hidden: Tensor, batch: Batch, name: str) -> Tensor:
    """The hidden states that a head reads of the whole grid: (B, T, D) to (N, D)."""
    mean = _get_head(heads, name).pooling == "mean"
    return gather(
        document_means(hidden, batch.layout) if mean else hidden, _head_positions(heads, batch, name)
    )


def needed_positions(heads: nn.ModuleDict, batch: Batch, head_names: Sequence[str]) -> Tensor | None:
    """The places that the heads asked for read, (M,), one head's behind another's; None: the whole grid.

    What follows the mixing of the last attention is done for each place by itself, so that a network need
    not do it where no head reads. Where they read more than half of the grid, it does not pay; a mean is read
    off all of it.
    """
    if any(_get_head(heads, name).pooling == "mean" for name in head_names):
        return None
    found = [_head_positions(heads, batch, name) for name in head_names]
    subsets = [positions for positions in found if positions is not None]
    if not subsets or len(subsets) < len(found) or 2 * sum(map(len, subsets)) > batch.tokens.numel():
        return None
    return torch.cat(subsets)  # (M,)


def select(hidden: Tensor, positions: Tensor | None) -> Tensor:
    """(B, T, D) hidden states as they are, or (M, D) of them at ``positions``."""
    return hidden if positions is None else gather(hidden, positions)


def _get_head(heads: nn.ModuleDict, name: str) -> nn.Module:
    if name not in heads:
        raise UnsupportedError(f"the network has no head {name!r}; it was built with: {', '.join(heads)}")
    return heads[name]


def _head_positions(heads: nn.ModuleDict, batch: Batch, name: str) -> Tensor | None:
    positions, head = batch.positions.get(name), _get_head(heads, name)
    return default_positions(batch, cast(Pooling, head.pooling)) if positions is None else positions


def gather(hidden: Tensor, positions: Tensor | None) -> Tensor:
    """The (N, D) rows of (B, T, D) at ``positions`` (N,) of the flattened grid; None: all, without a copy."""
    flat = hidden.flatten(0, 1)  # (B * T, D)
    return flat if positions is None else flat.index_select(0, positions)


@dataclass(frozen=True)
class PositionsByRow:
    """Places of the flattened grid, (N,), gathered by row into (B, P); none reads what fills a row up."""

    positions: Tensor
    """(B, P)"""
    slots: Tensor
    """(N,) where each place lies in the flattened (B, P)."""

    @classmethod
    def from_positions(cls, flat_positions: Tensor, batch_size: int, seq_length: int) -> PositionsByRow:
        """Of places in any order, in a grid of B = ``batch_size`` by T = ``seq_length``."""
        rows = flat_positions // seq_length  # (N,)
        counts = rows.bincount(minlength=batch_size)  # (B,)
        max_count = max(1, int(counts.max()))
        before = (counts.cumsum(0) - counts).repeat_interleave(counts)  # (N,)
        inside = torch.empty_like(flat_positions)
        inside[rows.argsort(stable=True)] = (
            torch.arange(len(flat_positions), device=flat_positions.device) - before
        )
        slots = rows * max_count + inside
        positions = flat_positions.new_zeros(batch_size * max_count).index_put(
            (slots,), flat_positions % seq_length
        )
        return cls(positions.view(batch_size, max_count), slots)


def default_positions(batch: Batch, pooling: Pooling) -> Tensor | None:
    """Where a head reads that was given no places: (B,) places of the flattened grid, or None for all."""
    if pooling == "all":
        return None
    rows, width = batch.tokens.shape
    first = torch.arange(rows, device=batch.tokens.device) * width
    return first + batch.layout.lengths - 1 if pooling == "last" else first


def document_means(hidden: Tensor, layout: Layout) -> Tensor:
    """(B, T, D) to (B, T, D): each place becomes the mean of its document."""
    documents = layout.documents
    if documents is None:
        positions = torch.arange(hidden.shape[1], device=hidden.device)
        documents = torch.where(positions < layout.lengths[:, None], 0, -1)  # (B, T)
    same = (documents[:, :, None] == documents[:, None, :]).to(hidden.dtype)  # (B, T, T)
    return same @ hidden / same.sum(-1, keepdim=True)
