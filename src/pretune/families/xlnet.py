"""XLNet (Yang et al. 2019): a text read in any order, with relative positions and a memory of earlier text.

Two streams share all weights (section 2.3): the content of a place, which has read its token, and the query
of a place that is to be predicted, which has not. Which place sees which is the order in ``Layout.order``.
Queries are computed at the predicted places only; without an order, as in fine-tuning, there are none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self, TypeAlias

import pydantic
import torch
from torch import Tensor, nn

from pretune import config as settings
from pretune.checkpoint import hub
from pretune.checkpoint.weights import Alias, Flatten, Operation, Rename, Transpose
from pretune.errors import UnsupportedError
from pretune.nn import attention, init
from pretune.nn import heads as nn_heads
from pretune.nn.cache import SegmentMemory
from pretune.nn.dropout import Dropout
from pretune.nn.feedforward import ActivationName, FeedForward
from pretune.nn.heads import Head
from pretune.nn.positions import relative_shift, relative_sinusoids
from pretune.types import Batch, LossOptions, Outputs, OutputSpec, SpecialTokens, Traits

HEAD = "permutation_lm"

MODEL_TYPES = {"xlnet": "XLNet"}
"""``model_type`` of a config.json to what the names of its stock classes begin with."""

ATTRIBUTE_MAP = {
    "hidden_size": "d_model",
    "num_hidden_layers": "n_layer",
    "num_attention_heads": "n_head",
    "intermediate_size": "d_inner",
    "hidden_act": "ff_activation",
    "hidden_dropout": "dropout",
    "classifier_dropout": "summary_last_dropout",
}
"""Our settings, which are called as in the other families, and what XLNet's config.json calls them."""

HF_DEFAULTS: Mapping[str, Any] = {
    "vocab_size": 32000,
    "d_model": 1024,
    "n_layer": 24,
    "n_head": 16,
    "d_inner": 4096,
    "dropout": 0.1,
    "summary_last_dropout": 0.1,
}
"""What a config.json means that leaves a key out, where it differs from our defaults."""

FIXED_SETTINGS: Mapping[str, Any] = {
    "attn_type": "bi",
    "bi_data": False,
    "same_length": False,
    "summary_type": "last",
    "summary_use_proj": True,
    "summary_activation": "tanh",
}
"""Settings of a config.json of which this family has one value, XLNet's own."""

UNLIMITED_LENGTH = 1 << 20


