"""The Transformer (Vaswani et al. 2017): an encoder-decoder with sinusoids, normalised after each block.

In stock transformers it is Marian, the form in which translation models of it are published.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Self

import pydantic
import torch
from torch import Tensor, nn

from pretune import config as settings
from pretune.checkpoint import hub
from pretune.checkpoint.weights import Alias, Default, Duplicate, Ignore, Operation, Rename, Squeeze
from pretune.errors import UnsupportedError
from pretune.nn import attention, init
from pretune.nn import heads as nn_heads
from pretune.nn.cache import KVCache
from pretune.nn.cross_attention import EncoderOutput, encode_source, source_inputs
from pretune.nn.dropout import Dropout
from pretune.nn.feedforward import ActivationName, FeedForward
from pretune.nn.heads import Head
from pretune.nn.positions import build_position_ids, sinusoids
from pretune.types import Batch, Layout, LossOptions, Outputs, OutputSpec, SpecialTokens, Traits

MODEL_TYPES = {"marian": "Marian"}
"""``model_type`` of a config.json to what the names of its stock classes begin with."""

ATTRIBUTE_MAP = {
    "hidden_size": "d_model",
    "num_hidden_layers": "encoder_layers",
    "num_decoder_layers": "decoder_layers",
    "num_attention_heads": "encoder_attention_heads",
    "intermediate_size": "encoder_ffn_dim",
    "decoder_intermediate_size": "decoder_ffn_dim",
    "hidden_act": "activation_function",
    "initializer_range": "init_std",
}
"""Our settings, which are called as in the other families, and what Marian's config.json calls them."""

HF_DEFAULTS: Mapping[str, Any] = {
    "vocab_size": 58101,
    "d_model": 1024,
    "encoder_layers": 12,
    "decoder_layers": 12,
    "encoder_attention_heads": 16,
    "decoder_attention_heads": 16,
    "encoder_ffn_dim": 4096,
    "decoder_ffn_dim": 4096,
    "dropout": 0.1,
    "activation_function": "gelu",
    "scale_embedding": False,
}
"""What a config.json means that leaves a key out, where it differs from our defaults."""


class Config(settings.Settings):
    """The shape of a Transformer; defaults for a small machine."""

    vocab_size: pydantic.PositiveInt = 8192
    hidden_size: pydantic.PositiveInt = 256
    num_hidden_layers: pydantic.PositiveInt = 3
    """Of the encoder."""
    num_decoder_layers: pydantic.PositiveInt | None = None
    """None: as many as the encoder has."""
    num_attention_heads: pydantic.PositiveInt = 4
    """Of the encoder."""
    decoder_attention_heads: pydantic.PositiveInt | None = None
    """None: as many as the encoder has."""
    intermediate_size: pydantic.PositiveInt | None = None
    """Of the encoder; None: four times ``hidden_size``."""
    decoder_intermediate_size: pydantic.PositiveInt | None = None
    """None: as the encoder's."""
    hidden_act: ActivationName = "relu"
    # None in pretraining: it is slow on CPU and does not pay off in one epoch (Geiping & Goldstein 2022).
    dropout: float = pydantic.Field(default=0.0, ge=0, lt=1)
    attention_dropout: float = pydantic.Field(default=0.0, ge=0, lt=1)
    activation_dropout: float = pydantic.Field(default=0.0, ge=0, lt=1)
    max_position_embeddings: pydantic.PositiveInt = 1024
    """How long a source or target the model is meant for; sinusoids themselves have no end."""
    initializer_range: float = pydantic.Field(default=0.02, gt=0)
    scale_embedding: bool = True
    """Word embeddings are multiplied by ``hidden_size`` ** 0.5 (section 3.4)."""

    @pydantic.model_validator(mode="after")
    def _check_consistency(self) -> Self:
        if self.hidden_size % 2:
            raise ValueError(f"hidden_size {self.hidden_size} is odd; half of the positions are sines")
        for heads in (self.num_attention_heads, self.decoder_heads):
            if self.hidden_size % heads:
                raise ValueError(f"hidden_size {self.hidden_size} is no multiple of {heads} heads")
        return self

    @property
    def decoder_layers(self) -> int:
        """Layers of the decoder."""
        return self.num_decoder_layers or self.num_hidden_layers

    @property
    def decoder_heads(self) -> int:
        """H of the decoder."""
        return self.decoder_attention_heads or self.num_attention_heads

    @property
    def inner_size(self) -> int:
        """F of the encoder, the width between the two maps of a feed-forward block."""
        return self.intermediate_size or 4 * self.hidden_size

    @property
    def decoder_inner_size(self) -> int:
        """F of the decoder."""
        return self.decoder_intermediate_size or self.inner_size

    @classmethod
    def from_hugging_face(cls, values: Mapping[str, Any]) -> Config:
        """The config of a config.json; what does not change the network is passed over.

        Raises:
            UnsupportedError: it asks for something that this family does not compute.
            ConfigError: a value is wrong.
        """
        for key, only in {
            "share_encoder_decoder_embeddings": True,
            "tie_word_embeddings": True,
            "encoder_layerdrop": 0,
            "decoder_layerdrop": 0,
            "normalize_before": False,
            "normalize_embedding": False,
            "add_final_layer_norm": False,
        }.items():
            if values.get(key, only) != only:
                raise UnsupportedError(
                    f"config.json: {key} = {values[key]}; the transformer family has {only} only"
                )
        vocab_size = values.get("vocab_size")
        if (values.get("decoder_vocab_size") or vocab_size) != vocab_size:
            raise UnsupportedError(
                "config.json: decoder_vocab_size is not vocab_size; there is one vocabulary"
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
        values = {ATTRIBUTE_MAP.get(name, name): value for name, value in self.model_dump().items()}
        values |= {"decoder_layers": self.decoder_layers, "decoder_attention_heads": self.decoder_heads}
        values |= {"encoder_ffn_dim": self.inner_size, "decoder_ffn_dim": self.decoder_inner_size}
        values |= {
            "architectures": [nn_heads.stock_class(HEADS, MODEL_TYPES["marian"], head)],
            "model_type": "marian",
            "dtype": "float32",
        }
        values |= {"is_encoder_decoder": True, "decoder_vocab_size": self.vocab_size}
        values |= {"share_encoder_decoder_embeddings": True, "tie_word_embeddings": True}
        values |= {"forced_eos_token_id": None}
        if specials is not None:
            values |= {"pad_token_id": specials.pad_id, "bos_token_id": specials.bos_id}
            values |= {"eos_token_id": specials.eos_id, "decoder_start_token_id": specials.pad_id}
        return values | hub.output_config(outputs)


class Attention(nn.Module):
    """Multi-head attention to the other places or to the source (section 3.2.2)."""

    def __init__(self, config: Config, num_heads: int, layer_index: int) -> None:
        super().__init__()
        width = config.hidden_size
        self.layer_index = layer_index
        self.heads = num_heads
        self.dropout = config.attention_dropout
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)

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
        output: Tensor = self.output(attention.attend(query, key, value, mask, dropout=rate))
        return output

    def _split_heads(self, projected: Tensor) -> Tensor:
        heads: Tensor = projected.unflatten(-1, (self.heads, -1))  # type: ignore[no-untyped-call]
        return heads.transpose(1, 2)


