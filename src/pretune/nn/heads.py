"""Reading hidden states at the places of a head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from pretune.errors import ConfigError, UnsupportedError
from pretune.nn.dropout import Dropout
from pretune.nn.sampled_softmax import sampled_loss
from pretune.nn.vocabulary_loss import vocabulary_loss
from pretune.types import Batch, Candidates, Layout, Outputs

Reads = Literal["all", "first", "last", "mean"]
"""Where a head reads if it is given no places: everywhere, or at each row's first or last real place;
``mean`` reads at the first, too, and finds at any place the mean of its text."""


class VocabularyHead(nn.Module):
    """A transform and a linear map to the vocabulary, whose weight may be the word embedding's own."""

    reads: Reads = "all"

    def __init__(self, decoder: nn.Linear, transform: nn.Module | None = None) -> None:
        super().__init__()
        self.transform = transform or nn.Identity()
        self.decoder = decoder

    def forward(self, hidden: Tensor) -> Tensor:
        """(N, D) to logits (N, V)"""
        logits: Tensor = self.decoder(self.transform(hidden))
        return logits

    def loss(
        self, hidden: Tensor, targets: Tensor, smoothing: float = 0.0, candidates: Candidates | None = None
    ) -> Tensor:
        """(N, D) hidden states and (N,) ids to the summed cross-entropy, (), estimated by ``candidates``.

        What is smoothed needs all logits, and is no estimate.
        """
        weight, bias = self.decoder.weight, self.decoder.bias
        if candidates is None or smoothing:
            return vocabulary_loss(self.transform(hidden), weight, bias, targets, smoothing)
        return sampled_loss(self.transform(hidden), weight, bias, targets, candidates)


class TanhClassifier(nn.Module):
    """Two maps, tanh between them, from the last place, which has read the whole text, to the classes.

    That of encoder-decoders (Lewis et al. 2020, section 3.1).

    Raises:
        ConfigError: there are no classes.
    """

    reads: Reads = "last"

    def __init__(self, width: int, classes: int, dropout: float) -> None:
        super().__init__()
        if classes < 1:
            raise ConfigError("num_labels: a classification head needs at least one")
        self.dense = nn.Linear(width, width)
        self.dropout = Dropout(dropout)
        self.output = nn.Linear(width, classes)

    def forward(self, hidden: Tensor) -> Tensor:
        """(N, D) to (N, C)"""
        inner = self.dense(self.dropout(hidden)).tanh()
        logits: Tensor = self.output(self.dropout(inner))
        return logits


def read(
    heads: nn.ModuleDict,
    hidden: Tensor,
    batch: Batch,
    asked: Sequence[str],
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
    whole, start = hidden.ndim == 3, 0
    for name in asked:
        head, places = _known(heads, name), _places(heads, batch, name)
        if whole:
            chosen = states(heads, hidden, batch, name)
        else:
            assert places is not None, "narrow leaves the grid whole where a head reads all of it"
            chosen, start = hidden[start : start + len(places)], start + len(places)
        if targets is not None and name in targets and isinstance(head, VocabularyHead):
            smoothing = batch.smoothing.get(name, 0.0)
            sums[name] = head.loss(chosen, targets[name], smoothing, batch.candidates)
        else:
            logits[name] = head(chosen)
    return Outputs(logits=logits, sums=sums, hidden=hidden if whole else None, cache=cache)


def states(heads: nn.ModuleDict, hidden: Tensor, batch: Batch, name: str) -> Tensor:
    """The hidden states that a head reads of the whole grid: (B, T, D) to (N, D)."""
    mean = _known(heads, name).reads == "mean"
    return gather(means(hidden, batch.layout) if mean else hidden, _places(heads, batch, name))


def narrow(heads: nn.ModuleDict, batch: Batch, asked: Sequence[str]) -> Tensor | None:
    """The places that the heads asked for read, (M,), one head's behind another's; None: the whole grid.

    What follows the mixing of the last attention is done for each place by itself, so that a network need
    not do it where no head reads. Where they read more than half of the grid, it does not pay; a mean is read
    off all of it.
    """
    if any(_known(heads, name).reads == "mean" for name in asked):
        return None
    found = [_places(heads, batch, name) for name in asked]
    told = [places for places in found if places is not None]
    if not told or len(told) < len(found) or 2 * sum(map(len, told)) > batch.tokens.numel():
        return None
    return torch.cat(told)  # (M,)


def at(hidden: Tensor, places: Tensor | None) -> Tensor:
    """(B, T, D) hidden states as they are, or (M, D) of them at ``places``."""
    return hidden if places is None else gather(hidden, places)


def _known(heads: nn.ModuleDict, name: str) -> nn.Module:
    if name not in heads:
        raise UnsupportedError(f"the network has no head {name!r}; it was built with: {', '.join(heads)}")
    return heads[name]


def _places(heads: nn.ModuleDict, batch: Batch, name: str) -> Tensor | None:
    places, head = batch.places.get(name), _known(heads, name)
    return default_places(batch, cast(Reads, head.reads)) if places is None else places


def gather(hidden: Tensor, places: Tensor | None) -> Tensor:
    """The (N, D) rows of (B, T, D) at ``places`` (N,) of the flattened grid; None: all, without a copy."""
    flat = hidden.flatten(0, 1)  # (B * T, D)
    return flat if places is None else flat.index_select(0, places)


@dataclass(frozen=True)
class ByRow:
    """Places of the flattened grid, (N,), gathered by row into (B, P); none reads what fills a row up."""

    columns: Tensor
    """(B, P)"""
    slots: Tensor
    """(N,) where each place lies in the flattened (B, P)."""

    @classmethod
    def of(cls, places: Tensor, rows: int, width: int) -> ByRow:
        """Of places in any order, in a grid of B = ``rows`` by T = ``width``."""
        lines = places // width  # (N,)
        counts = lines.bincount(minlength=rows)  # (B,)
        most = max(1, int(counts.max()))
        before = (counts.cumsum(0) - counts).repeat_interleave(counts)  # (N,)
        inside = torch.empty_like(places)
        inside[lines.argsort(stable=True)] = torch.arange(len(places), device=places.device) - before
        slots = lines * most + inside
        columns = places.new_zeros(rows * most).index_put((slots,), places % width)
        return cls(columns.view(rows, most), slots)


def default_places(batch: Batch, reads: Reads) -> Tensor | None:
    """Where a head reads that was given no places: (B,) places of the flattened grid, or None for all."""
    if reads == "all":
        return None
    rows, width = batch.tokens.shape
    first = torch.arange(rows, device=batch.tokens.device) * width
    return first + batch.layout.lengths - 1 if reads == "last" else first


def means(hidden: Tensor, layout: Layout) -> Tensor:
    """(B, T, D) to (B, T, D): each place becomes the mean of its document."""
    documents = layout.documents
    if documents is None:
        places = torch.arange(hidden.shape[1], device=hidden.device)
        documents = torch.where(places < layout.lengths[:, None], 0, -1)  # (B, T)
    same = (documents[:, :, None] == documents[:, None, :]).to(hidden.dtype)  # (B, T, T)
    return same @ hidden / same.sum(-1, keepdim=True)
