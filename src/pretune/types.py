"""What passes between the rooms of pretune, field by field.

One legend of dimension letters holds for the whole house::

    B batch (rows of the grid)   T time (places in a row)   S source time
    D width (hidden size)        H attention heads          G key-value heads
    K head width                 V vocabulary               N places a head reads
    C classes                    L layers                   F feed-forward width

Ids are int64, masks are bool. A line that changes a shape ends with the new one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from pretune.errors import UnsupportedError

if TYPE_CHECKING:
    import torch

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

Architecture: TypeAlias = Literal["encoder", "decoder", "encoder-decoder"]

IGNORE_INDEX = -100
"""The target of a place that carries none, where a list must be filled up to a fixed length."""


@dataclass(frozen=True, slots=True)
class Record:
    """One record of a user's file, with where it came from."""

    fields: Mapping[str, Any]
    path: str
    line: int
    """1-based line (or row) in ``path``; 0 where the whole file is the record."""

    @property
    def location(self) -> str:
        return f"{self.path}:{self.line}" if self.line else self.path


@dataclass(frozen=True, slots=True)
class SpecialTokens:
    """The special ids of a tokenizer and the frame that it puts around a text or a pair."""

    vocabulary_size: int
    pad_id: int
    eos_id: int | None = None
    bos_id: int | None = None
    unk_id: int | None = None
    mask_id: int | None = None
    all_ids: tuple[int, ...] = ()
    """Every id that stands for no text; never masked, never drawn as a random replacement."""
    single: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())
    """(before, after) a single text: ``[CLS] text [SEP]`` gives ((cls,), (sep,))."""
    pair: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]] | None = None
    """(before, between, after) the two texts of a pair."""
    last_segment_id: int | None = None
    """Of a frame's last token, where that is a segment of its own, as XLNet's [CLS] is."""
    sentinel_ids: tuple[int, ...] = ()
    """What stands for the first, second, ... hidden span: T5's ``<extra_id_0>``, ``<extra_id_1>`` ..."""


def add_special_tokens(specials: SpecialTokens, sequences: tuple[IntArray, ...]) -> tuple[IntArray, IntArray]:
    """One text or a pair with its special tokens: (tokens, segments), each (T,).

    Without a pair frame of its own, a tokenizer's two texts are joined by its end token.
    """
    if len(sequences) == 1:
        before, after = specials.single
        tokens = np.concatenate([before, sequences[0], after]).astype(np.int64)
        return tokens, _set_last_segment(specials, np.zeros(len(tokens), np.int64))
    separator = () if specials.eos_id is None else (specials.eos_id,)
    before, between, after = specials.pair or (specials.single[0], separator, specials.single[1])
    first = np.concatenate([before, sequences[0], between])
    second = np.concatenate([sequences[1], after])
    segments = np.repeat(np.array([0, 1]), [len(first), len(second)])
    return np.concatenate([first, second]).astype(np.int64), _set_last_segment(specials, segments)


def _set_last_segment(specials: SpecialTokens, segments: IntArray) -> IntArray:
    if specials.last_segment_id is not None:
        segments[-1] = specials.last_segment_id
    return segments


def add_special_token_starts(
    specials: SpecialTokens, word_starts: tuple[npt.NDArray[np.uint8], ...]
) -> npt.NDArray[np.uint8]:
    """The flags of one text or a pair (see `Feature`) as `add_special_tokens` lays it out; a special token
    is a word.
    """
    positions, _ = add_special_tokens(
        specials, tuple(-1 - np.arange(len(text_starts)) for text_starts in word_starts)
    )  # (T,)
    flags = np.ones(len(positions), np.uint8)
    flags[positions < 0] = np.concatenate(word_starts)
    return flags


@dataclass(frozen=True, slots=True)
class Feature:
    """A text as ids, deterministic and indexed once: what the order counts."""

    record: int
    window: int
    """Which window or row of the record."""
    sequences: tuple[IntArray, ...]
    """One text, a pair, source and target, or several choices; no special tokens but those that
    belong to the text (its start or end of text)."""
    labels: Mapping[str, Any] = field(default_factory=dict)
    word_starts: tuple[npt.NDArray[np.uint8], ...] | None = None
    """(T,) a sequence: bit 1 where a word starts, bit 2 where a sentence starts."""
    decoding: Mapping[str, Any] = field(default_factory=dict)
    """What only decoding needs: characters of tokens, words of positions, which choice it is."""


@dataclass(frozen=True, slots=True)
class Row:
    """One sequence that an example puts into the grid."""

    tokens: IntArray
    positions: Mapping[str, IntArray]
    """Head to (n,) indices into ``tokens``."""
    targets: Mapping[str, npt.NDArray[Any]]
    """Head to (n,) ids or (n, C) floats, aligned with ``places``."""
    segments: IntArray | None = None
    source_tokens: IntArray | None = None
    """The source tokens of an encoder-decoder; the row's places then lie in the target's grid."""
    word_starts: npt.NDArray[np.uint8] | None = None
    """(T,) word and sentence starts as in `Feature`, for an objective that hides parts of the row."""
    prefix_length: int | None = None
    """Places at its left that see each other both ways in a causal model; such a row is not packed."""
    order: IntArray | None = None
    """(T,) rank in the factorisation as in `Layout`."""


