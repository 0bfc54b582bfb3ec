"""Llama (Touvron et al. 2023) and what differs from it by a norm, a bias or a window: Mistral, Qwen2, Qwen3.

They are one family: each is a Llama of which one map more has a bias, or whose layers look less far back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

import pydantic
import torch
from torch import Tensor, nn

from pretune import config as settings
from pretune.checkpoint import hub
from pretune.checkpoint.weights import Alias, Ignore, Operation, Rename
from pretune.errors import UnsupportedError
from pretune.nn import attention, init, scaled_rope
from pretune.nn import heads as nn_heads
from pretune.nn.cache import KVCache
from pretune.nn.feedforward import ActivationName, GatedFeedForward
from pretune.nn.norms import RMSNorm
from pretune.nn.positions import RotaryTables, apply_rotary
from pretune.types import Batch, LossOptions, Outputs, OutputSpec, SpecialTokens, Traits

MODEL_TYPES = {"llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2", "qwen3": "Qwen3"}
"""``model_type`` of a config.json to what the names of its stock classes begin with."""

VariantName = Literal["llama", "mistral", "qwen2", "qwen3"]


@dataclass(frozen=True)
class Variant:
    """What sets one architecture of the family apart from the others."""

    qk_norm: bool = False
    """It norms queries and keys, a head at a time."""
    qkv_bias: bool = False
    """Its maps to queries, keys and values have a bias, the one behind the attention has none."""
    optional_settings: tuple[str, ...] = ()
    """Those of ``OPTIONAL_SETTINGS`` that its stock class has."""


QWEN_WINDOW_SETTINGS = ("sliding_window", "layer_types", "max_window_layers")
VARIANTS: Mapping[VariantName, Variant] = {
    "llama": Variant(optional_settings=("attention_bias", "mlp_bias")),
    "mistral": Variant(optional_settings=("sliding_window",)),
    "qwen2": Variant(qkv_bias=True, optional_settings=QWEN_WINDOW_SETTINGS),
    "qwen3": Variant(qk_norm=True, optional_settings=("attention_bias", *QWEN_WINDOW_SETTINGS)),
}
OPTIONAL_SETTINGS = ("attention_bias", "mlp_bias", "sliding_window", "layer_types", "max_window_layers")

SHARED_DEFAULTS: Mapping[str, Any] = {
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "tie_word_embeddings": False,
}
LLAMA_DEFAULTS = {"vocab_size": 32000, "intermediate_size": 11008, "max_position_embeddings": 2048}
MISTRAL_DEFAULTS = {"vocab_size": 32000, "intermediate_size": 14336, "max_position_embeddings": 131072}
QWEN_DEFAULTS = {
    "vocab_size": 151936,
    "intermediate_size": 22016,
    "num_key_value_heads": 32,
    "max_position_embeddings": 32768,
    "sliding_window": 4096,
    "max_window_layers": 28,
}
HF_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "llama": {**SHARED_DEFAULTS, **LLAMA_DEFAULTS},
    "mistral": {**SHARED_DEFAULTS, **MISTRAL_DEFAULTS, "num_key_value_heads": 8, "sliding_window": 4096},
    "qwen2": {**SHARED_DEFAULTS, **QWEN_DEFAULTS},
    "qwen3": {**SHARED_DEFAULTS, **QWEN_DEFAULTS, "head_dim": 128},
}
"""What a config.json means that leaves a key out, where it differs from our defaults."""

AttentionType = Literal["full_attention", "sliding_attention"]
ROPE_THETA = 10_000.0


class Config(settings.Settings):
    """The shape of a Llama or a relative, as its config.json names it; defaults for a small machine."""

    model_type: VariantName = "qwen3"
    """The architecture: qwen3 norms queries and keys, qwen2 has a bias on queries, keys and values."""

    vocab_size: pydantic.PositiveInt = 8192
    hidden_size: pydantic.PositiveInt = 256
    num_hidden_layers: pydantic.PositiveInt = 4
    num_attention_heads: pydantic.PositiveInt = 4
    num_key_value_heads: pydantic.PositiveInt | None = None
    """None: as many as ``num_attention_heads``."""
    head_dim: pydantic.PositiveInt | None = None
    """None: ``hidden_size`` divided among the heads."""
    intermediate_size: pydantic.PositiveInt | None = None
    """None: 8/3 of ``hidden_size``, as many parameters as 4 times without a gate, in multiples of 32."""
    hidden_act: ActivationName = "silu"
    attention_dropout: float = pydantic.Field(default=0.0, ge=0, lt=1)
    max_position_embeddings: pydantic.PositiveInt = 1024
    """How long a text the model is meant for; rotary positions themselves have no end."""
    initializer_range: float = pydantic.Field(default=0.02, gt=0)
    rms_norm_eps: float = pydantic.Field(default=1e-6, gt=0, lt=1)
    rope_theta: float = pydantic.Field(default=ROPE_THETA, gt=1)
    rope_scaling: scaled_rope.RopeScaling | None = None
    """How positions are stretched for texts longer than those of the first pretraining."""
    sliding_window: pydantic.PositiveInt | None = None
    """Places that a layer with a window sees, its own included; None: no layer has one."""
    layer_types: tuple[AttentionType, ...] | None = None
    """What each layer sees; None: the whole text, or the window where there is one."""
    max_window_layers: pydantic.NonNegativeInt = 0
    """Layers at the bottom that see the whole text even so, where ``layer_types`` says nothing."""
    tie_word_embeddings: bool = True
    attention_bias: bool = False
    mlp_bias: bool = False

    @pydantic.model_validator(mode="after")
    def _check_consistency(self) -> Self:
        for name in OPTIONAL_SETTINGS:
            if getattr(self, name) and name not in VARIANTS[self.model_type].optional_settings:
                variants = " and ".join(
                    variant for variant, has in VARIANTS.items() if name in has.optional_settings
                )
                raise ValueError(
                    f"{name}: {self.model_type} has none, {variants} have; change model_type or unset it"
                )
        if self.hidden_size % self.num_attention_heads and (
            self.head_dim is None or self.model_type == "llama"
        ):
            raise ValueError(
                f"hidden_size {self.hidden_size} is no multiple of {self.num_attention_heads} heads"
            )
        if self.num_attention_heads % self.key_value_heads:
            heads = f"{self.num_attention_heads} heads do not divide among {self.key_value_heads}"
            raise ValueError(f"num_key_value_heads: {heads} key-value heads")
        if self.head_size % 2:
            raise ValueError(f"head_dim {self.head_size} is odd; rotary positions turn pairs of dimensions")
        if self.rope_scaling is not None and self.head_size < 4:
            raise ValueError(f"head_dim {self.head_size}: rope_scaling needs 4 dimensions or more")
        if self.layer_types is not None:
            if len(self.layer_types) != self.num_hidden_layers:
                raise ValueError(
                    f"layer_types has {len(self.layer_types)} entries, not {self.num_hidden_layers}"
                )
            if "sliding_attention" in self.layer_types and self.sliding_window is None:
                raise ValueError("layer_types: sliding_attention needs a sliding_window")
        return self

    @property
    def tokenizer_class(self) -> str | None:
        """The class that reads its tokenizer in stock transformers, whatever the folder says; None: any."""
        return "Qwen2Tokenizer" if self.model_type == "qwen2" else None

    @property
    def key_value_heads(self) -> int:
        """G"""
        return self.num_key_value_heads or self.num_attention_heads

    @property
    def head_size(self) -> int:
        """K"""
        return self.head_dim or self.hidden_size // self.num_attention_heads

    @property
    def inner_size(self) -> int:
        """F, the width between the maps of a feed-forward block."""
        return self.intermediate_size or max(32, round(self.hidden_size * 8 / 3 / 32) * 32)

    @property
    def layer_attention_types(self) -> tuple[AttentionType, ...]:
        """What each layer sees, from the first to the last."""
        depth = self.num_hidden_layers
        whole = depth if self.sliding_window is None else min(self.max_window_layers, depth)
        attention_types: tuple[AttentionType, AttentionType] = ("full_attention", "sliding_attention")
        return self.layer_types or attention_types[:1] * whole + attention_types[1:] * (depth - whole)

    @classmethod
    def from_hugging_face(cls, values: Mapping[str, Any]) -> Config:
        """The config of a config.json; what does not change the network is passed over.

        Raises:
            UnsupportedError: it asks for something that this family does not compute.
            ConfigError: a value is wrong.
        """
        model_type = values.get("model_type", "llama")
        if model_type not in HF_DEFAULTS:
            raise UnsupportedError(
                f"config.json: model_type {model_type!r}; llama reads {', '.join(HF_DEFAULTS)}"
            )
        given = {**HF_DEFAULTS[model_type], **values}
        absent = {
            name for name in OPTIONAL_SETTINGS if name not in VARIANTS[model_type].optional_settings
        }  # stock ignores them
        known = {key: value for key, value in given.items() if key in cls.model_fields and key not in absent}
        known |= {"model_type": model_type, **scaled_rope.read_rope_settings(given, "llama", ROPE_THETA)}
        if "layer_types" in VARIANTS[model_type].optional_settings and not given.get("use_sliding_window"):
            known |= {"sliding_window": None, "max_window_layers": 0}
        return settings.build_settings(cls, known, where="config.json")

    def to_hugging_face(
        self, head: str, *, outputs: OutputSpec | None = None, specials: SpecialTokens | None = None
    ) -> dict[str, Any]:
        """The config.json with which stock transformers loads this network with ``head``."""
        variant, scaling = VARIANTS[self.model_type], self.rope_scaling
        absent = {
            "model_type",
            "rope_scaling",
            *(name for name in OPTIONAL_SETTINGS if name not in variant.optional_settings),
        }
        values = self.model_dump(exclude=absent)
        values |= {"head_dim": self.head_size, "num_key_value_heads": self.key_value_heads}
        values |= {"intermediate_size": self.inner_size}
        # Both forms: transformers 5 reads the first, older tools the second.
        rope = scaled_rope.to_rope_parameters(scaling)
        values |= {"rope_parameters": {**rope, "rope_theta": self.rope_theta}}
        values |= {} if scaling is None else {"rope_scaling": rope}
        if "layer_types" in variant.optional_settings:
            values |= {"layer_types": list(self.layer_attention_types)}
            values |= {"use_sliding_window": self.sliding_window is not None}
        values |= {"model_type": self.model_type, "dtype": "float32"}
        values |= {"architectures": [nn_heads.stock_class(HEADS, MODEL_TYPES[self.model_type], head)]}
        if specials is not None:
            values |= {"pad_token_id": specials.pad_id, "bos_token_id": specials.bos_id}
            values |= {"eos_token_id": specials.eos_id}
        return values | hub.output_config(outputs)


class SelfAttention(nn.Module):
    """Causal grouped-query attention with rotary positions."""

    def __init__(self, config: Config, layer_index: int) -> None:
        super().__init__()
        width, size, variant = config.hidden_size, config.head_size, VARIANTS[config.model_type]
        bias = config.attention_bias or variant.qkv_bias
        self.layer_index = layer_index
        self.head_size = size
        self.dropout = config.attention_dropout
        self.query = nn.Linear(width, config.num_attention_heads * size, bias=bias)
        self.key = nn.Linear(width, config.key_value_heads * size, bias=bias)
        self.value = nn.Linear(width, config.key_value_heads * size, bias=bias)
        self.output = nn.Linear(config.num_attention_heads * size, width, bias=config.attention_bias)
        self.query_norm = RMSNorm(size, config.rms_norm_eps) if variant.qk_norm else nn.Identity()
        self.key_norm = RMSNorm(size, config.rms_norm_eps) if variant.qk_norm else nn.Identity()

    def forward(
        self,
        hidden: Tensor,
        tables: RotaryTables,
        mask: attention.AttentionMask,
        cache: KVCache | None,
        output_positions: Tensor | None = None,
    ) -> Tensor:
        """(B, T, D) to (B, T, D), or to (M, D) at ``output_positions``"""
        split = (-1, self.head_size)
        query = self.query_norm(self.query(hidden).unflatten(-1, split)).transpose(1, 2)  # (B, H, T, K)
        key = self.key_norm(self.key(hidden).unflatten(-1, split)).transpose(1, 2)  # (B, G, T, K)
        value = self.value(hidden).unflatten(-1, split).transpose(1, 2)  # (B, G, T, K)
        query, key = apply_rotary(query, tables), apply_rotary(key, tables)
        if cache is not None:
            key, value = cache.extend(self.layer_index, key, value)  # (B, G, S, K)
        mixed = attention.attend(query, key, value, mask, dropout=self.dropout if self.training else 0.0)
        output: Tensor = self.output(nn_heads.select(mixed, output_positions))
        return output


class Layer(nn.Module):
    """Attention and feed-forward, each behind a norm, each added to the residual stream."""

    def __init__(self, config: Config, layer_index: int) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.attention = SelfAttention(config, layer_index)
        self.feed_forward_norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.feed_forward = GatedFeedForward(
            config.hidden_size, config.inner_size, config.hidden_act, bias=config.mlp_bias
        )

    def forward(
        self,
        hidden: Tensor,
        tables: RotaryTables,
        mask: attention.AttentionMask,
        cache: KVCache | None,
        output_positions: Tensor | None = None,
    ) -> Tensor:
        """(B, T, D) to (B, T, D), or to (M, D) at ``output_positions``"""
        mixed = self.attention(self.attention_norm(hidden), tables, mask, cache, output_positions)
        hidden = nn_heads.select(hidden, output_positions) + mixed
        hidden = hidden + self.feed_forward(self.feed_forward_norm(hidden))
        return hidden


class Network(nn.Module):
    """A Llama or a relative with the heads that are asked for, at its first values."""

    def __init__(self, config: Config, heads: Sequence[str] = ("causal_lm",), num_labels: int = 0) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config, number) for number in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.heads = nn.ModuleDict()
        for name in heads:
            self.heads[name] = nn_heads.build_head(HEADS, name, self, num_labels, "llama")
        self.reset_parameters()

    @property
    def embed(self) -> nn.Embedding:
        """The embedding of tokens; a forward hook may replace its output."""
        return self.embedding

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw first values as transformers does."""
        init.init_normal_(self, self.config.initializer_range, generator)

    def forward(
        self,
        batch: Batch,
        heads: Sequence[str] = ("causal_lm",),
        targets: Mapping[str, Tensor] | None = None,
        loss: LossOptions | None = None,
        cache: KVCache | None = None,
    ) -> Outputs:
        """Hidden states of the batch, and what the heads say at their places.

        With a cache, the batch holds the new tokens only, and ``layout.cache_lengths`` counts the old ones.

        Raises:
            UnsupportedError: a head that the network was not built with.
        """
        config, layout, width = self.config, batch.layout, batch.tokens.shape[1]
        hidden = self.embedding(batch.tokens)  # (B, T, D)
        max_length, device = config.max_position_embeddings, batch.tokens.device
        rotation = scaled_rope.RotaryBase(config.head_size, config.rope_theta, max_length, device)
        tables = scaled_rope.build_rotary_tables(layout, width, rotation, config.rope_scaling)
        windows = {"full_attention": None, "sliding_attention": config.sliding_window}
        masks = {
            reach: attention.build_mask(layout, width, causal=True, window=windows[reach])
            for reach in set(config.layer_attention_types)
        }
        if cache is not None:
            cache.prepare(layout, width)
        *before, last = config.layer_attention_types
        for layer, attention_type in zip(self.layers, before, strict=False):
            hidden = layer(hidden, tables, masks[attention_type], cache)
        output_positions = nn_heads.needed_positions(self.heads, batch, heads)
        hidden = self.layers[-1](hidden, tables, masks[last], cache, output_positions)
        return nn_heads.run_heads(self.heads, self.norm(hidden), batch, heads, targets, loss, cache)


