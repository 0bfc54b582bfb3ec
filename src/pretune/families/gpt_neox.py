"""GPT-NeoX (Black et al. 2022), the form of Pythia: both blocks of a layer read what came into it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import pydantic
import torch
from torch import Tensor, nn

from pretune import config as settings
from pretune.checkpoint import hub
from pretune.checkpoint.weights import Alias, Ignore, Operation, Rename
from pretune.nn import attention, init, scaled_rope
from pretune.nn import heads as nn_heads
from pretune.nn.attention import AttentionMask
from pretune.nn.cache import KVCache
from pretune.nn.dropout import Dropout
from pretune.nn.feedforward import ActivationName, FeedForward
from pretune.nn.positions import RotaryTables, apply_rotary
from pretune.types import Batch, LossOptions, Outputs, OutputSpec, SpecialTokens, Traits

MODEL_TYPES = {"gpt_neox": "GPTNeoX"}
"""``model_type`` of a config.json to what the names of its stock classes begin with."""

HF_DEFAULTS: Mapping[str, Any] = {
    "vocab_size": 50432, "hidden_size": 6144, "num_hidden_layers": 44, "num_attention_heads": 64,
    "intermediate_size": 24576, "max_position_embeddings": 2048, "tie_word_embeddings": False,
}  # fmt: skip
"""What a config.json means that leaves a key out, where it differs from our defaults."""


class Config(settings.Settings):
    """The shape of a GPT-NeoX; defaults for a small machine."""

    vocab_size: pydantic.PositiveInt = 8192
    hidden_size: pydantic.PositiveInt = 256
    num_hidden_layers: pydantic.PositiveInt = 4
    num_attention_heads: pydantic.PositiveInt = 4
    intermediate_size: pydantic.PositiveInt | None = None
    """None: four times ``hidden_size``."""
    hidden_act: ActivationName = "gelu"
    hidden_dropout: float = pydantic.Field(default=0.0, ge=0, lt=1)
    attention_dropout: float = pydantic.Field(default=0.0, ge=0, lt=1)
    max_position_embeddings: pydantic.PositiveInt = 1024
    """How long a text the model is meant for; rotary positions themselves have no end."""
    initializer_range: float = pydantic.Field(default=0.02, gt=0)
    layer_norm_eps: float = pydantic.Field(default=1e-5, gt=0, lt=1)
    rope_theta: float = pydantic.Field(default=10_000.0, gt=1)
    rope_scaling: scaled_rope.RopeScaling | None = None
    """How positions are stretched for texts longer than those of the first pretraining."""
    partial_rotary_factor: float = pydantic.Field(default=0.25, gt=0, le=1)
    """Share of a head's dimensions that turn with the position; the others do not know it."""
    use_parallel_residual: bool = True
    """The feed-forward block reads what the attention reads, not what the attention makes of it."""
    attention_bias: bool = True
    tie_word_embeddings: bool = True

    @pydantic.model_validator(mode="after")
    def _check_consistency(self) -> Self:
        width, heads, size = self.hidden_size, self.num_attention_heads, self.rotary_size
        if width % heads:
            raise ValueError(f"hidden_size {width} is no multiple of {heads} heads")
        if size < 2 or size % 2:
            raise ValueError(f"partial_rotary_factor turns {size} dimensions of a head; they turn in pairs")
        if self.rope_scaling is not None and size < 4:
            raise ValueError(f"partial_rotary_factor turns {size} dimensions; rope_scaling needs 4 or more")
        return self

    @property
    def inner_size(self) -> int:
        """F, the width between the two maps of a feed-forward block."""
        return self.intermediate_size or 4 * self.hidden_size

    @property
    def rotary_size(self) -> int:
        """R, the dimensions of a head that turn with the position."""
        return int(self.hidden_size // self.num_attention_heads * self.partial_rotary_factor)

    @classmethod
    def from_hugging_face(cls, values: Mapping[str, Any]) -> Config:
        """The config of a config.json; what does not change the network is passed over.

        Raises:
            UnsupportedError: it asks for something that this family does not compute.
            ConfigError: a value is wrong.
        """
        # transformers 5 writes rope_parameters, older tools and what is released the other two names.
        rope = values.get("rope_scaling") or values.get("rope_parameters") or {}
        given = {**HF_DEFAULTS, **values}
        known = {key: value for key, value in given.items() if key in cls.model_fields}
        known["rope_scaling"] = scaled_rope.read_rope_scaling(rope, given, "gpt_neox")
        for name, released in (("rope_theta", "rotary_emb_base"), ("partial_rotary_factor", "rotary_pct")):
            known[name] = rope.get(name, values.get(released, cls.model_fields[name].default))
        return settings.build_settings(cls, known, where="config.json")

    def to_hugging_face(
        self, head: str, *, outputs: OutputSpec | None = None, specials: SpecialTokens | None = None
    ) -> dict[str, Any]:
        """The config.json with which stock transformers loads this network with ``head``."""
        rope = {"rope_theta": self.rope_theta, "partial_rotary_factor": self.partial_rotary_factor}
        values = self.model_dump(exclude={*rope, "rope_scaling"}) | {"intermediate_size": self.inner_size}
        values |= {"rotary_emb_base": self.rope_theta, "rotary_pct": self.partial_rotary_factor}
        scaling = scaled_rope.to_rope_parameters(self.rope_scaling)
        values |= {"rope_parameters": {**scaling, **rope}}
        values |= {} if self.rope_scaling is None else {"rope_scaling": scaling}
        values |= {"architectures": [nn_heads.stock_class(HEADS, MODEL_TYPES["gpt_neox"], head)]}
        values |= {"model_type": "gpt_neox", "dtype": "float32"}
        if specials is not None:
            values |= {"pad_token_id": specials.pad_id, "bos_token_id": specials.bos_id}
            values |= {"eos_token_id": specials.eos_id}
        return values | hub.output_config(outputs)


class SelfAttention(nn.Module):
    """Causal attention in which a part of each head is rotary; queries, keys and values from one map."""

    def __init__(self, config: Config, layer_index: int) -> None:
        super().__init__()
        self.layer_index, self.config, width = layer_index, config, config.hidden_size
        self.query_key_value = nn.Linear(width, 3 * width, bias=config.attention_bias)
        self.output = nn.Linear(width, width, bias=config.attention_bias)

    def forward(
        self,
        hidden: Tensor,
        tables: RotaryTables,
        mask: AttentionMask,
        cache: KVCache | None,
        output_positions: Tensor | None = None,
    ) -> Tensor:
        """(B, T, D) to (B, T, D), or to (M, D) at ``output_positions``"""
        heads, size = self.config.num_attention_heads, self.config.rotary_size
        # One head's query, key and value lie beside each other, not all queries before all keys.
        fused = self.query_key_value(hidden).unflatten(-1, (heads, -1)).transpose(1, 2)  # (B, H, T, 3K)
        query, key, value = fused.chunk(3, dim=-1)  # (B, H, T, K)
        query, key = (
            torch.cat([apply_rotary(projection[..., :size], tables), projection[..., size:]], -1)
            for projection in (query, key)
        )
        if cache is not None:
            key, value = cache.extend(self.layer_index, key, value)  # (B, H, S, K)
        dropout = self.config.attention_dropout if self.training else 0.0
        mixed = attention.attend(query, key, value, mask, dropout=dropout)
        output: Tensor = self.output(nn_heads.select(mixed, output_positions))
        return output


class Layer(nn.Module):
    """Attention and feed-forward, each behind a norm, beside each other or one behind the other."""

    def __init__(self, config: Config, layer_index: int) -> None:
        super().__init__()
        self.parallel = config.use_parallel_residual
        self.attention_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.attention = SelfAttention(config, layer_index)
        self.feed_forward_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.feed_forward = FeedForward(config.hidden_size, config.inner_size, config.hidden_act)
        self.dropout = Dropout(config.hidden_dropout)

    def forward(
        self,
        hidden: Tensor,
        tables: RotaryTables,
        mask: AttentionMask,
        cache: KVCache | None,
        output_positions: Tensor | None = None,
    ) -> Tensor:
        """(B, T, D) to (B, T, D), or to (M, D) at ``output_positions``"""
        mixed = self.dropout(
            self.attention(self.attention_norm(hidden), tables, mask, cache, output_positions)
        )
        before = nn_heads.select(hidden, output_positions)
        read = before if self.parallel else before + mixed
        hidden = before + mixed + self.dropout(self.feed_forward(self.feed_forward_norm(read)))
        return hidden


class Network(nn.Module):
    """A GPT-NeoX with the heads that are asked for, at its first values."""

    def __init__(self, config: Config, heads: Sequence[str] = ("causal_lm",), num_labels: int = 0) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.dropout = Dropout(config.hidden_dropout)
        self.layers = nn.ModuleList(Layer(config, number) for number in range(config.num_hidden_layers))
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.heads = nn.ModuleDict()
        for name in heads:
            self.heads[name] = nn_heads.build_head(HEADS, name, self, num_labels, "gpt_neox")
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

        Raises:
            UnsupportedError: a head that the network was not built with.
        """
        config, layout, width = self.config, batch.layout, batch.tokens.shape[1]
        hidden = self.dropout(self.embedding(batch.tokens))  # (B, T, D)
        max_length, device = config.max_position_embeddings, batch.tokens.device
        rotation = scaled_rope.RotaryBase(config.rotary_size, config.rope_theta, max_length, device)
        tables = scaled_rope.build_rotary_tables(layout, width, rotation, config.rope_scaling)
        mask = attention.build_mask(layout, width, causal=True)
        if cache is not None:
            cache.prepare(layout, width)
        *before, last = self.layers
        for layer in before:
            hidden = layer(hidden, tables, mask, cache)
        hidden = last(hidden, tables, mask, cache, nn_heads.needed_positions(self.heads, batch, heads))
        return nn_heads.run_heads(self.heads, self.norm(hidden), batch, heads, targets, loss, cache)


def _build_lm_head(network: Network, _: int) -> nn_heads.VocabularyHead:
    config = network.config
    decoder = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
    if config.tie_word_embeddings:
        decoder.weight = network.embedding.weight
    return nn_heads.VocabularyHead(decoder)


HEADS = nn_heads.decoder_heads(_build_lm_head, token_classifier="classifier")

TRAITS = Traits(architecture="decoder", heads=tuple(HEADS), pooling="last", supports_cache=True)

WEIGHTS: list[Operation] = [
    Alias(r"^(embed_in|layers|final_layer_norm)\.", r"gpt_neox.\1."),  # a stock GPTNeoXModel, without a head
    Ignore("gpt_neox.layers.{}.attention.{buffer}"),  # bias and masked_bias, the causal mask
    Ignore("gpt_neox.layers.{}.attention.rotary_emb.inv_freq"),
    Rename("embedding.weight", "gpt_neox.embed_in.weight"),
    Rename("layers.{}.attention_norm.{leaf}", "gpt_neox.layers.{}.input_layernorm.{leaf}"),
    Rename(
        "layers.{}.attention.query_key_value.{leaf}", "gpt_neox.layers.{}.attention.query_key_value.{leaf}"
    ),
    Rename("layers.{}.attention.output.{leaf}", "gpt_neox.layers.{}.attention.dense.{leaf}"),
    Rename("layers.{}.feed_forward_norm.{leaf}", "gpt_neox.layers.{}.post_attention_layernorm.{leaf}"),
    Rename("layers.{}.feed_forward.up.{leaf}", "gpt_neox.layers.{}.mlp.dense_h_to_4h.{leaf}"),
    Rename("layers.{}.feed_forward.down.{leaf}", "gpt_neox.layers.{}.mlp.dense_4h_to_h.{leaf}"),
    Rename("norm.{leaf}", "gpt_neox.final_layer_norm.{leaf}"),
    Rename("heads.causal_lm.decoder.weight", "lm_head.weight"),
]


def tiny_config() -> Config:
    """A shape for tests: half of each head's eight dimensions turn."""
    return Config(
        vocab_size=96, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=64, max_position_embeddings=48, partial_rotary_factor=0.5,
    )  # fmt: skip
