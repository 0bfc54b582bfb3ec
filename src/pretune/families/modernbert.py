"""ModernBERT (Warner et al. 2024): an encoder with rotary positions, gates, and mostly local attention."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, Self

import pydantic
import torch
from torch import Tensor, nn

from pretune import config as settings
from pretune.checkpoint import hub
from pretune.checkpoint.weights import Alias, Operation, Rename, Share
from pretune.errors import UnsupportedError
from pretune.nn import attention, init, scaled_rope
from pretune.nn import heads as nn_heads
from pretune.nn.dropout import Dropout
from pretune.nn.feedforward import ACTIVATIONS, ActivationName
from pretune.nn.heads import Head
from pretune.nn.positions import RotaryTables, apply_rotary
from pretune.nn.scaled_rope import RopeScaling
from pretune.types import Batch, LossOptions, Outputs, OutputSpec, SpecialTokens, Traits

MODEL_TYPES = {"modernbert": "ModernBert"}
"""``model_type`` of a config.json to what the names of its stock classes begin with."""

HF_DEFAULTS: Mapping[str, Any] = {
    "classifier_pooling": "cls", "vocab_size": 50368, "hidden_size": 768, "num_hidden_layers": 22,
    "num_attention_heads": 12, "intermediate_size": 1152, "max_position_embeddings": 8192,
}  # fmt: skip
"""What a config.json means that leaves a key out, where it differs from our defaults."""

AttentionType = Literal["full_attention", "sliding_attention"]


class Config(settings.Settings):
    """The shape of a ModernBERT, under the names of its config.json; defaults for a small machine."""

    vocab_size: pydantic.PositiveInt = 8192
    hidden_size: pydantic.PositiveInt = 256
    num_hidden_layers: pydantic.PositiveInt = 4
    num_attention_heads: pydantic.PositiveInt = 4
    intermediate_size: pydantic.PositiveInt | None = None
    """None: 8/3 of ``hidden_size``, as many parameters as 4 times without a gate, in multiples of 32."""
    hidden_activation: ActivationName = "gelu"
    embedding_dropout: float = pydantic.Field(default=0.0, ge=0, lt=1)
    attention_dropout: float = pydantic.Field(default=0.0, ge=0, lt=1)
    mlp_dropout: float = pydantic.Field(default=0.0, ge=0, lt=1)
    classifier_dropout: float = pydantic.Field(default=0.0, ge=0, lt=1)
    max_position_embeddings: pydantic.PositiveInt = 1024
    """How long a text the model is meant for; rotary positions themselves have no end."""
    local_attention: pydantic.PositiveInt = 128
    """Width of the local window; a place sees half of it to either side."""
    global_attn_every_n_layers: pydantic.PositiveInt = 3
    """The first layer and each n-th from there see the whole text."""
    layer_types: tuple[AttentionType, ...] | None = None
    """What each layer sees; None: as ``global_attn_every_n_layers`` says."""
    global_rope_theta: float = pydantic.Field(default=160_000.0, gt=1)
    local_rope_theta: float = pydantic.Field(default=10_000.0, gt=1)
    global_rope_scaling: RopeScaling | None = None
    local_rope_scaling: RopeScaling | None = None
    """Both: how positions are stretched for texts longer than those of the first pretraining."""
    initializer_range: float = pydantic.Field(default=0.02, gt=0)
    initializer_cutoff_factor: float = pydantic.Field(default=2.0, gt=0)
    norm_eps: float = pydantic.Field(default=1e-5, gt=0, lt=1)
    norm_bias: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False
    decoder_bias: bool = True
    classifier_bias: bool = False
    """Of the transform before the vocabulary or the classes."""
    classifier_activation: ActivationName = "gelu"
    classifier_pooling: Literal["cls", "mean"] = "mean"
    """A text is classified by its first place, or by the mean of all its places."""
    tie_word_embeddings: bool = True

    @pydantic.model_validator(mode="after")
    def _check_consistency(self) -> Self:
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is no multiple of {self.num_attention_heads} heads"
            )
        if self.head_size % 2:
            raise ValueError(f"heads of width {self.head_size}, which is odd; rotary positions turn pairs")
        if self.layer_types is not None and len(self.layer_types) != self.num_hidden_layers:
            raise ValueError(f"layer_types has {len(self.layer_types)} entries, not {self.num_hidden_layers}")
        for _, scaling in self.rope_settings.values():
            if scaling is not None and self.head_size < 4:
                raise ValueError(f"heads of width {self.head_size}; rope_scaling needs 4 dimensions or more")
            if getattr(scaling, "truncate", True) is False:
                raise ValueError("truncate: stock transformers reads none for modernbert; leave it out")
        return self

    @property
    def head_size(self) -> int:
        """K"""
        return self.hidden_size // self.num_attention_heads

    @property
    def inner_size(self) -> int:
        """F, the width between the maps of a feed-forward block."""
        return self.intermediate_size or max(32, round(self.hidden_size * 8 / 3 / 32) * 32)

    @property
    def rope_settings(self) -> dict[AttentionType, tuple[float, RopeScaling | None]]:
        """The rotary base of global and of local layers, and how their positions are stretched."""
        return {
            "full_attention": (self.global_rope_theta, self.global_rope_scaling),
            "sliding_attention": (self.local_rope_theta, self.local_rope_scaling),
        }

    @property
    def layer_attention_types(self) -> tuple[AttentionType, ...]:
        """What each layer sees, from the first to the last."""
        every = self.global_attn_every_n_layers
        return self.layer_types or tuple(
            "sliding_attention" if number % every else "full_attention"
            for number in range(self.num_hidden_layers)
        )

    @classmethod
    def from_hugging_face(cls, values: Mapping[str, Any]) -> Config:
        """The config of a config.json; what does not change the network is passed over.

        Raises:
            UnsupportedError: it asks for something that this family does not compute.
            ConfigError: a value is wrong.
        """
        given = {**HF_DEFAULTS, **values}
        known = {key: value for key, value in given.items() if key in cls.model_fields}
        known |= _read_rope_settings(given, "full_attention", "global") | _read_rope_settings(
            given, "sliding_attention", "local"
        )
        return settings.build_settings(cls, known, where="config.json")

    def to_hugging_face(
        self, head: str, *, outputs: OutputSpec | None = None, specials: SpecialTokens | None = None
    ) -> dict[str, Any]:
        """The config.json with which stock transformers loads this network with ``head``."""
        values = self.model_dump(exclude={"global_rope_scaling", "local_rope_scaling"})
        values |= {"intermediate_size": self.inner_size, "layer_types": list(self.layer_attention_types)}
        # Both forms: transformers 5 reads this one, older tools global_rope_theta and local_rope_theta.
        values["rope_parameters"] = {
            attention_type: {**scaled_rope.to_rope_parameters(scaling), "rope_theta": theta}
            for attention_type, (theta, scaling) in self.rope_settings.items()
        }
        values |= {"model_type": "modernbert", "dtype": "float32"}
        values |= {"architectures": [nn_heads.stock_class(HEADS, MODEL_TYPES["modernbert"], head)]}
        if specials is not None:
            before, after = specials.single
            values |= {"pad_token_id": specials.pad_id}
            values |= {"cls_token_id": before[0] if before else None, "bos_token_id": None}
            values |= {"sep_token_id": after[-1] if after else None, "eos_token_id": None}
        return values | hub.output_config(outputs)


def _read_rope_settings(
    values: Mapping[str, Any], attention_type: AttentionType, prefix: str
) -> dict[str, Any]:
    """The settings of a kind of layer: ``rope_parameters`` since transformers 5, keys of their own before."""
    rope_scaling, default_theta = (
        values.get("rope_scaling") or {},
        Config.model_fields[f"{prefix}_rope_theta"].default,
    )
    if rope_scaling.get("type", "default") != "default" and "rope_type" not in rope_scaling:
        raise UnsupportedError(
            f"config.json: rope_scaling: type {rope_scaling['type']!r}, which stock transformers does not "
            "heed in a "
            "modernbert; call it rope_type, or leave rope_scaling out"
        )
    rope = {**((values.get("rope_parameters") or {}).get(attention_type) or {}), **rope_scaling}
    given = {"rope_parameters": rope, "max_position_embeddings": values["max_position_embeddings"]}
    read = scaled_rope.read_rope_settings(
        given, "modernbert", values.get(f"{prefix}_rope_theta") or default_theta
    )
    return {f"{prefix}_{key}": value for key, value in read.items()}


class Embeddings(nn.Module):
    """Word embeddings, normalised; where a word stands is told by rotation alone."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.word = nn.Embedding(config.vocab_size, config.hidden_size)
        self.norm = _build_norm(config)
        self.dropout = Dropout(config.embedding_dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T) to (B, T, D)"""
        embedded: Tensor = self.dropout(self.norm(self.word(tokens)))
        return embedded


class SelfAttention(nn.Module):
    """Multi-head self-attention with rotary positions; queries, keys and values come from one map."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        width, bias = config.hidden_size, config.attention_bias
        self.heads = config.num_attention_heads
        self.attention_dropout = config.attention_dropout
        self.query_key_value = nn.Linear(width, 3 * width, bias=bias)
        self.output = nn.Linear(width, width, bias=bias)
        self.dropout = Dropout(config.attention_dropout)

    def forward(
        self,
        hidden: Tensor,
        tables: RotaryTables,
        mask: attention.AttentionMask,
        output_positions: Tensor | None = None,
    ) -> Tensor:
        """(B, T, D) to (B, T, D), or to (M, D) at ``output_positions``"""
        query, key, value = (
            projection.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, H, T, K)
            for projection in self.query_key_value(hidden).chunk(3, dim=-1)
        )
        dropout = self.attention_dropout if self.training else 0.0
        mixed = attention.attend(
            apply_rotary(query, tables), apply_rotary(key, tables), value, mask, dropout=dropout
        )
        output: Tensor = self.dropout(self.output(nn_heads.select(mixed, output_positions)))
        return output


