"""T5 (Raffel et al. 2020): an encoder-decoder with relative positions, norms before each block, no biases.

Its later form (v1.1, and mT5) has a gated feed-forward block and a head of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

import pydantic
import torch
from torch import Tensor, nn

from pretune import config as settings
from pretune.checkpoint import hub
from pretune.checkpoint.weights import Default, Duplicate, Ignore, Operation, Prefix, Rename, RenameGroup
from pretune.errors import UnsupportedError
from pretune.nn import attention, init
from pretune.nn import heads as nn_heads
from pretune.nn.cache import KVCache
from pretune.nn.cross_attention import EncoderOutput, encode_source, source_inputs
from pretune.nn.dropout import Dropout
from pretune.nn.feedforward import ACTIVATIONS, FeedForward, GatedFeedForward
from pretune.nn.heads import Head
from pretune.nn.norms import RMSNorm
from pretune.nn.positions import RelativePositionBias
from pretune.types import Batch, Layout, LossOptions, Outputs, OutputSpec, SpecialTokens, Traits

MODEL_TYPES = {"t5": "T5", "mt5": "MT5"}
"""``model_type`` of a config.json to what the names of its stock classes begin with."""

ATTRIBUTE_MAP = {
    "hidden_size": "d_model", "num_hidden_layers": "num_layers", "num_attention_heads": "num_heads",
    "head_dim": "d_kv", "intermediate_size": "d_ff", "max_position_embeddings": "n_positions",
}  # fmt: skip
"""Our settings, which are called as in the other families, and what T5's config.json calls them."""

HF_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "t5": {"vocab_size": 32128, "d_ff": 2048, "num_layers": 6, "num_heads": 8, "feed_forward_proj": "relu"},
    "mt5": {"vocab_size": 250112, "d_ff": 1024, "num_layers": 8, "num_heads": 6},
}
SHARED_DEFAULTS = {"d_model": 512, "d_kv": 64, "dropout_rate": 0.1}
"""What a config.json means that leaves a key out, where it differs from our defaults."""

FEED_FORWARD_TYPES = {
    name: (name.startswith("gated-"), "gelu_new" if name == "gated-gelu" else name.removeprefix("gated-"))
    for name in (*ACTIVATIONS, *(f"gated-{activation}" for activation in ACTIVATIONS))
}
"""What config.json calls a feed-forward block: has it a gate, its activation (gated-gelu approximates)."""