def _build_lm_head(network: Network, _: int) -> nn_heads.VocabularyHead:
    config = network.config
    decoder = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
    if config.tie_word_embeddings:
        decoder.weight = network.embedding.weight
    return nn_heads.VocabularyHead(decoder)


def _question_answering_prefix(config: Config) -> tuple[str, str]:
    return "model.", "model." if config.model_type == "mistral" else "transformer."


HEADS = nn_heads.decoder_heads(_build_lm_head, token_classifier="score")
HEADS["question_answering"] = replace(HEADS["question_answering"], body_prefix=_question_answering_prefix)

TRAITS = Traits(architecture="decoder", heads=tuple(HEADS), pooling="last", supports_cache=True)

WEIGHTS: list[Operation] = [
    # A stock LlamaModel, without a head, and one under a head for questions, where it has another name.
    Alias(r"^(?:transformer\.)?(embed_tokens|layers|norm)\.", r"model.\1."),
    Ignore("model.layers.{}.self_attn.rotary_emb.inv_freq"),
    Rename("embedding.weight", "model.embed_tokens.weight"),
    Rename("layers.{}.attention_norm.weight", "model.layers.{}.input_layernorm.weight"),
    Rename("layers.{}.attention.query.{leaf}", "model.layers.{}.self_attn.q_proj.{leaf}"),
    Rename("layers.{}.attention.key.{leaf}", "model.layers.{}.self_attn.k_proj.{leaf}"),
    Rename("layers.{}.attention.value.{leaf}", "model.layers.{}.self_attn.v_proj.{leaf}"),
    Rename("layers.{}.attention.output.{leaf}", "model.layers.{}.self_attn.o_proj.{leaf}"),
    Rename("layers.{}.attention.query_norm.weight", "model.layers.{}.self_attn.q_norm.weight"),
    Rename("layers.{}.attention.key_norm.weight", "model.layers.{}.self_attn.k_norm.weight"),
    Rename("layers.{}.feed_forward_norm.weight", "model.layers.{}.post_attention_layernorm.weight"),
    Rename("layers.{}.feed_forward.gate.{leaf}", "model.layers.{}.mlp.gate_proj.{leaf}"),
    Rename("layers.{}.feed_forward.up.{leaf}", "model.layers.{}.mlp.up_proj.{leaf}"),
    Rename("layers.{}.feed_forward.down.{leaf}", "model.layers.{}.mlp.down_proj.{leaf}"),
    Rename("norm.weight", "model.norm.weight"),
    Rename("heads.causal_lm.decoder.weight", "lm_head.weight"),
]


def tiny_config() -> Config:
    """A shape for tests: the window of its first layer is shorter than their texts."""
    return Config(
        vocab_size=96,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=64,
        max_position_embeddings=48,
        sliding_window=5,
        layer_types=("sliding_attention", "full_attention"),
    )
