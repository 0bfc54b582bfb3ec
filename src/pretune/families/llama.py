"""Llama (Touvron et al. 2023) and, with normed queries and keys, Qwen3 (Yang et al. 2025): decoders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import pydantic
import torch
from torch import Tensor, nn

from pretune import config as settings
from pretune.checkpoint import hub
from pretune.checkpoint.weights import Accept, Ignore, Operation, Rename
from pretune.errors import ConfigError, UnsupportedError
from pretune.nn import attention, initialisation
from pretune.nn import heads as reading
from pretune.nn.cache import Cache
from pretune.nn.feedforward import ActivationName, GatedFeedForward
from pretune.nn.norms import RMSNorm
from pretune.nn.positions import Tables, positions, rotary_tables, rotate
from pretune.types import Batch, Outputs, Specials, Traits

TRAITS = Traits(kind="decoder", heads=("causal_lm", "classification"), sentence="last", cache=True)

HF_TYPES = {
    "llama": {"causal_lm": "LlamaForCausalLM", "classification": "LlamaForSequenceClassification"},
    "qwen3": {"causal_lm": "Qwen3ForCausalLM", "classification": "Qwen3ForSequenceClassification"},
}

REFERENCE: Mapping[str, Mapping[str, Any]] = {
    "llama": {
        "vocab_size": 32000,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "max_position_embeddings": 2048,
        "tie_word_embeddings": False,
    },
    "qwen3": {
        "vocab_size": 151936,
        "hidden_size": 4096,
        "intermediate_size": 22016,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "head_dim": 128,
        "max_position_embeddings": 32768,
        "tie_word_embeddings": False,
    },
}
"""What a config.json means that leaves a key out, where it differs from our defaults."""

ROPE_THETA = 10_000.0


class Config(settings.Settings):
    """The shape of a Llama or Qwen3, under the names of its config.json; defaults for a small machine."""

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
    rms_norm_eps: float = pydantic.Field(default=1e-6, gt=0)
    rope_theta: float = pydantic.Field(default=ROPE_THETA, gt=1)
    tie_word_embeddings: bool = True
    attention_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = True
    """Norm queries and keys, a head at a time: Qwen3. Without it: Llama."""

    @pydantic.model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.hidden_size % self.num_attention_heads and (self.head_dim is None or not self.qk_norm):
            raise ValueError(
                f"hidden_size {self.hidden_size} is no multiple of {self.num_attention_heads} heads"
            )
        if self.num_attention_heads % self.key_value_heads:
            heads = f"{self.num_attention_heads} heads do not divide among {self.key_value_heads}"
            raise ValueError(f"num_key_value_heads: {heads} key-value heads")
        if self.head_size % 2:
            raise ValueError(f"head_dim {self.head_size} is odd; rotary positions turn pairs of dimensions")
        if self.qk_norm and self.mlp_bias:
            raise ValueError(
                "mlp_bias: Qwen3 has none, and no other stock class has qk_norm; unset one of them"
            )
        return self

    @property
    def model_type(self) -> str:
        """What transformers calls it."""
        return "qwen3" if self.qk_norm else "llama"

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

    @classmethod
    def from_hugging_face(cls, values: Mapping[str, Any]) -> Config:
        """The config of a config.json; what does not change the network is passed over.

        Raises:
            UnsupportedError: it asks for something that this family does not compute.
            ConfigError: a value is wrong.
        """
        model_type = values.get("model_type", "llama")
        if model_type not in REFERENCE:
            raise UnsupportedError(
                f"config.json: model_type {model_type!r}; llama reads {', '.join(REFERENCE)}"
            )
        if values.get("use_sliding_window"):
            raise UnsupportedError(
                "config.json: use_sliding_window is set; the llama family sees whole texts only"
            )
        known = {key: value for key, value in values.items() if key in cls.model_fields}
        known |= {"qk_norm": model_type == "qwen3", "rope_theta": _rope_theta(values)}
        return settings.build(cls, {**REFERENCE[model_type], **known}, where="config.json")

    def to_hugging_face(
        self, head: str, *, labels: tuple[str, ...] = (), specials: Specials | None = None
    ) -> dict[str, Any]:
        """The config.json with which stock transformers loads this network with ``head``."""
        values = self.model_dump(exclude={"qk_norm", "mlp_bias"} if self.qk_norm else {"qk_norm"})
        values |= {"head_dim": self.head_size, "num_key_value_heads": self.key_value_heads}
        values |= {"intermediate_size": self.inner_size}
        # Both forms: transformers 5 reads the first, older tools the second.
        values |= {"rope_parameters": {"rope_type": "default", "rope_theta": self.rope_theta}}
        values |= {"model_type": self.model_type, "dtype": "float32"}
        values |= {"architectures": [HF_TYPES[self.model_type][head]]}
        if specials is not None:
            values |= {"pad_token_id": specials.pad, "bos_token_id": specials.start}
            values |= {"eos_token_id": specials.end}
        return values | hub.label_fields(labels)


def _rope_theta(values: Mapping[str, Any]) -> float:
    """The base of the rotary positions: ``rope_parameters`` since transformers 5, ``rope_theta`` before."""
    rope = {**(values.get("rope_scaling") or {}), **(values.get("rope_parameters") or {})}
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind != "default":
        raise UnsupportedError(f"config.json: rope_type {kind!r}; the llama family has 'default' only")
    share = rope.get("partial_rotary_factor", values.get("partial_rotary_factor", 1.0))
    if share != 1.0:
        raise UnsupportedError(
            f"config.json: partial_rotary_factor {share}; the llama family turns all dimensions"
        )
    theta: float = rope.get("rope_theta", values.get("rope_theta", ROPE_THETA))
    return theta


class SelfAttention(nn.Module):
    """Causal grouped-query attention with rotary positions."""

    def __init__(self, config: Config, number: int) -> None:
        super().__init__()
        width, size, bias = config.hidden_size, config.head_size, config.attention_bias
        self.number = number
        self.head_size = size
        self.dropout = config.attention_dropout
        self.query = nn.Linear(width, config.num_attention_heads * size, bias=bias)
        self.key = nn.Linear(width, config.key_value_heads * size, bias=bias)
        self.value = nn.Linear(width, config.key_value_heads * size, bias=bias)
        self.output = nn.Linear(config.num_attention_heads * size, width, bias=bias)
        self.query_norm = RMSNorm(size, config.rms_norm_eps) if config.qk_norm else nn.Identity()
        self.key_norm = RMSNorm(size, config.rms_norm_eps) if config.qk_norm else nn.Identity()

    def forward(
        self,
        hidden: Tensor,
        tables: Tables,
        plan: attention.Plan,
        cache: Cache | None,
        places: Tensor | None = None,
    ) -> Tensor:
        """(B, T, D) to (B, T, D), or to (M, D) at ``places``"""
        split = (-1, self.head_size)
        query = self.query_norm(self.query(hidden).unflatten(-1, split)).transpose(1, 2)  # (B, H, T, K)
        key = self.key_norm(self.key(hidden).unflatten(-1, split)).transpose(1, 2)  # (B, G, T, K)
        value = self.value(hidden).unflatten(-1, split).transpose(1, 2)  # (B, G, T, K)
        query, key = rotate(query, tables), rotate(key, tables)
        if cache is not None:
            key, value = cache.extend(self.number, key, value)  # (B, G, S, K)
        mixed = attention.attend(query, key, value, plan, dropout=self.dropout if self.training else 0.0)
        output: Tensor = self.output(reading.at(mixed, places))
        return output


class Layer(nn.Module):
    """Attention and feed-forward, each behind a norm, each added to the residual stream."""

    def __init__(self, config: Config, number: int) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.attention = SelfAttention(config, number)
        self.feed_forward_norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.feed_forward = GatedFeedForward(
            config.hidden_size, config.inner_size, config.hidden_act, bias=config.mlp_bias
        )

    def forward(
        self,
        hidden: Tensor,
        tables: Tables,
        plan: attention.Plan,
        cache: Cache | None,
        places: Tensor | None = None,
    ) -> Tensor:
        """(B, T, D) to (B, T, D), or to (M, D) at ``places``"""
        mixed = self.attention(self.attention_norm(hidden), tables, plan, cache, places)
        hidden = reading.at(hidden, places) + mixed
        hidden = hidden + self.feed_forward(self.feed_forward_norm(hidden))
        return hidden


class Classifier(nn.Module):
    """A linear map without bias from the last real place to the classes."""

    reads: reading.Reads = TRAITS.sentence

    def __init__(self, config: Config, classes: int) -> None:
        super().__init__()
        self.output = nn.Linear(config.hidden_size, classes, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        """(N, D) to (N, C)"""
        logits: Tensor = self.output(hidden)
        return logits


class Network(nn.Module):
    """A Llama or Qwen3 with the heads that are asked for, at its first values."""

    def __init__(self, config: Config, heads: Sequence[str] = ("causal_lm",), num_labels: int = 0) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config, number) for number in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.heads = nn.ModuleDict({name: self._head(name, num_labels) for name in heads})
        self.reset_parameters()

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw first values as transformers does."""
        initialisation.normal(self, self.config.initializer_range, generator)

    def forward(
        self,
        batch: Batch,
        heads: Sequence[str] = ("causal_lm",),
        targets: Mapping[str, Tensor] | None = None,
        cache: Cache | None = None,
    ) -> Outputs:
        """Hidden states of the batch, and what the heads say at their places.

        With a cache, the batch holds the new tokens only, and ``layout.cached`` counts the old ones.

        Raises:
            UnsupportedError: a head that the network was not built with.
        """
        width = batch.tokens.shape[1]
        hidden = self.embedding(batch.tokens)  # (B, T, D)
        tables = rotary_tables(positions(batch.layout, width), self.config.head_size, self.config.rope_theta)
        plan = attention.plan(batch.layout, width, causal=True)
        if cache is not None:
            cache.open(batch.layout, width)
        *before, last = self.layers
        for layer in before:
            hidden = layer(hidden, tables, plan, cache)
        hidden = last(hidden, tables, plan, cache, reading.narrow(self.heads, batch, heads))
        return reading.read(self.heads, self.norm(hidden), batch, heads, targets, cache)

    def _head(self, name: str, num_labels: int) -> nn.Module:
        if name == "causal_lm":
            decoder = nn.Linear(self.config.hidden_size, self.config.vocab_size, bias=False)
            if self.config.tie_word_embeddings:
                decoder.weight = self.embedding.weight
            return reading.VocabularyHead(decoder)
        if name == "classification":
            if num_labels < 1:
                raise ConfigError("num_labels: a classification head needs at least one")
            return Classifier(self.config, num_labels)
        raise UnsupportedError(f"llama has no head {name!r}; it has: {', '.join(TRAITS.heads)}")


WEIGHTS: list[Operation] = [
    Accept(r"^(embed_tokens|layers|norm)\.", r"model.\1."),  # a stock LlamaModel, without a head
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
    Rename("heads.classification.output.weight", "score.weight"),
]


def tiny_config() -> Config:
    """A shape for tests."""
    return Config(
        vocab_size=96,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=64,
        max_position_embeddings=48,
    )