class Config(settings.Settings):
    """The shape of a T5; defaults for a small machine."""

    vocab_size: pydantic.PositiveInt = 8192
    hidden_size: pydantic.PositiveInt = 256
    num_hidden_layers: pydantic.PositiveInt = 3
    """Of the encoder."""
    num_decoder_layers: pydantic.PositiveInt | None = None
    """None: as many as the encoder has."""
    num_attention_heads: pydantic.PositiveInt = 4
    head_dim: pydantic.PositiveInt | None = None
    """None: ``hidden_size`` divided among the heads."""
    intermediate_size: pydantic.PositiveInt | None = None
    """None: four times ``hidden_size``; 8/3 of it with a gate, as many parameters, in multiples of 32."""
    feed_forward_proj: str = "gated-gelu"
    relative_attention_num_buckets: int = pydantic.Field(default=32, ge=4)
    relative_attention_max_distance: pydantic.PositiveInt = 128
    # None in pretraining: it is slow on CPU and does not pay off in one epoch (Geiping & Goldstein 2022).
    dropout_rate: float = pydantic.Field(default=0.0, ge=0, lt=1)
    classifier_dropout: float = pydantic.Field(default=0.0, ge=0, lt=1)
    layer_norm_epsilon: float = pydantic.Field(default=1e-6, gt=0, lt=1)
    initializer_factor: float = pydantic.Field(default=1.0, gt=0)
    max_position_embeddings: pydantic.PositiveInt = 512
    """How long a source or target the model is meant for; relative positions themselves have no end."""
    tie_word_embeddings: bool = False  # as v1.1; tied, it learns more slowly at first
    """The head is the word embedding, and reads the last hidden state times ``hidden_size`` ** -0.5."""
    model_type: Literal["t5", "mt5"] = "t5"
    """What transformers calls it: a multilingual T5 is a T5 with a gate and a head of its own."""

    @pydantic.field_validator("feed_forward_proj")
    @classmethod
    def _check_feed_forward_proj(cls, value: str) -> str:
        if value not in FEED_FORWARD_TYPES:
            raise ValueError(f"there is no such block; there are: {', '.join(FEED_FORWARD_TYPES)}")
        return value

    @pydantic.model_validator(mode="after")
    def _check_consistency(self) -> Self:
        width, heads = self.hidden_size, self.num_attention_heads
        buckets, max_distance = self.relative_attention_num_buckets, self.relative_attention_max_distance
        if self.head_dim is None and width % heads:
            raise ValueError(f"hidden_size {width} is no multiple of {heads} heads")
        if self.model_type == "mt5" and self.tie_word_embeddings:
            raise ValueError("tie_word_embeddings: an mt5 has a head of its own; set it to false, or take t5")
        if buckets % 4:
            raise ValueError(
                f"relative_attention_num_buckets {buckets} is no multiple of 4: "
                "left and right of a place, near and far"
            )
        if max_distance <= buckets // 2:
            raise ValueError(
                f"relative_attention_max_distance {max_distance} must be more than half of the {buckets} "
                "buckets, "
                "which are single distances"
            )
        return self

    @property
    def decoder_layers(self) -> int:
        """Layers of the decoder."""
        return self.num_decoder_layers or self.num_hidden_layers

    @property
    def head_size(self) -> int:
        """K"""
        return self.head_dim or self.hidden_size // self.num_attention_heads

    @property
    def inner_size(self) -> int:
        """F, the width between the maps of a feed-forward block."""
        share = 8 / 3 if FEED_FORWARD_TYPES[self.feed_forward_proj][0] else 4
        return self.intermediate_size or max(32, round(self.hidden_size * share / 32) * 32)

    @classmethod
    def from_hugging_face(cls, values: Mapping[str, Any]) -> Config:
        """The config of a config.json; what does not change the network is passed over.

        Raises:
            UnsupportedError: it asks for something that this family does not compute.
            ConfigError: a value is wrong.
        """
        model_type = values.get("model_type", "t5")
        if model_type not in HF_DEFAULTS:
            raise UnsupportedError(
                f"config.json: model_type {model_type!r}; t5 reads {', '.join(HF_DEFAULTS)}"
            )
        given = {**SHARED_DEFAULTS, **HF_DEFAULTS[model_type], **values}
        known = {
            name: given[ATTRIBUTE_MAP.get(name, name)]
            for name in cls.model_fields
            if ATTRIBUTE_MAP.get(name, name) in given
        }
        # transformers 5 writes that every T5 is tied; whether the head scales is what still tells them apart.
        scales = given.get("scale_decoder_outputs", given.get("tie_word_embeddings", True))
        known |= {"tie_word_embeddings": model_type == "t5" and scales, "model_type": model_type}
        return settings.build_settings(cls, known, where="config.json")

    def to_hugging_face(
        self, head: str, *, outputs: OutputSpec | None = None, specials: SpecialTokens | None = None
    ) -> dict[str, Any]:
        """The config.json with which stock transformers loads this network with ``head``."""
        values = {ATTRIBUTE_MAP.get(name, name): value for name, value in self.model_dump().items()}
        values |= {"d_kv": self.head_size, "d_ff": self.inner_size, "num_decoder_layers": self.decoder_layers}
        values |= {"scale_decoder_outputs": self.tie_word_embeddings, "is_encoder_decoder": True}
        values |= {
            "architectures": [nn_heads.stock_class(HEADS, MODEL_TYPES[self.model_type], head)],
            "dtype": "float32",
        }
        if specials is not None:
            values |= {"pad_token_id": specials.pad_id, "eos_token_id": specials.eos_id}
            values |= {"decoder_start_token_id": specials.pad_id}
            if HEADS[head].type == "sequence":  # stock reads where this token is
                values |= {"eos_token_id": (specials.eos_id, *specials.single[1])[-1]}
        return values | hub.output_config(outputs)