class Config(settings.Settings):
    """The shape of an XLNet; defaults for a small machine."""

    vocab_size: pydantic.PositiveInt = 8192
    hidden_size: pydantic.PositiveInt = 256
    num_hidden_layers: pydantic.PositiveInt = 4
    num_attention_heads: pydantic.PositiveInt = 4
    intermediate_size: pydantic.PositiveInt | None = None
    """None: four times ``hidden_size``."""
    hidden_act: ActivationName = "gelu"
    # None in pretraining: it is slow on CPU and does not pay off in one epoch (Geiping & Goldstein 2022).
    hidden_dropout: float = pydantic.Field(default=0.0, ge=0, lt=1)
    """Of hidden states, positions and attention alike."""
    classifier_dropout: float = pydantic.Field(default=0.0, ge=0, lt=1)
    clamp_len: int = -1
    """Places farther apart count as this far apart; -1: no such limit."""
    max_position_embeddings: pydantic.PositiveInt = UNLIMITED_LENGTH
    """Relative positions have no end, so this bounds what a user asks for and is no part of config.json."""
    initializer_range: float = pydantic.Field(default=0.02, gt=0)
    layer_norm_eps: float = pydantic.Field(default=1e-12, gt=0, lt=1)
    tie_word_embeddings: bool = True

    @pydantic.model_validator(mode="after")
    def _check_heads(self) -> Self:
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is no multiple of {self.num_attention_heads} heads"
            )
        if self.hidden_size % 2:
            raise ValueError(f"hidden_size {self.hidden_size} is odd: a position is pairs of sine and cosine")
        return self

    @property
    def inner_size(self) -> int:
        """F, the width between the two maps of a feed-forward block."""
        return self.intermediate_size or 4 * self.hidden_size

    @classmethod
    def from_hugging_face(cls, values: Mapping[str, Any]) -> Config:
        """The config of a config.json; what does not change the network is passed over.

        Raises:
            UnsupportedError: it asks for something that this family does not compute.
            ConfigError: a value is wrong.
        """
        for key, only in FIXED_SETTINGS.items():
            if values.get(key, only) != only:
                raise UnsupportedError(
                    f"config.json: {key} = {values[key]!r}; the xlnet family has {only!r} only"
                )
        given = {**HF_DEFAULTS, **values}
        known = {
            name: given[ATTRIBUTE_MAP.get(name, name)]
            for name in cls.model_fields
            if ATTRIBUTE_MAP.get(name, name) in given
        }
        return settings.build_settings(cls, known, where="config.json")

    def to_hugging_face(
        self, head: str, *, outputs: OutputSpec | None = None, specials: SpecialTokens | None = None
    ) -> dict[str, Any]:
        """The config.json with which stock transformers loads this network with ``head``."""
        held = self.model_dump(exclude={"max_position_embeddings"})
        values = {ATTRIBUTE_MAP.get(name, name): value for name, value in held.items()}
        values |= {
            **FIXED_SETTINGS,
            "d_inner": self.inner_size,
            "d_head": self.hidden_size // self.num_attention_heads,
        }
        values |= {
            "architectures": [nn_heads.stock_class(HEADS, MODEL_TYPES["xlnet"], head)],
            "model_type": "xlnet",
            "dtype": "float32",
        }
        if specials is not None:
            values |= {"pad_token_id": specials.pad_id, "bos_token_id": specials.bos_id}
            values |= {"eos_token_id": specials.eos_id}
        return values | hub.output_config(outputs)


Streams: TypeAlias = tuple[Tensor, ...]
"""(B, P, D) of each: the queries', if there is one, before the contents'."""


@dataclass(frozen=True)
class StreamMask:
    """What the places of one stream see, the same in every layer."""

    mask: attention.AttentionMask
    query_length: int
    key_length: int
    """T of the grid, and S with the memory before it."""
    query_positions: Tensor | None
    """(B, P) where they stand in their rows; None: everywhere, P = T."""
    other_segment: Tensor | None
    """(B, 1, P, S) 1 where a key belongs to another segment; None: all are of one."""

    @classmethod
    def build(
        cls,
        batch: Batch,
        stream: attention.Stream,
        query_positions: Tensor | None,
        memory: SegmentMemory | None,
    ) -> StreamMask:
        """The view of a stream; a memory belongs to the first segment."""
        seq_length, memory_length = batch.tokens.shape[1], 0 if memory is None else memory.size
        mask = attention.permutation_mask(
            batch.layout,
            seq_length,
            stream=stream,
            query_positions=query_positions,
            memory_length=memory_length,
        )
        segments = batch.layout.segments
        if segments is None:
            return cls(mask, seq_length, memory_length + seq_length, query_positions, None)
        query_segments = (
            segments if query_positions is None else segments.gather(1, query_positions)
        )  # (B, P)
        keys = torch.cat([segments.new_zeros(len(segments), memory_length), segments], 1)  # (B, S)
        other_segment = (query_segments[:, :, None] != keys[:, None, :])[:, None].float()  # (B, 1, P, S)
        return cls(mask, seq_length, memory_length + seq_length, query_positions, other_segment)


