"""The table of heads: what each is made of, what it reads, and the stock class that has it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pretune.errors import ConfigError, UnsupportedError
from pretune.nn.dropout import Dropout
from pretune.nn.sampled_softmax import sampled_softmax_loss
from pretune.nn.vocabulary_loss import vocabulary_loss, vocabulary_nll
from pretune.types import Batch, Layout, LossOptions, Outputs

HeadType = Literal["vocabulary", "sequence", "token", "span", "choice", "embedding"]
"""What a head gives: a token's logits (N, V); a text's or a token's classes (N, C); the logits of an answer's
start and end at each token (N, 2); a logit a choice (N, 1), of which the task compares several; a vector."""
Pooling = Literal["all", "first", "last", "mean"]
"""Where a head reads if it is given no positions: everywhere, or at each row's first or last real position;
``mean`` reads at the first, too, and finds at any position the mean of its text."""


class HeadModule(nn.Module):
    """The module of a head: (N, D) hidden states at its positions to (N, C)."""

    pooling: Pooling = "all"
    """Set by `build_head`, from the head's entry in the table."""


MakeHead = Callable[[Any, int], HeadModule]
"""The network under construction and the number of outputs to the head's module."""


@dataclass(frozen=True)
class Head:
    """One head of a family."""

    type: HeadType
    stock: str
    """Its class in transformers, without the name of the architecture: ``ForTokenClassification``."""
    make: MakeHead
    reads: Pooling | Callable[[Any], Pooling] = "all"
    """Its positions where the batch names none; a function of the config where that decides."""
    weights: Mapping[str, str] = field(default_factory=dict)
    """Names of its own tensors, below ``heads.<name>.`` in ours, to those of the stock class (see `Rename`).
    A tensor that other heads and the body share stands in the family's ``WEIGHTS``."""
    body_prefix: Callable[[Any], tuple[str, str]] | None = None
    """What the names of the body's tensors begin with in the family's ``WEIGHTS``, and in this stock class,
    for a config; None: with the same."""
    num_outputs: int | None = None
    """C where it is fixed; None: as many as the data or the vocabulary have."""
    is_pretrained: bool = False
    """Pretraining trains it; else fine-tuning does, and its outputs mean what one task's data said."""
    stock_with: Mapping[str, str] = field(default_factory=dict)
    """Another head to the stock class that has both."""

    @property
    def is_labeled(self) -> bool:
        """Is one of its outputs a class of the training data?"""
        return self.type in ("sequence", "token") and self.num_outputs is None

    def pooling(self, config: Any) -> Pooling:
        """What it reads in a network of this config."""
        return self.reads(config) if callable(self.reads) else self.reads


def combined_names(heads: Mapping[str, Head]) -> Iterator[str]:
    """Each head, and each two that one stock class has, joined by ``+``."""
    for name, head in heads.items():
        yield name
        yield from (f"{name}+{other}" for other in head.stock_with)


def stock_class(heads: Mapping[str, Head], prefix: str, names: str) -> str:
    """The stock class of a head, or of two joined by ``+``, of the architecture that transformers calls so.

    Raises:
        UnsupportedError: there is none.
    """
    if names not in combined_names(heads):
        raise UnsupportedError(f"there is no head {names!r}; there are: {', '.join(combined_names(heads))}")
    first, _, second = names.partition("+")
    return prefix + (heads[first].stock_with[second] if second else heads[first].stock)


def build_head(
    heads: Mapping[str, Head], name: str, network: Any, num_labels: int, family: str
) -> HeadModule:
    """The module of a head, for a network whose body is built already.

    Args:
        num_labels: of a labelled head.

    Raises:
        UnsupportedError: the family has no such head.
        ConfigError: a labelled head without labels.
    """
    if name not in heads:
        raise UnsupportedError(f"{family} has no head {name!r}; it has: {', '.join(heads)}")
    head = heads[name]
    if head.is_labeled and num_labels < 1:
        raise ConfigError(f"num_labels: a {name} head needs at least one")
    module = head.make(network, num_labels if head.num_outputs is None else head.num_outputs)
    module.pooling = head.pooling(network.config)
    return module


def _no_dropout(config: Any) -> float:
    return 0.0


def make_linear(dropout: Callable[[Any], float] = _no_dropout, *, bias: bool = True) -> MakeHead:
    """One linear map behind a dropout whose rate follows from the config."""

    def make(network: Any, num_outputs: int) -> HeadModule:
        return LinearHead(network.config.hidden_size, num_outputs, dropout(network.config), bias=bias)

    return make


def token_head(make: MakeHead, weights: Mapping[str, str]) -> Head:
    """Classes of each token."""
    return Head("token", "ForTokenClassification", make, weights=weights)


def span_head(
    make: MakeHead | None = None,
    weights: Mapping[str, str] | None = None,
    stock: str = "ForQuestionAnswering",
) -> Head:
    """Logits of an answer's first and last token at each token."""
    own = {"output.{leaf}": "qa_outputs.{leaf}"} if weights is None else weights
    return Head("span", stock, make or make_linear(), weights=own, num_outputs=2)