@dataclass(frozen=True, slots=True)
class Example:
    """What an objective builds from a feature; the rows of a group stay together."""

    record: int
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class _TensorDataclass:
    """A dataclass of tensors that can go to a device."""

    def to(self, device: torch.device | str) -> Any:
        moved = {f.name: _to_device(getattr(self, f.name), device) for f in fields(self)}
        return replace(self, **moved)


def _to_device(value: Any, device: torch.device | str) -> Any:
    if isinstance(value, dict):
        return {key: _to_device(item, device) for key, item in value.items()}
    # What else a batch holds is tensors and dataclasses of them.
    return value if value is None or isinstance(value, int | float) else value.to(device)


@dataclass(frozen=True)
class Layout(_TensorDataclass):
    """What the data say about a grid, and nothing about the model; each but ``lengths`` may be None."""

    lengths: torch.Tensor
    """(B,) real places at the left of each row; what follows is padding."""
    documents: torch.Tensor | None = None
    """(B, T) number of the document within its row, -1 for padding; places of different
    documents never see each other. None: one document a row."""
    position_ids: torch.Tensor | None = None
    """(B, T) position within the document. None: 0, 1, 2, ..."""
    segments: torch.Tensor | None = None
    """(B, T) first or second text of a pair. None: all 0."""
    prefix_lengths: torch.Tensor | None = None
    """(B,) places at the left that see each other both ways in a causal model."""
    order: torch.Tensor | None = None
    """(B, T) rank in the factorisation, -1 always visible."""
    cache_lengths: torch.Tensor | None = None
    """(B,) places already held in the cache; ``lengths`` counts the new ones only."""


@dataclass(frozen=True)
class NegativeSamples(_TensorDataclass):
    """The words among which the vocabulary heads choose in a step, besides each place's own target."""

    ids: torch.Tensor
    """(M,) ascending."""
    corrections: torch.Tensor
    """(M,) added to their logits: minus the logarithm of the chance with which each was drawn."""


@dataclass(frozen=True)
class LossOptions(_TensorDataclass):
    """How the heads over the vocabulary compute their loss; without any, the plain summed cross-entropy."""

    label_smoothing: float = 0.0
    """Share of each target that is spread over the whole vocabulary."""
    negative_samples: NegativeSamples | None = None
    """What the loss is estimated from; None: all of the vocabulary."""
    per_position: bool = False
    """Return the loss of each position, too (`Outputs.nll`)."""


@dataclass(frozen=True)
class Batch(_TensorDataclass):
    """The examples of one micro-batch as a grid."""

    tokens: torch.Tensor
    """(B, T)"""
    layout: Layout
    positions: Mapping[str, torch.Tensor | None] = field(default_factory=dict)
    """Head to (N,) indices into the flattened (B * T) grid; None means all places in order."""
    targets: Mapping[str, torch.Tensor] = field(default_factory=dict)
    """Head to (N,) ids or (N, C) floats, aligned with ``places``."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """Loss term to number of targets, known before the forward pass."""
    example: torch.Tensor | None = None
    """(N,) which example of the batch, 0, 1, ..., each position of the first head belongs to."""
    row: torch.Tensor | None = None
    """(N,) which row of its example: of a pair, say, or of several choices."""
    source_tokens: torch.Tensor | None = None
    """(B, S)"""
    source_layout: Layout | None = None


@dataclass(frozen=True)
class Outputs:
    """What every network returns."""

    logits: Mapping[str, torch.Tensor] = field(default_factory=dict)
    """Head to (N, C)."""
    sums: Mapping[str, torch.Tensor] = field(default_factory=dict)
    """Head to () summed cross-entropy in nats, of heads that were handed targets."""
    nll: Mapping[str, torch.Tensor] = field(default_factory=dict)
    """Head to (N,) cross-entropy in nats, where `LossOptions.per_position` asks for it."""
    hidden: torch.Tensor | None = None
    """(B, T, D), the last layer's output as the reference implementation defines it; None where the heads
    asked for read some places only, and the last layer was computed for these."""
    cache: Any = None


class NetworkLike(Protocol):
    """The call that every network answers."""

    def __call__(
        self,
        batch: Batch,
        heads: Sequence[str] = ...,
        targets: Mapping[str, torch.Tensor] | None = None,
        loss: LossOptions | None = None,
        cache: Any = None,
    ) -> Outputs: ...


@dataclass(frozen=True, slots=True)
class WindowSpec:
    """How an objective wants a document cut: ``[start] ids [end]``, in windows that may overlap."""

    length: int
    overlap: int = 0
    bos_id: int | None = None
    eos_id: int | None = None


class FeatureStore(Protocol):
    """Features that can be drawn by index."""

    @property
    def fingerprint(self) -> str:
        """Covers the data, the tokenizer, the truncation and the window length."""

    @property
    def lengths(self) -> IntArray:
        """(n, sequences) tokens of each sequence of each feature."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Feature: ...