class Layer(nn.Module):
    """Attention, in a decoder attention to the source, and feed-forward, each added and normalised (3.1)."""

    def __init__(self, config: Config, layer_index: int, *, is_decoder: bool) -> None:
        super().__init__()
        width = config.hidden_size
        heads = config.decoder_heads if is_decoder else config.num_attention_heads
        inner = config.decoder_inner_size if is_decoder else config.inner_size
        self.attention = Attention(config, heads, layer_index)
        self.attention_norm = nn.LayerNorm(width)
        if is_decoder:
            self.cross_attention = Attention(config, heads, layer_index)
            self.cross_attention_norm = nn.LayerNorm(width)
        self.feed_forward = FeedForward(width, inner, config.hidden_act, dropout=config.activation_dropout)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.dropout = Dropout(config.dropout)

    def forward(
        self,
        hidden: Tensor,
        mask: attention.AttentionMask,
        encoder_output: EncoderOutput | None,
        cache: KVCache | None,
    ) -> Tensor:
        """(B, T, D) to (B, T, D)"""
        hidden = self.attention_norm(hidden + self.dropout(self.attention(hidden, mask, cache)))
        if encoder_output is not None:
            cross_output = self.dropout(self.cross_attention.cross_attend(hidden, encoder_output))
            hidden = self.cross_attention_norm(hidden + cross_output)
        hidden = self.feed_forward_norm(hidden + self.dropout(self.feed_forward(hidden)))
        return hidden


class Stack(nn.Module):
    """The layers that read the source, or those that write the target."""

    def __init__(self, config: Config, num_layers: int, *, is_decoder: bool) -> None:
        super().__init__()
        self.is_decoder = is_decoder
        self.layers = nn.ModuleList(
            Layer(config, number, is_decoder=is_decoder) for number in range(num_layers)
        )
        self.dropout = Dropout(config.dropout)

    def forward(
        self,
        embeddings: Tensor,
        layout: Layout,
        encoder_output: EncoderOutput | None = None,
        cache: KVCache | None = None,
    ) -> Tensor:
        """(B, T, D) word embeddings to (B, T, D)"""
        width, size = embeddings.shape[1:]
        mask = attention.build_mask(layout, width, causal=self.is_decoder)
        hidden: Tensor = self.dropout(
            embeddings + sinusoids(build_position_ids(layout, width), size).to(embeddings.dtype)
        )
        for layer in self.layers:
            hidden = layer(hidden, mask, encoder_output, cache)
        return hidden