def choice_head(
    make: MakeHead, weights: Mapping[str, str], reads: Pooling | Callable[[Any], Pooling]
) -> Head:
    """One logit a text, which the task compares with those of the other choices."""
    return Head("choice", "ForMultipleChoice", make, reads, weights, num_outputs=1)


def last_position_classifier() -> Head:
    """A linear map without bias from the last real position to a text's classes."""
    make = make_linear(bias=False)
    return Head("sequence", "ForSequenceClassification", make, "last", {"output.weight": "score.weight"})


def decoder_heads(lm_head: MakeHead, token_classifier: str, stock_lm: str = "ForCausalLM") -> dict[str, Head]:
    """The usual heads of a decoder.

    Args:
        token_classifier: what stock calls the map to a token's classes.
        stock_lm: its class with the head over the vocabulary.
    """
    return {
        "causal_lm": Head("vocabulary", stock_lm, lm_head, is_pretrained=True),
        "classification": last_position_classifier(),
        "token_classification": token_head(make_linear(), {"output.{leaf}": token_classifier + ".{leaf}"}),
        "question_answering": span_head(),
    }


class LinearHead(HeadModule):
    """A linear map to the outputs."""

    def __init__(
        self, hidden_size: int, num_outputs: int, dropout: float = 0.0, *, bias: bool = True
    ) -> None:
        super().__init__()
        self.dropout = Dropout(dropout)
        self.output = nn.Linear(hidden_size, num_outputs, bias=bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """(N, D) to (N, C)"""
        logits: Tensor = self.output(self.dropout(hidden))
        return logits


class VocabularyHead(HeadModule):
    """A transform and a linear map to the vocabulary, whose weight may be the word embedding's own."""

    def __init__(self, decoder: nn.Linear, transform: nn.Module | None = None) -> None:
        super().__init__()
        self.transform = transform or nn.Identity()
        self.decoder = decoder

    def forward(self, hidden: Tensor) -> Tensor:
        """(N, D) to logits (N, V)"""
        logits: Tensor = self.decoder(self.transform(hidden))
        return logits

    def loss(self, hidden: Tensor, targets: Tensor, options: LossOptions) -> Tensor:
        """(N, D) hidden states and (N,) ids to the summed cross-entropy, ().

        It is estimated where the options hold negative samples; what is smoothed needs all logits.
        """
        weight, bias, smoothing = self.decoder.weight, self.decoder.bias, options.label_smoothing
        if options.negative_samples is None or smoothing:
            return vocabulary_loss(self.transform(hidden), weight, bias, targets, smoothing)
        return sampled_softmax_loss(self.transform(hidden), weight, bias, targets, options.negative_samples)

    def nll(self, hidden: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """(N, D) hidden states and (N,) ids to the cross-entropy of each position, (N,)."""
        return vocabulary_nll(
            self.transform(hidden), self.decoder.weight, self.decoder.bias, targets, label_smoothing
        )


class TanhClassifier(HeadModule):
    """Two maps, tanh between them, from the last position, which has read the whole text, to the classes.

    That of encoder-decoders (Lewis et al. 2020, section 3.1).
    """

    def __init__(self, hidden_size: int, num_labels: int, dropout: float) -> None:
        super().__init__()
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
    loss: LossOptions | None = None,
    cache: Any = None,
) -> Outputs:
    """Run the heads that are asked for, each at its own places.

    Args:
        hidden: (B, T, D), or (M, D), the places that `narrow` told.

    Raises:
        UnsupportedError: the network was built without a head that is asked for.
    """
    logits, sums, nll = {}, {}, {}
    options = loss or LossOptions()
    is_full_grid, start = hidden.ndim == 3, 0
    for name in head_names:
        head, positions = _get_head(heads, name), _head_positions(heads, batch, name)
        if is_full_grid:
            inputs = head_inputs(heads, hidden, batch, name)
        else:
            assert positions is not None, "narrow leaves the grid whole where a head reads all of it"
            inputs, start = hidden[start : start + len(positions)], start + len(positions)
        if targets is not None and name in targets and isinstance(head, VocabularyHead):
            if options.per_position:
                nll[name] = head.nll(inputs, targets[name], options.label_smoothing)
                sums[name] = nll[name].sum()
            else:
                sums[name] = head.loss(inputs, targets[name], options)
        else:
            logits[name] = head(inputs)
    return Outputs(logits, sums, nll, hidden if is_full_grid else None, cache)


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


def _get_head(heads: nn.ModuleDict, name: str) -> HeadModule:
    if name not in heads:
        raise UnsupportedError(f"the network has no head {name!r}; it was built with: {', '.join(heads)}")
    module = heads[name]
    assert isinstance(module, HeadModule)
    return module


def _head_positions(heads: nn.ModuleDict, batch: Batch, name: str) -> Tensor | None:
    positions, head = batch.positions.get(name), _get_head(heads, name)
    return default_positions(batch, head.pooling) if positions is None else positions


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