class FusedGatedFeedForward(nn.Module):
    """A feed-forward block whose gate and input come from one map: GeGLU (Shazeer 2020, section 2)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.gate_up = nn.Linear(config.hidden_size, 2 * config.inner_size, bias=config.mlp_bias)
        self.activation = ACTIVATIONS[config.hidden_activation]
        self.dropout = Dropout(config.mlp_dropout)
        self.down = nn.Linear(config.inner_size, config.hidden_size, bias=config.mlp_bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """(..., D) to (..., D)"""
        gate, up = self.gate_up(hidden).chunk(2, dim=-1)  # (..., F) each
        output: Tensor = self.down(self.dropout(self.activation(gate) * up))
        return output


class Layer(nn.Module):
    """Attention and feed-forward, each behind a norm, each added to the residual stream."""

    def __init__(self, config: Config, layer_index: int) -> None:
        super().__init__()
        self.attention_norm = (
            _build_norm(config) if layer_index else nn.Identity()
        )  # the embeddings are normed already
        self.attention = SelfAttention(config)
        self.feed_forward_norm = _build_norm(config)
        self.feed_forward = FusedGatedFeedForward(config)

    def forward(
        self,
        hidden: Tensor,
        tables: RotaryTables,
        mask: attention.AttentionMask,
        output_positions: Tensor | None = None,
    ) -> Tensor:
        """(B, T, D) to (B, T, D), or to (M, D) at ``output_positions``"""
        mixed = self.attention(self.attention_norm(hidden), tables, mask, output_positions)
        hidden = nn_heads.select(hidden, output_positions) + mixed
        hidden = hidden + self.feed_forward(self.feed_forward_norm(hidden))
        return hidden


class PredictionTransform(nn.Module):
    """What comes before the vocabulary and before the classes alike."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size, bias=config.classifier_bias)
        self.activation = ACTIVATIONS[config.classifier_activation]
        self.norm = _build_norm(config)

    def forward(self, hidden: Tensor) -> Tensor:
        """(N, D) to (N, D)"""
        transformed: Tensor = self.norm(self.activation(self.dense(hidden)))
        return transformed