class Network(nn.Module):
    """A Transformer with the heads that are asked for, at its first values."""

    def __init__(self, config: Config, heads: Sequence[str] = ("causal_lm",), num_labels: int = 0) -> None:
        super().__init__()
        self.config = config
        self.scale = math.sqrt(config.hidden_size) if config.scale_embedding else 1.0
        self.embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.encoder = Stack(config, config.num_hidden_layers, is_decoder=False)
        self.decoder = Stack(config, config.decoder_layers, is_decoder=True)
        self.norm = nn.Identity()  # each layer ends in a norm of its own
        self.heads = nn.ModuleDict()
        for name in heads:
            self.heads[name] = nn_heads.build_head(HEADS, name, self, num_labels, "transformer")
        self.reset_parameters()

    @property
    def embed(self) -> nn.Embedding:
        """The embedding of tokens; a forward hook may replace its output."""
        return self.embedding

    @property
    def layers(self) -> tuple[nn.Module, ...]:
        """The encoder's, then the decoder's."""
        return (*self.encoder.layers, *self.decoder.layers)

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw first values as transformers does."""
        init.init_normal_(self, self.config.initializer_range, generator)

    def encode(self, batch: Batch) -> Tensor:
        """What the encoder says of the source, (B, S, D).

        Raises:
            UnsupportedError: the batch has no source.
        """
        tokens, layout = source_inputs(batch)
        hidden: Tensor = self.encoder(self.embedding(tokens) * self.scale, layout)
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
        hidden = self.decoder(self.embedding(batch.tokens) * self.scale, batch.layout, encoder_output, cache)
        return nn_heads.run_heads(self.heads, self.norm(hidden), batch, heads, targets, loss, cache)


def _zero_bias(embedding: Tensor) -> Tensor:
    return embedding.new_zeros(1, len(embedding))


def _stack_weights(stack: str) -> list[Operation]:
    ours, theirs = f"{stack}.layers.{{}}", f"model.{stack}.layers.{{}}"
    maps = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "output": "out_proj"}
    blocks = {"attention": "self_attn", "cross_attention": "encoder_attn"}
    return [
        Ignore(f"model.{stack}.embed_positions.weight"),  # the sinusoids
        *(
            Rename(f"{ours}.{block}.{name}.{{leaf}}", f"{theirs}.{other}.{short}.{{leaf}}")
            for block, other in blocks.items()
            for name, short in maps.items()
        ),
        *(
            Rename(f"{ours}.{block}_norm.{{leaf}}", f"{theirs}.{other}_layer_norm.{{leaf}}")
            for block, other in blocks.items()
        ),
        Rename(f"{ours}.feed_forward.up.{{leaf}}", f"{theirs}.fc1.{{leaf}}"),
        Rename(f"{ours}.feed_forward.down.{{leaf}}", f"{theirs}.fc2.{{leaf}}"),
        Rename(f"{ours}.feed_forward_norm.{{leaf}}", f"{theirs}.final_layer_norm.{{leaf}}"),
    ]


def _build_lm_head(network: Network, _: int) -> nn_heads.VocabularyHead:
    decoder = nn.Linear(network.config.hidden_size, network.config.vocab_size)
    decoder.bias.requires_grad_(False)  # part of what Marian publishes, never trained
    decoder.weight = network.embedding.weight
    return nn_heads.VocabularyHead(decoder)


HEADS = {"causal_lm": Head("vocabulary", "MTModel", _build_lm_head, is_pretrained=True)}

TRAITS = Traits(
    architecture="encoder-decoder", heads=tuple(HEADS), pooling="last", supports_cache=True,
    decoder_start_token="pad",
)  # fmt: skip

WEIGHTS: list[Operation] = [
    Alias(r"^(shared|encoder|decoder)\.", r"model.\1."),  # a stock MarianModel, without a head
    Duplicate("model.encoder.embed_tokens.weight", source="model.shared.weight"),  # in older files
    Duplicate("model.decoder.embed_tokens.weight", source="model.shared.weight"),
    Duplicate("lm_head.weight", source="model.shared.weight"),
    Default("final_logits_bias", source="model.shared.weight", make=_zero_bias),
    Rename("embedding.weight", "model.shared.weight"),
    *_stack_weights("encoder"),
    *_stack_weights("decoder"),
    Rename("heads.causal_lm.decoder.bias", "final_logits_bias"),
    Squeeze("heads.causal_lm.decoder.bias"),
]


def tiny_config() -> Config:
    """A shape for tests."""
    return Config(
        vocab_size=96,
        hidden_size=32,
        num_hidden_layers=3,
        num_decoder_layers=2,
        num_attention_heads=4,
        decoder_attention_heads=2,
        intermediate_size=64,
        decoder_intermediate_size=48,
        max_position_embeddings=48,
    )