class Attention(nn.Module):
    """Multi-head attention whose products are not scaled: the first values make up for it."""

    def __init__(self, config: Config, layer_index: int) -> None:
        super().__init__()
        width, inner = config.hidden_size, config.num_attention_heads * config.head_size
        self.layer_index = layer_index
        self.head_size = config.head_size
        self.dropout = config.dropout_rate
        self.query = nn.Linear(width, inner, bias=False)
        self.key = nn.Linear(width, inner, bias=False)
        self.value = nn.Linear(width, inner, bias=False)
        self.output = nn.Linear(inner, width, bias=False)

    def forward(self, hidden: Tensor, mask: attention.AttentionMask, cache: KVCache | None = None) -> Tensor:
        """(B, T, D) to (B, T, D), each place of the other places"""
        key, value = self.project_keys_values(hidden)
        if cache is not None:
            key, value = cache.extend(self.layer_index, key, value)  # (B, H, S, K)
        return self._attend(hidden, key, value, mask)

    def cross_attend(self, hidden: Tensor, encoder_output: EncoderOutput) -> Tensor:
        """(B, T, D) to (B, T, D), each place of the source"""
        key, value = encoder_output.keys_values(self.layer_index, self.project_keys_values)  # (B, H, S, K)
        return self._attend(hidden, key, value, encoder_output.mask)

    def project_keys_values(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """(B, S, D) to (B, H, S, K) each"""
        return self._split_heads(self.key(hidden)), self._split_heads(self.value(hidden))

    def _attend(self, hidden: Tensor, key: Tensor, value: Tensor, mask: attention.AttentionMask) -> Tensor:
        query = self._split_heads(self.query(hidden))  # (B, H, T, K)
        rate = self.dropout if self.training else 0.0
        output: Tensor = self.output(attention.attend(query, key, value, mask, dropout=rate, scale=1.0))
        return output

    def _split_heads(self, projected: Tensor) -> Tensor:
        heads: Tensor = projected.unflatten(-1, (-1, self.head_size))  # type: ignore[no-untyped-call]
        return heads.transpose(1, 2)


class Layer(nn.Module):
    """Attention, in a decoder attention to the source, and feed-forward, each behind a norm, each added."""

    def __init__(self, config: Config, layer_index: int, *, is_decoder: bool) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.hidden_size, config.layer_norm_epsilon)
        self.attention = Attention(config, layer_index)
        if is_decoder:
            self.cross_attention_norm = RMSNorm(config.hidden_size, config.layer_norm_epsilon)
            self.cross_attention = Attention(config, layer_index)
        self.feed_forward_norm = RMSNorm(config.hidden_size, config.layer_norm_epsilon)
        gated, activation = FEED_FORWARD_TYPES[config.feed_forward_proj]
        self.feed_forward = (GatedFeedForward if gated else FeedForward)(
            config.hidden_size, config.inner_size, activation, bias=False, dropout=config.dropout_rate
        )
        self.dropout = Dropout(config.dropout_rate)

    def forward(
        self,
        hidden: Tensor,
        mask: attention.AttentionMask,
        encoder_output: EncoderOutput | None,
        cache: KVCache | None,
    ) -> Tensor:
        """(B, T, D) to (B, T, D)"""
        hidden = hidden + self.dropout(self.attention(self.attention_norm(hidden), mask, cache))
        if encoder_output is not None:
            normed = self.cross_attention_norm(hidden)
            hidden = hidden + self.dropout(self.cross_attention.cross_attend(normed, encoder_output))
        hidden = hidden + self.dropout(self.feed_forward(self.feed_forward_norm(hidden)))
        return hidden


class Stack(nn.Module):
    """The layers that read the source, or those that write the target."""

    def __init__(self, config: Config, num_layers: int, *, is_decoder: bool) -> None:
        super().__init__()
        self.is_decoder = is_decoder
        buckets, max_distance = config.relative_attention_num_buckets, config.relative_attention_max_distance
        self.positions = RelativePositionBias(
            buckets, max_distance, config.num_attention_heads, causal=is_decoder
        )
        self.layers = nn.ModuleList(
            Layer(config, number, is_decoder=is_decoder) for number in range(num_layers)
        )
        self.norm = RMSNorm(config.hidden_size, config.layer_norm_epsilon)
        self.dropout = Dropout(config.dropout_rate)

    def forward(
        self,
        embeddings: Tensor,
        layout: Layout,
        encoder_output: EncoderOutput | None = None,
        cache: KVCache | None = None,
    ) -> Tensor:
        """(B, T, D) to (B, T, D)"""
        width = embeddings.shape[1]
        mask = attention.build_mask(layout, width, causal=self.is_decoder)
        mask = attention.add_bias(mask, self.positions(layout, width))  # once, as the layers share it
        hidden = self.dropout(embeddings)
        for layer in self.layers:
            hidden = layer(hidden, mask, encoder_output, cache)
        output: Tensor = self.dropout(self.norm(hidden))
        return output