class ObjectiveLike(Protocol):
    """What evaluation and inference ask of an objective (`pretune.objectives.base.Objective`)."""

    @property
    def heads(self) -> tuple[str, ...]:
        """Heads that it trains."""

    @property
    def supports_packing(self) -> bool:
        """May several of its examples share a row of the grid?"""

    def length_bounds(self, lengths: IntArray) -> IntArray:
        """(n,) places that each feature needs at most; needs no randomness."""

    def build(self, feature: Feature, rng: np.random.Generator) -> Example:
        """Feature in, example out; all randomness comes from ``rng``."""

    def collate(self, groups: Sequence[Sequence[Example]]) -> Batch:
        """A group of examples a row of the grid; draws nothing."""


LossTerms: TypeAlias = "Mapping[str, tuple[torch.Tensor, float]]"
"""Name to a sum over targets and its weight in the total."""


@dataclass(frozen=True, slots=True)
class Loss:
    """Named terms, each a sum over targets with its weight in the total."""

    terms: LossTerms


@dataclass(frozen=True, slots=True)
class Span:
    """Characters [start, end) of a text, with what was said of them."""

    start: int
    end: int
    label: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a task says of a record."""

    record: int
    value: Any
    confidence: float | None = None
    """Probability that the model gives ``value``, 0 to 1."""
    alternatives: tuple[tuple[Any, float], ...] = ()
    """Other values with their probabilities, best first."""
    spans: tuple[Span, ...] = ()


@dataclass(frozen=True, slots=True)
class Score:
    """The value of a metric, with all that makes it comparable."""

    name: str
    value: float
    n: int
    """How many records (or targets) it was measured on."""
    signature: str
    """Tokenizer, version and settings that the value depends on."""
    direction: Literal["higher", "lower"] = "higher"
    interval: tuple[float, float] | None = None
    """95 % confidence interval."""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Score:
        """What :meth:`as_dict` gave."""
        low_high = values["interval"]
        return cls(**{**values, "interval": None if low_high is None else (low_high[0], low_high[1])})

    def is_better_than(self, other: float | None) -> bool:
        if other is None:
            return True
        return self.value > other if self.direction == "higher" else self.value < other

    def to_dict(self) -> dict[str, Any]:
        low_high = list(self.interval) if self.interval else None
        return {"name": self.name, "value": self.value, "n": self.n, "interval": low_high,
                "direction": self.direction, "signature": self.signature}  # fmt: skip


@dataclass(frozen=True, slots=True)
class OutputSpec:
    """What the outputs of a fine-tuned head mean, which its training data decided."""

    labels: tuple[str, ...] = ()
    """Names of the outputs, in their order; empty where they have none."""
    num_outputs: int | None = None
    """How many outputs; None: one a label."""
    problem_type: str | None = None
    """``problem_type`` of config.json, by which stock transformers chooses the loss."""
    config_fields: Mapping[str, Any] = field(default_factory=dict)
    """More fields of config.json."""

    @property
    def size(self) -> int:
        """C, the number of outputs."""
        return len(self.labels) if self.num_outputs is None else self.num_outputs


@dataclass(frozen=True, slots=True)
class Traits:
    """What a family can do and where it is read."""

    architecture: Architecture
    heads: tuple[str, ...]
    pooling: Literal["first", "last"]
    """Where the sentence head reads: the first place ([CLS]) or the last real one."""
    supports_packing: bool = True
    supports_cache: bool = False
    supports_permutation: bool = False
    has_segment_embeddings: bool = False
    """Tells the two texts of a pair apart by an embedding."""
    decoder_start_token: Literal["pad", "eos", "bos"] | None = None
    objective: str | None = None
    """What it is pretrained by; None: what its architecture usually is."""
    learning_rates: Mapping[str, float] = field(default_factory=dict)
    """Of the optimiser, from random weights, where they are not those of the objective's recipe."""


def decoder_start_id(traits: Traits, specials: SpecialTokens) -> int:
    """The id that the decoder of an encoder-decoder begins with.

    Raises:
        UnsupportedError: the tokenizer has no such token.
    """
    id = {"pad": specials.pad_id, "eos": specials.eos_id, "bos": specials.bos_id}[
        traits.decoder_start_token or "pad"
    ]
    if id is None:
        raise UnsupportedError(
            f"this family's decoder begins with the {traits.decoder_start_token} token; this tokenizer "
            "has none"
        )
    return int(id)