class RelativeAttention(nn.Module):
    """Attention by content, by distance and by segment (section 2.4; Dai et al. 2019, section 3.3)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        width, size = config.hidden_size, config.hidden_size // config.num_attention_heads
        self.heads, self.scale = config.num_attention_heads, size**-0.5
        self.dropout = config.hidden_dropout
        self.query, self.key, self.value, self.distance, self.output = (
            nn.Linear(width, width, bias=False) for _ in range(5)
        )
        self.content_bias, self.distance_bias, self.segment_bias = (
            nn.Parameter(torch.empty(width)) for _ in range(3)
        )
        self.segment = nn.Parameter(torch.empty(2, self.heads, size))
        """Of a key in the segment of the query, and of one in another."""

    def forward(
        self,
        streams: Streams,
        masks: Sequence[StreamMask],
        context: Tensor,
        relative_encoding: Tensor,
        output_positions: Tensor | None,
    ) -> Streams:
        """What each stream, (B, P, D), finds in ``context``, (B, S, D): the same, or (M, D) at
        ``output_positions``.
        """
        key, value = (
            self._split_heads(self.key(context)),
            self._split_heads(self.value(context)),
        )  # (B, H, S, K)
        relative_keys = self._split_heads(self.distance(relative_encoding)[None])[0]  # (H, R, K)
        rate = self.dropout if self.training else 0.0
        outputs = []
        for stream, stream_mask in zip(streams, masks, strict=True):
            query = self.query(stream) * self.scale  # (B, P, D)
            mask = attention.add_bias(
                stream_mask.mask, self._position_bias(query, stream_mask, relative_keys)
            )
            query = self._split_heads(query + self.content_bias * self.scale)  # (B, H, P, K)
            mixed = attention.attend(query, key, value, mask, dropout=rate, scale=1.0)
            outputs.append(self.output(nn_heads.select(mixed, output_positions)))
        return tuple(outputs)

    def _position_bias(self, query: Tensor, stream_mask: StreamMask, relative_keys: Tensor) -> Tensor:
        """What adds to the products with keys because of where these stand, (B, H, P, S)."""
        distance_query = self._split_heads(query + self.distance_bias * self.scale)  # (B, H, P, K)
        products = torch.einsum("bhpk,hrk->bhpr", distance_query, relative_keys)
        products = relative_shift(
            products, stream_mask.query_length, stream_mask.key_length, stream_mask.query_positions
        )  # (B, H, P, S)
        if stream_mask.other_segment is None:
            return products
        # A softmax sees differences only: what keys of the same segment have is taken from the others'.
        contrast = (self.segment[1] - self.segment[0])[..., None]  # (H, K, 1)
        segment_query = self._split_heads(query + self.segment_bias * self.scale)  # (B, H, P, K)
        return products + (segment_query @ contrast) * stream_mask.other_segment

    def _split_heads(self, values: Tensor) -> Tensor:
        split: Tensor = values.view(*values.shape[:2], self.heads, -1).transpose(1, 2)  # (B, H, T, K)
        return split


class Layer(nn.Module):
    """Attention and feed-forward, each with a residual connection and a norm behind it, for both streams."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.attention = RelativeAttention(config)
        self.attention_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.feed_forward = FeedForward(
            config.hidden_size, config.inner_size, config.hidden_act, dropout=config.hidden_dropout
        )
        self.feed_forward_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = Dropout(config.hidden_dropout)

    def forward(
        self,
        streams: Streams,
        masks: Sequence[StreamMask],
        context: Tensor,
        relative_encoding: Tensor,
        output_positions: Tensor | None,
    ) -> Streams:
        """(B, P, D) of each stream to the same, or to (M, D) at ``output_positions``."""
        attention_outputs = self.attention(streams, masks, context, relative_encoding, output_positions)
        updated = []
        for stream, attended in zip(streams, attention_outputs, strict=True):
            hidden = self.attention_norm(nn_heads.select(stream, output_positions) + self.dropout(attended))
            updated.append(self.feed_forward_norm(hidden + self.dropout(self.feed_forward(hidden))))
        return tuple(updated)


class Classifier(nn_heads.HeadModule):
    """A summary of the last place, where XLNet puts its [CLS], and a linear map to the classes."""

    def __init__(self, config: Config, num_labels: int) -> None:
        super().__init__()
        self.summary = nn.Linear(config.hidden_size, config.hidden_size)
        self.dropout = Dropout(config.classifier_dropout)
        self.output = nn.Linear(config.hidden_size, num_labels)

    def forward(self, hidden: Tensor) -> Tensor:
        """(N, D) to (N, C)"""
        logits: Tensor = self.output(self.dropout(self.summary(hidden).tanh()))
        return logits