class HiddenScale(nn.Module):
    """Makes the last hidden state fit the word embedding, whose rows are ``size`` ** 0.5 long at first."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.factor = size**-0.5

    def forward(self, hidden: Tensor) -> Tensor:
        """(N, D) to (N, D)"""
        scaled: Tensor = hidden * self.factor
        return scaled


class Network(nn.Module):
    """A T5 with the heads that are asked for, at its first values."""

    def __init__(self, config: Config, heads: Sequence[str] = ("causal_lm",), num_labels: int = 0) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.encoder = Stack(config, config.num_hidden_layers, is_decoder=False)
        self.decoder = Stack(config, config.decoder_layers, is_decoder=True)
        self.heads = nn.ModuleDict()
        for name in heads:
            self.heads[name] = nn_heads.build_head(HEADS, name, self, num_labels, "t5")
        self.reset_parameters()

    @property
    def embed(self) -> nn.Embedding:
        """The embedding of tokens; a forward hook may replace its output."""
        return self.embedding

    @property
    def layers(self) -> tuple[nn.Module, ...]:
        """The encoder's, then the decoder's."""
        return (*self.encoder.layers, *self.decoder.layers)

    @property
    def norm(self) -> nn.Module:
        """What follows the decoder's last layer."""
        return self.decoder.norm

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw first values as the released T5 does, which makes up for products that are not scaled."""
        width, size = self.config.hidden_size, self.config.head_size
        stds: dict[nn.Module, float] = {self.embedding: 1.0}
        for module in self.modules():
            if isinstance(module, RMSNorm):
                nn.init.constant_(module.weight, self.config.initializer_factor)
            elif isinstance(module, Attention):
                stds |= {module.query: (width * size) ** -0.5, module.key: width**-0.5}
                stds |= {module.value: width**-0.5, module.output: module.output.in_features**-0.5}
            elif isinstance(module, FeedForward | GatedFeedForward):
                stds |= {module.up: width**-0.5, module.down: module.down.in_features**-0.5}
                stds |= {module.gate: width**-0.5} if isinstance(module, GatedFeedForward) else {}
            elif isinstance(module, RelativePositionBias):
                stds[module.embedding] = width**-0.5
            elif isinstance(module, nn_heads.TanhClassifier):
                stds |= {module.dense: width**-0.5, module.output: width**-0.5}
            elif isinstance(module, nn_heads.VocabularyHead) and not self.config.tie_word_embeddings:
                # As v1.1 was trained. transformers draws from N(0, 1), at a loss of many nats.
                stds[module.decoder] = width**-0.5
        for module, deviation in stds.items():
            init.init_normal_(module, deviation * self.config.initializer_factor, generator)

    def encode(self, batch: Batch) -> Tensor:
        """What the encoder says of the source, (B, S, D).

        Raises:
            UnsupportedError: the batch has no source.
        """
        tokens, layout = source_inputs(batch)
        hidden: Tensor = self.encoder(self.embedding(tokens), layout)
        return hidden

    def forward(
        self,
        batch: Batch,
        heads: Sequence[str] = ("causal_lm",),
        targets: Mapping[str, Tensor] | None = None,
        loss: LossOptions | None = None,
        cache: KVCache | None = None,
    ) -> Outputs:
        """Hidden states of the target, and what the heads say at their places.

        With a cache, the batch holds the new tokens only, and ``layout.cache_lengths`` counts the old ones.

        Raises:
            UnsupportedError: a head that the network was not built with, or a batch without a source.
        """
        if cache is not None:
            cache.prepare(batch.layout, batch.tokens.shape[1])
        encoder_output = encode_source(batch, self.encode, cache)
        hidden = self.decoder(self.embedding(batch.tokens), batch.layout, encoder_output, cache)  # (B, T, D)
        return nn_heads.run_heads(self.heads, hidden, batch, heads, targets, loss, cache)


def _attention_weights(ours: str, theirs: str) -> list[Operation]:
    pairs = {"query": "q", "key": "k", "value": "v", "output": "o"}
    return [Rename(f"{ours}.{name}.weight", f"{theirs}.{short}.weight") for name, short in pairs.items()]


def _stack_weights(stack: str, last: int) -> list[Operation]:
    """The names of a stack whose feed-forward block is number ``last`` of a layer's."""
    ours, theirs = f"{stack}.layers.{{}}", f"{stack}.block.{{}}.layer"
    up, gate = f"{ours}.feed_forward.up", f"{ours}.feed_forward.gate"
    dense = f"{theirs}.{last}.DenseReluDense"
    first = f"{stack}.block.0.layer.0.SelfAttention"
    return [
        Rename(f"{stack}.positions.embedding.weight", f"{first}.relative_attention_bias.weight"),
        Rename(f"{ours}.attention_norm.weight", f"{theirs}.0.layer_norm.weight"),
        *_attention_weights(f"{ours}.attention", f"{theirs}.0.SelfAttention"),
        Rename(f"{ours}.feed_forward_norm.weight", f"{theirs}.{last}.layer_norm.weight"),
        Rename(f"{up}.weight", f"{dense}.wi.weight"),
        RenameGroup((f"{gate}.weight", f"{up}.weight"), (f"{dense}.wi_0.weight", f"{dense}.wi_1.weight")),
        Rename(f"{ours}.feed_forward.down.weight", f"{dense}.wo.weight"),
        Rename(f"{stack}.norm.weight", f"{stack}.final_layer_norm.weight"),
    ]


