"""Reading hidden states at the places of a head, and the loss over a vocabulary in chunks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from pretune.errors import ConfigError, UnsupportedError
from pretune.nn.dropout import Dropout
from pretune.types import IGNORED, Batch, Layout, Outputs

CHUNK_LOGITS = 1 << 22
"""Logits held at once: 16 MiB in fp32, near the cache of a desktop processor."""
CHUNK_ROWS = 256
"""At least as many places a chunk, so that the matrix products stay efficient at large V."""

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

    def loss(self, hidden: Tensor, targets: Tensor, smoothing: float = 0.0) -> Tensor:
        """(N, D) hidden states and (N,) ids to the summed cross-entropy, ()"""
        weight, bias = self.decoder.weight, self.decoder.bias
        return vocabulary_loss(self.transform(hidden), weight, bias, targets, smoothing)


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
            sums[name] = head.loss(chosen, targets[name], batch.smoothing.get(name, 0.0))
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


def vocabulary_loss(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, smoothing: float = 0.0
) -> Tensor:
    """Cross-entropy in nats, summed over places, without ever holding the (N, V) logits.

    Gradients are computed chunk by chunk in the forward pass, while the logits of the chunk are at hand
    (as in Liger Kernel, Hsu et al. 2024, section 3.2). On CPU this is faster than both the plain loss, whose
    logits leave the cache, and ``F.linear_cross_entropy`` in chunks. There is no second derivative.

    Args:
        hidden: (N, D)
        weight: (V, D)
        bias: (V,) or None
        targets: (N,) ids; ``IGNORED`` adds nothing.
        smoothing: share of each target that is spread evenly over V (Szegedy et al. 2016, section 7).

    Returns:
        () in fp32
    """
    learning = torch.is_grad_enabled()
    loss: Tensor = _VocabularyLoss.apply(hidden, weight, bias, targets, smoothing, learning)  # type: ignore[no-untyped-call]
    return loss


class _VocabularyLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        smoothing: float,
        learning: bool,
    ) -> Tensor:
        device = hidden.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
        rows = chunk_rows(len(hidden), weight.shape[0])
        with torch.autocast(device, enabled=False):
            matrix, offset = weight.to(dtype), None if bias is None else bias.to(dtype)
            total = torch.zeros((), device=hidden.device)
            gradients = _Gradients(hidden, weight, bias) if learning else None
            for start in range(0, len(hidden), rows):
                places = slice(start, start + rows)
                inputs, kept = hidden[places].to(dtype), targets[places] != IGNORED
                answers = targets[places].clamp(min=0)[:, None]  # (n, 1)
                logits = F.linear(inputs, matrix, offset).float()  # (n, V)
                top = logits.amax(-1)  # (n,)
                right = logits.gather(1, answers)[:, 0]  # (n,)
                if smoothing:
                    right = (1 - smoothing) * right + smoothing * logits.mean(-1)
                # In place, as the logits would not fit the cache twice.
                chances = torch.softmax(logits, -1, out=logits)
                # The largest logit less the logarithm of its chance is that of the sum over all.
                total += torch.where(kept, top - chances.amax(-1).log() - right, 0).sum()
                if gradients is not None:
                    # The derivative by the logits: chances less the target.
                    chances.scatter_add_(1, answers, chances.new_full((), smoothing - 1.0).expand_as(answers))
                    if smoothing:
                        chances -= smoothing / chances.shape[1]
                    gradients.add(places, chances.to(dtype), inputs, matrix, kept.to(dtype)[:, None])
        if gradients is not None:
            ctx.save_for_backward(gradients.hidden, gradients.weight, gradients.bias)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias = ctx.saved_tensors
        down = None if bias is None else bias * upstream
        # In place, as V x D is large; torch itself refuses a second backward pass.
        return hidden * upstream, weight.mul_(upstream), down, None, None, None


def chunk_rows(places: int, vocabulary: int) -> int:
    """How many places at a time, in chunks of about one size: a short last one would cost as much."""
    rows = max(CHUNK_ROWS, CHUNK_LOGITS // vocabulary)
    return -(-places // max(1, -(-places // rows))) or 1


class _Gradients:
    """The gradients of the loss, added up chunk by chunk."""

    def __init__(self, hidden: Tensor, weight: Tensor, bias: Tensor | None) -> None:
        self.hidden = torch.empty_like(hidden)
        self.weight = None if len(hidden) else torch.zeros_like(weight)  # None: the first chunk makes it
        self.bias = None if bias is None else torch.zeros_like(bias)

    def add(self, places: slice, errors: Tensor, inputs: Tensor, matrix: Tensor, kept: Tensor) -> None:
        """``errors`` (n, V) count where ``kept`` (n, 1) is 1; it is put to the narrow sides, not to V."""
        self.hidden[places] = (errors @ matrix).mul_(kept)  # (n, D)
        inputs = inputs * kept
        if self.weight is None:
            self.weight = (errors.t() @ inputs).to(self.hidden.dtype)  # (V, D)
        elif errors.dtype == self.weight.dtype:
            self.weight.addmm_(errors.t(), inputs)
        else:
            self.weight += errors.t() @ inputs
        if self.bias is not None:
            self.bias += (kept.t() @ errors)[0]
