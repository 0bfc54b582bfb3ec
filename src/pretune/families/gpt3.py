"""GPT-3 (Brown et al. 2020) as GPT-Neo has it: every other layer sees the last few places only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

import pydantic
import torch
from torch import Tensor, nn

from pretune import config as settings
from pretune.checkpoint import hub
from pretune.checkpoint.weights import Alias, Ignore, Operation, Rename
from pretune.errors import ConfigError, UnsupportedError
from pretune.nn import attention, init
from pretune.nn import heads as nn_heads
from pretune.nn.cache import KVCache
from pretune.nn.dropout import Dropout
from pretune.nn.feedforward import ActivationName, FeedForward
from pretune.nn.positions import build_position_ids
from pretune.types import Batch, Layout, LossOptions, Outputs, OutputSpec, SpecialTokens, Traits

MODEL_TYPES = {"gpt_neo": "GPTNeo"}
"""``model_type`` of a config.json to what the names of its stock classes begin with."""

ATTRIBUTE_MAP = {
    "num_hidden_layers": "num_layers",
    "num_attention_heads": "num_heads",
    "hidden_act": "activation_function",
    "embedding_dropout": "embed_dropout",
    "residual_dropout": "resid_dropout",
}
"""Our settings, which are called as in the other families, and what GPT-Neo's config.json calls them."""

HF_DEFAULTS: Mapping[str, Any] = {
    "vocab_size": 50257,
    "hidden_size": 2048,
    "num_layers": 24,
    "num_heads": 16,
    "max_position_embeddings": 2048,
}
"""What a config.json means that leaves a key out, where it differs from our defaults."""

AttentionType = Literal["global", "local"]
MAX_LAYERS = 4096
DEFAULT_PATTERN: tuple[AttentionType, ...] = ("global", "local")


class Config(settings.Settings):
    """The shape of a GPT-Neo; defaults for a small machine."""

    vocab_size: pydantic.PositiveInt = 8192
    hidden_size: pydantic.PositiveInt = 256
    num_hidden_layers: pydantic.PositiveInt = 4
    num_attention_heads: pydantic.PositiveInt = 4
    intermediate_size: pydantic.PositiveInt | None = None
    """None: four times ``hidden_size``."""
    hidden_act: ActivationName = "gelu_new"
    # None in pretraining: it is slow on CPU and does not pay off in one epoch (Geiping & Goldstein 2022).
    embedding_dropout: float = pydantic.Field(default=0.0, ge=0, lt=1)
    residual_dropout: float = pydantic.Field(default=0.0, ge=0, lt=1)
    attention_dropout: float = pydantic.Field(default=0.0, ge=0, lt=1)
    max_position_embeddings: pydantic.PositiveInt = 1024
    attention_layers: tuple[AttentionType, ...] | None = None
    """What each layer sees, all before a place or the window; None: by turns, as in GPT-3 (section 2.1)."""
    window_size: pydantic.PositiveInt = 256
    """Places that a local layer sees, its own included."""
    initializer_range: float = pydantic.Field(default=0.02, gt=0)
    layer_norm_epsilon: float = pydantic.Field(default=1e-5, gt=0, lt=1)
    tie_word_embeddings: bool = True

    @pydantic.model_validator(mode="after")
    def _check_consistency(self) -> Self:
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is no multiple of {self.num_attention_heads} heads"
            )
        if self.attention_layers is not None and len(self.attention_layers) != self.num_hidden_layers:
            raise ValueError(
                f"attention_layers has {len(self.attention_layers)} entries, not {self.num_hidden_layers}"
            )
        return self

    @property
    def inner_size(self) -> int:
        """F, the width between the two maps of a feed-forward block."""
        return self.intermediate_size or 4 * self.hidden_size

    @property
    def layer_attention_types(self) -> tuple[AttentionType, ...]:
        """What each layer sees, from the first to the last."""
        return self.attention_layers or tuple(
            DEFAULT_PATTERN[number % len(DEFAULT_PATTERN)] for number in range(self.num_hidden_layers)
        )

    @classmethod
    def from_hugging_face(cls, values: Mapping[str, Any]) -> Config:
        """The config of a config.json; what does not change the network is passed over.

        Raises:
            ConfigError: a value is wrong.
        """
        given = {**HF_DEFAULTS, **values}
        known = {
            name: given[ATTRIBUTE_MAP.get(name, name)]
            for name in cls.model_fields
            if ATTRIBUTE_MAP.get(name, name) in given
        }
        known |= {"attention_layers": _read_attention_types(values)}
        return settings.build_settings(cls, known, where="config.json")

    def to_hugging_face(
        self, head: str, *, outputs: OutputSpec | None = None, specials: SpecialTokens | None = None
    ) -> dict[str, Any]:
        """The config.json with which stock transformers loads this network with ``head``."""
        values = {ATTRIBUTE_MAP.get(name, name): value for name, value in self.model_dump().items()}
        values |= {
            "attention_layers": list(self.layer_attention_types),
            "attention_types": [[list(self.layer_attention_types), 1]],
        }
        values |= {
            "architectures": [nn_heads.stock_class(HEADS, MODEL_TYPES["gpt_neo"], head)],
            "model_type": "gpt_neo",
            "dtype": "float32",
        }
        if specials is not None:
            values |= {"pad_token_id": specials.pad_id, "bos_token_id": specials.bos_id}
            values |= {"eos_token_id": specials.eos_id}
        return values | hub.output_config(outputs)