def _build_lm_head(network: Network, _: int) -> nn_heads.VocabularyHead:
    config = network.config
    decoder = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
    if not config.tie_word_embeddings:
        return nn_heads.VocabularyHead(decoder)
    decoder.weight = network.embedding.weight
    return nn_heads.VocabularyHead(decoder, HiddenScale(config.hidden_size))


def _build_classifier(network: Network, num_outputs: int) -> nn_heads.TanhClassifier:
    config = network.config
    return nn_heads.TanhClassifier(config.hidden_size, num_outputs, config.classifier_dropout)


HEADS = {
    "causal_lm": Head("vocabulary", "ForConditionalGeneration", _build_lm_head, is_pretrained=True),
    "classification": Head(
        "sequence", "ForSequenceClassification", _build_classifier, "last",
        {
            "dense.{leaf}": "classification_head.dense.{leaf}",
            "output.{leaf}": "classification_head.out_proj.{leaf}",
        },
    ),
    "question_answering": nn_heads.span_head(),
}  # fmt: skip

TRAITS = Traits(
    architecture="encoder-decoder", heads=tuple(HEADS), pooling="last",
    supports_cache=True, decoder_start_token="pad",
    # Its word embedding begins at N(0, 1), and needs larger steps (docs/lab-notes.md).
    learning_rates={"learning_rate": 3e-2, "muon_learning_rate": 5e-3},
)  # fmt: skip

WEIGHTS: list[Operation] = [
    Prefix("transformer.", head="classification_head."),
    Duplicate("encoder.embed_tokens.weight", source="shared.weight"),  # in older files
    Duplicate("decoder.embed_tokens.weight", source="shared.weight"),
    Ignore("decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"),  # of no use to anyone
    Default("lm_head.weight", source="shared.weight"),  # a v1.1 that transformers 5 has tied
    Rename("embedding.weight", "shared.weight"),
    *_stack_weights("encoder", 1),
    *_stack_weights("decoder", 2),
    Rename("decoder.layers.{}.cross_attention_norm.weight", "decoder.block.{}.layer.1.layer_norm.weight"),
    *_attention_weights("decoder.layers.{}.cross_attention", "decoder.block.{}.layer.1.EncDecAttention"),
    Rename("heads.causal_lm.decoder.weight", "lm_head.weight"),
]


def tiny_config() -> Config:
    """A shape for tests."""
    return Config(
        vocab_size=96, hidden_size=32, num_hidden_layers=3, num_decoder_layers=2, num_attention_heads=4,
        head_dim=6, intermediate_size=64, relative_attention_num_buckets=8,
        relative_attention_max_distance=12, max_position_embeddings=48,
    )  # fmt: skip