class Network(nn.Module):
    """An XLNet with the heads that are asked for, at its first values."""

    def __init__(self, config: Config, heads: Sequence[str] = (HEAD,), num_labels: int = 0) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.query = nn.Parameter(torch.empty(1, 1, config.hidden_size))
        """What a query holds before it has read anything."""
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        self.dropout = Dropout(config.hidden_dropout)
        self.norm = nn.Identity()  # each layer ends in a norm of its own
        self.heads = nn.ModuleDict()
        for name in heads:
            self.heads[name] = nn_heads.build_head(HEADS, name, self, num_labels, "xlnet")
        self.reset_parameters()

    @property
    def embed(self) -> nn.Embedding:
        """The embedding of tokens; a forward hook may replace its output."""
        return self.embedding

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw first values as transformers does: the biases of attention, too, are drawn."""
        deviation = self.config.initializer_range
        init.init_normal_(self, deviation, generator)
        nn.init.normal_(self.query, std=deviation, generator=generator)
        for module in self.modules():
            if isinstance(module, RelativeAttention):
                for parameter in module.parameters(recurse=False):
                    nn.init.normal_(parameter, std=deviation, generator=generator)

    def forward(
        self,
        batch: Batch,
        heads: Sequence[str] = (HEAD,),
        targets: Mapping[str, Tensor] | None = None,
        loss: LossOptions | None = None,
        cache: SegmentMemory | None = None,
    ) -> Outputs:
        """Hidden states of the batch, and what the heads say at their places.

        With an order in the layout, the head over the vocabulary reads the queries, which have not seen their
        own token; without one it reads the hidden states, as stock XLNet does without a ``target_mapping``.

        Args:
            cache: the memory of the texts' earlier segments, to which this one is added.

        Raises:
            UnsupportedError: a head that the network was not built with, or a cache of keys and values.
        """
        if cache is not None and not isinstance(cache, SegmentMemory):
            raise UnsupportedError("xlnet sees both sides of a place: it has a memory, but no cache")
        if batch.layout.order is None or HEAD not in heads:
            positions = nn_heads.needed_positions(self.heads, batch, heads)
            return nn_heads.run_heads(
                self.heads, self._run_layers(batch, cache, None, positions), batch, heads, targets, loss
            )
        if len(heads) > 1:
            raise UnsupportedError(f"xlnet: in permuted order {HEAD} is read alone, not with {heads}")
        positions = batch.positions.get(HEAD)
        if positions is None:
            positions = torch.arange(batch.tokens.numel(), device=batch.tokens.device)
        by_row = nn_heads.PositionsByRow.from_positions(positions, *batch.tokens.shape)
        query_hidden = nn_heads.gather(
            self._run_layers(batch, cache, by_row.positions, None), by_row.slots
        )  # (N, D)
        return nn_heads.run_heads(
            self.heads, query_hidden, replace(batch, positions={HEAD: positions}), heads, targets, loss
        )

    def _run_layers(
        self,
        batch: Batch,
        memory: SegmentMemory | None,
        query_positions: Tensor | None,
        output_positions: Tensor | None,
    ) -> Tensor:
        """The queries at ``query_positions`` (B, P), (B, P, D); without these the contents, (B, T, D) or
        (M, D).
        """
        streams: Streams = (self.dropout(self.embedding(batch.tokens)),)  # (B, T, D)
        masks = [StreamMask.build(batch, "content", None, memory)]
        if query_positions is not None:
            streams = (self.dropout(self.query.expand(*query_positions.shape, -1)), *streams)  # (B, P, D)
            masks.insert(0, StreamMask.build(batch, "query", query_positions, memory))
        relative_encoding = relative_sinusoids(
            masks[0].query_length,
            masks[0].key_length,
            self.config.hidden_size,
            self.config.clamp_len,
            batch.tokens.device,
        )
        relative_encoding, final = (
            self.dropout(relative_encoding.to(streams[0].dtype)),
            len(self.layers) - 1,
        )  # (R, D)
        for number, layer in enumerate(self.layers):
            context = streams[-1] if memory is None else memory.extend(number, streams[-1])
            if number == final:
                streams, masks = streams[:1], masks[:1]  # nothing reads contents that queries were asked of
            streams = layer(
                streams, masks, context, relative_encoding, output_positions if number == final else None
            )
        output: Tensor = self.dropout(self.norm(streams[0]))
        return output


_ATTENTION_PREFIX = "layers.{}.attention."
_PROJECTIONS = tuple(f"{_ATTENTION_PREFIX}{name}.weight" for name in ("query", "key", "value", "distance"))
_FLATTENED = ("output.weight", "content_bias", "distance_bias", "segment_bias")


def _build_lm_head(network: Network, _: int) -> nn_heads.VocabularyHead:
    config = network.config
    decoder = nn.Linear(config.hidden_size, config.vocab_size)
    if config.tie_word_embeddings:
        decoder.weight = network.embedding.weight
    return nn_heads.VocabularyHead(decoder)


def _build_classifier(network: Network, num_outputs: int) -> Classifier:
    return Classifier(network.config, num_outputs)


CLASSIFIER_WEIGHTS = {
    "summary.{leaf}": "sequence_summary.summary.{leaf}",
    "output.{leaf}": "logits_proj.{leaf}",
}
HEADS = {
    HEAD: Head("vocabulary", "LMHeadModel", _build_lm_head, is_pretrained=True),
    "classification": Head(
        "sequence", "ForSequenceClassification", _build_classifier, "last", CLASSIFIER_WEIGHTS
    ),
    "token_classification": nn_heads.token_head(
        nn_heads.make_linear(), {"output.{leaf}": "classifier.{leaf}"}
    ),
    "question_answering": nn_heads.span_head(stock="ForQuestionAnsweringSimple"),
    "multiple_choice": nn_heads.choice_head(_build_classifier, CLASSIFIER_WEIGHTS, "last"),
}

TRAITS = Traits(
    architecture="encoder",
    heads=tuple(HEADS),
    pooling="last",
    supports_permutation=True,
    has_segment_embeddings=True,
    objective=HEAD,
)

WEIGHTS: list[Operation] = [
    Alias(r"^(word_embedding|mask_emb|layer)\b", r"transformer.\1"),  # a stock XLNetModel, without a head
    Rename("embedding.weight", "transformer.word_embedding.weight"),
    Rename("query", "transformer.mask_emb"),
    Rename("layers.{}.attention.query.weight", "transformer.layer.{}.rel_attn.q"),
    Rename("layers.{}.attention.key.weight", "transformer.layer.{}.rel_attn.k"),
    Rename("layers.{}.attention.value.weight", "transformer.layer.{}.rel_attn.v"),
    Rename("layers.{}.attention.output.weight", "transformer.layer.{}.rel_attn.o"),
    Rename("layers.{}.attention.distance.weight", "transformer.layer.{}.rel_attn.r"),
    Rename("layers.{}.attention.content_bias", "transformer.layer.{}.rel_attn.r_w_bias"),
    Rename("layers.{}.attention.distance_bias", "transformer.layer.{}.rel_attn.r_r_bias"),
    Rename("layers.{}.attention.segment_bias", "transformer.layer.{}.rel_attn.r_s_bias"),
    Rename("layers.{}.attention.segment", "transformer.layer.{}.rel_attn.seg_embed"),
    *(
        Flatten(name, like=f"{_ATTENTION_PREFIX}segment")
        for name in (*_PROJECTIONS, *(_ATTENTION_PREFIX + n for n in _FLATTENED))
    ),
    *(Transpose(name) for name in _PROJECTIONS),
    Rename("layers.{}.attention_norm.{leaf}", "transformer.layer.{}.rel_attn.layer_norm.{leaf}"),
    Rename("layers.{}.feed_forward.up.{leaf}", "transformer.layer.{}.ff.layer_1.{leaf}"),
    Rename("layers.{}.feed_forward.down.{leaf}", "transformer.layer.{}.ff.layer_2.{leaf}"),
    Rename("layers.{}.feed_forward_norm.{leaf}", "transformer.layer.{}.ff.layer_norm.{leaf}"),
    Rename("heads.permutation_lm.decoder.{leaf}", "lm_loss.{leaf}"),
]


def tiny_config() -> Config:
    """A shape for tests."""
    return Config(
        vocab_size=96,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=48,
    )