def _read_attention_types(values: Mapping[str, Any]) -> Any:
    """What each layer sees: ``[[["global", "local"], 12]]`` means twelve times both."""
    groups = values.get("attention_types")
    if groups is None:
        return values.get("attention_layers")
    attention_types: list[Any] = []
    try:
        for pattern, times in groups:
            attention_types += list(pattern) * min(
                times, MAX_LAYERS - len(attention_types)
            )  # a config is not trusted
    except (TypeError, ValueError):
        raise ConfigError(
            f'config.json: attention_types = {groups!r}: must be like [[["global", "local"], 12]]'
        ) from None
    return attention_types


class Embeddings(nn.Module):
    """The sum of word and position embeddings."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.word = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.dropout = Dropout(config.embedding_dropout)

    def forward(self, tokens: Tensor, layout: Layout) -> Tensor:
        """(B, T) to (B, T, D)"""
        width, max_length = tokens.shape[1], self.position.num_embeddings
        position_ids = build_position_ids(layout, width)  # (B or 1, T)
        if layout.position_ids is None:
            end = (
                width if layout.cache_lengths is None else int((layout.cache_lengths + layout.lengths).max())
            )
            if end > max_length:
                raise UnsupportedError(
                    f"a row of {end} tokens; this model has {max_length} positions (cut the text)"
                )
            position_ids = position_ids.clamp(
                max=max_length - 1
            )  # the padding behind a row that is nearly full
        embedded: Tensor = self.dropout(self.word(tokens) + self.position(position_ids))  # (B, T, D)
        return embedded


class SelfAttention(nn.Module):
    """Causal multi-head self-attention without scaling of the products, as GPT-Neo was trained."""

    def __init__(self, config: Config, layer_index: int) -> None:
        super().__init__()
        width = config.hidden_size
        self.layer_index = layer_index
        self.heads = config.num_attention_heads
        self.dropout = config.attention_dropout
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.output = nn.Linear(width, width)

    def forward(
        self,
        hidden: Tensor,
        mask: attention.AttentionMask,
        cache: KVCache | None,
        output_positions: Tensor | None = None,
    ) -> Tensor:
        """(B, T, D) to (B, T, D), or to (M, D) at ``output_positions``"""
        query, key, value = (
            project(hidden).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, H, T, K)
            for project in (self.query, self.key, self.value)
        )
        if cache is not None:
            key, value = cache.extend(self.layer_index, key, value)  # (B, H, S, K)
        dropout = self.dropout if self.training else 0.0
        mixed = attention.attend(query, key, value, mask, dropout=dropout, scale=1.0)
        output: Tensor = self.output(nn_heads.select(mixed, output_positions))
        return output


class Layer(nn.Module):
    """Attention and feed-forward, each behind a norm, each added to the residual stream."""

    def __init__(self, config: Config, layer_index: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_epsilon)
        self.attention = SelfAttention(config, layer_index)
        self.feed_forward_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_epsilon)
        self.feed_forward = FeedForward(config.hidden_size, config.inner_size, config.hidden_act)
        self.dropout = Dropout(config.residual_dropout)

    def forward(
        self,
        hidden: Tensor,
        mask: attention.AttentionMask,
        cache: KVCache | None,
        output_positions: Tensor | None = None,
    ) -> Tensor:
        """(B, T, D) to (B, T, D), or to (M, D) at ``output_positions``"""
        mixed = self.dropout(self.attention(self.attention_norm(hidden), mask, cache, output_positions))
        hidden = nn_heads.select(hidden, output_positions) + mixed
        hidden = hidden + self.dropout(self.feed_forward(self.feed_forward_norm(hidden)))
        return hidden


class Network(nn.Module):
    """A GPT-Neo with the heads that are asked for, at its first values."""

    def __init__(self, config: Config, heads: Sequence[str] = ("causal_lm",), num_labels: int = 0) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.layers = nn.ModuleList(Layer(config, number) for number in range(config.num_hidden_layers))
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_epsilon)
        self.heads = nn.ModuleDict()
        for name in heads:
            self.heads[name] = nn_heads.build_head(HEADS, name, self, num_labels, "gpt3")
        self.reset_parameters()

    @property
    def embed(self) -> nn.Embedding:
        """The embedding of tokens; a forward hook may replace its output."""
        return self.embeddings.word

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
            UnsupportedError: a head that the network was not built with, or too long a row.
        """
        width = batch.tokens.shape[1]
        hidden = self.embeddings(batch.tokens, batch.layout)  # (B, T, D)
        masks: dict[AttentionType, attention.AttentionMask] = {
            "global": attention.build_mask(batch.layout, width, causal=True),
            "local": attention.build_mask(batch.layout, width, causal=True, window=self.config.window_size),
        }
        if cache is not None:
            cache.prepare(batch.layout, width)
        *before, last = self.config.layer_attention_types
        for layer, attention_type in zip(self.layers, before, strict=False):
            hidden = layer(hidden, masks[attention_type], cache)
        hidden = self.layers[-1](
            hidden, masks[last], cache, nn_heads.needed_positions(self.heads, batch, heads)
        )
        return nn_heads.run_heads(self.heads, self.norm(hidden), batch, heads, targets, loss, cache)