class Classifier(nn_heads.HeadModule):
    """The transform and a linear map from a position, or the mean of its text, to the outputs."""

    def __init__(self, config: Config, transform: PredictionTransform, num_labels: int) -> None:
        super().__init__()
        self.transform = transform
        self.dropout = Dropout(config.classifier_dropout)
        self.output = nn.Linear(config.hidden_size, num_labels)

    def forward(self, hidden: Tensor) -> Tensor:
        """(N, D) to (N, C)"""
        logits: Tensor = self.output(self.dropout(self.transform(hidden)))
        return logits


class Network(nn.Module):
    """A ModernBERT with the heads that are asked for, at its first values."""

    def __init__(self, config: Config, heads: Sequence[str] = ("masked_lm",), num_labels: int = 0) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.layers = nn.ModuleList(Layer(config, number) for number in range(config.num_hidden_layers))
        self.norm = _build_norm(config)
        self.heads = nn.ModuleDict()
        for name in heads:
            self.heads[name] = nn_heads.build_head(HEADS, name, self, num_labels, "modernbert")
        self.reset_parameters()

    @property
    def embed(self) -> nn.Embedding:
        """The embedding of tokens; a forward hook may replace its output."""
        return self.embeddings.word

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw first values as transformers does: cut normal, smaller where a block adds to the stream."""
        init.init_normal_(self, self.config.initializer_range, generator)
        for weight, deviation in self._init_stds():
            cut = self.config.initializer_cutoff_factor * deviation
            nn.init.trunc_normal_(weight, std=deviation, a=-cut, b=cut, generator=generator)

    def forward(
        self,
        batch: Batch,
        heads: Sequence[str] = ("masked_lm",),
        targets: Mapping[str, Tensor] | None = None,
        loss: LossOptions | None = None,
        cache: None = None,
    ) -> Outputs:
        """Hidden states of the batch, and what the heads say at their places.

        Raises:
            UnsupportedError: a head that the network was not built with, or a cache.
        """
        if cache is not None:
            raise UnsupportedError("modernbert sees both sides of every place: it has no cache")
        width, size = batch.tokens.shape[1], self.config.head_size
        max_length, device = self.config.max_position_embeddings, batch.tokens.device
        tables: dict[AttentionType, RotaryTables] = {}
        for attention_type, (theta, scaling) in self.config.rope_settings.items():
            rotation = scaled_rope.RotaryBase(size, theta, max_length, device)
            tables[attention_type] = scaled_rope.build_rotary_tables(batch.layout, width, rotation, scaling)
        window = self.config.local_attention // 2 + 1  # half of it to either side, that place included
        masks: dict[AttentionType, attention.AttentionMask] = {
            "full_attention": attention.build_mask(batch.layout, width, causal=False),
            "sliding_attention": attention.build_mask(batch.layout, width, causal=False, window=window),
        }
        hidden = self.embeddings(batch.tokens)
        *before, last = self.config.layer_attention_types
        for layer, attention_type in zip(self.layers, before, strict=False):
            hidden = layer(hidden, tables[attention_type], masks[attention_type])
        hidden = self.layers[-1](
            hidden, tables[last], masks[last], nn_heads.needed_positions(self.heads, batch, heads)
        )
        return nn_heads.run_heads(self.heads, self.norm(hidden), batch, heads, targets, loss)

    def _init_stds(self) -> Iterator[tuple[Tensor, float]]:
        """Each matrix with the deviation that it is drawn with."""
        inward = self.config.initializer_range
        outward = inward / math.sqrt(2 * self.config.num_hidden_layers)
        for module in self.modules():
            if isinstance(module, Embeddings):
                yield module.word.weight, inward
            elif isinstance(module, SelfAttention):
                yield module.query_key_value.weight, inward
                yield module.output.weight, outward
            elif isinstance(module, FusedGatedFeedForward):
                yield module.gate_up.weight, inward
                yield module.down.weight, outward
            elif isinstance(module, PredictionTransform):
                yield module.dense.weight, outward
            elif isinstance(module, Classifier):
                yield module.output.weight, self.config.hidden_size**-0.5
            elif isinstance(module, nn_heads.VocabularyHead) and not self.config.tie_word_embeddings:
                yield module.decoder.weight, outward


def _build_norm(config: Config) -> nn.LayerNorm:
    return nn.LayerNorm(config.hidden_size, eps=config.norm_eps, bias=config.norm_bias)


def _build_transform(network: Network) -> PredictionTransform:
    """The one that a head has already: all of them share it."""
    for head in network.heads.values():
        if isinstance(head, Classifier | nn_heads.VocabularyHead) and isinstance(
            head.transform, PredictionTransform
        ):
            return head.transform
    return PredictionTransform(network.config)


def _build_lm_head(network: Network, _: int) -> nn_heads.VocabularyHead:
    config, transform = network.config, _build_transform(network)
    decoder = nn.Linear(config.hidden_size, config.vocab_size, bias=config.decoder_bias)
    if config.tie_word_embeddings:
        decoder.weight = network.embeddings.word.weight
    return nn_heads.VocabularyHead(decoder, transform)


def _build_classifier(network: Network, num_outputs: int) -> Classifier:
    return Classifier(network.config, _build_transform(network), num_outputs)


def _classifier_pooling(config: Config) -> nn_heads.Pooling:
    return "mean" if config.classifier_pooling == "mean" else "first"


CLASSIFIER_WEIGHTS = {"output.{leaf}": "classifier.{leaf}"}
HEADS = {
    "masked_lm": Head("vocabulary", "ForMaskedLM", _build_lm_head, is_pretrained=True),
    "classification": Head(
        "sequence", "ForSequenceClassification", _build_classifier, _classifier_pooling, CLASSIFIER_WEIGHTS
    ),
    "token_classification": nn_heads.token_head(_build_classifier, CLASSIFIER_WEIGHTS),
    "question_answering": nn_heads.span_head(_build_classifier, CLASSIFIER_WEIGHTS),
    "multiple_choice": nn_heads.choice_head(_build_classifier, CLASSIFIER_WEIGHTS, _classifier_pooling),
}

TRAITS = Traits(architecture="encoder", heads=tuple(HEADS), pooling="first")

WEIGHTS: list[Operation] = [
    Alias(r"^(embeddings|layers|final_norm)\.", r"model.\1."),  # a stock ModernBertModel, without a head
    Rename("embeddings.word.weight", "model.embeddings.tok_embeddings.weight"),
    Rename("embeddings.norm.{leaf}", "model.embeddings.norm.{leaf}"),
    Rename("layers.{}.attention_norm.{leaf}", "model.layers.{}.attn_norm.{leaf}"),
    Rename("layers.{}.attention.query_key_value.{leaf}", "model.layers.{}.attn.Wqkv.{leaf}"),
    Rename("layers.{}.attention.output.{leaf}", "model.layers.{}.attn.Wo.{leaf}"),
    Rename("layers.{}.feed_forward_norm.{leaf}", "model.layers.{}.mlp_norm.{leaf}"),
    Rename("layers.{}.feed_forward.gate_up.{leaf}", "model.layers.{}.mlp.Wi.{leaf}"),
    Rename("layers.{}.feed_forward.down.{leaf}", "model.layers.{}.mlp.Wo.{leaf}"),
    Rename("norm.{leaf}", "model.final_norm.{leaf}"),
    Share(
        tuple(f"heads.{name}.transform.{{part}}.{{leaf}}" for name in HEADS),
        "head.{part}.{leaf}",
    ),
    Rename("heads.masked_lm.decoder.{leaf}", "decoder.{leaf}"),
]


def tiny_config() -> Config:
    """A shape for tests: the window is shorter than their texts."""
    return Config(
        vocab_size=96, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=48, local_attention=6, global_attn_every_n_layers=2,
    )  # fmt: skip