def _build_lm_head(network: Network, _: int) -> nn_heads.VocabularyHead:
    config = network.config
    decoder = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
    if config.tie_word_embeddings:
        decoder.weight = network.embeddings.word.weight
    return nn_heads.VocabularyHead(decoder)


HEADS = nn_heads.decoder_heads(_build_lm_head, token_classifier="classifier")

TRAITS = Traits(architecture="decoder", heads=tuple(HEADS), pooling="last", supports_cache=True)

WEIGHTS: list[Operation] = [
    Alias(r"^(wte|wpe|h|ln_f)\.", r"transformer.\1."),  # a stock GPTNeoModel, without a head
    Ignore("transformer.h.{}.attn.attention.bias"),  # the mask
    Ignore("transformer.h.{}.attn.attention.masked_bias"),
    Rename("embeddings.word.weight", "transformer.wte.weight"),
    Rename("embeddings.position.weight", "transformer.wpe.weight"),
    Rename("layers.{}.attention_norm.{leaf}", "transformer.h.{}.ln_1.{leaf}"),
    Rename("layers.{}.attention.query.weight", "transformer.h.{}.attn.attention.q_proj.weight"),
    Rename("layers.{}.attention.key.weight", "transformer.h.{}.attn.attention.k_proj.weight"),
    Rename("layers.{}.attention.value.weight", "transformer.h.{}.attn.attention.v_proj.weight"),
    Rename("layers.{}.attention.output.{leaf}", "transformer.h.{}.attn.attention.out_proj.{leaf}"),
    Rename("layers.{}.feed_forward_norm.{leaf}", "transformer.h.{}.ln_2.{leaf}"),
    Rename("layers.{}.feed_forward.up.{leaf}", "transformer.h.{}.mlp.c_fc.{leaf}"),
    Rename("layers.{}.feed_forward.down.{leaf}", "transformer.h.{}.mlp.c_proj.{leaf}"),
    Rename("norm.{leaf}", "transformer.ln_f.{leaf}"),
    Rename("heads.causal_lm.decoder.weight", "lm_head.weight"),
]


def tiny_config() -> Config:
    """A shape for tests: the window is shorter than their texts."""
    return Config(
        vocab_size=96,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        window_size=5,
        max_position_embeddings=48,
    )
