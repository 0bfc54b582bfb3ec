"""RoBERTa (Liu et al. 2019) and XLM-R (Conneau et al. 2020): BERT without segments, its positions shifted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

import pydantic
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pretune import config as settings
from pretune.checkpoint import hub
from pretune.checkpoint.weights import Alias, Ignore, Operation, Rename, Tie
from pretune.errors import UnsupportedError
from pretune.nn import attention, init
from pretune.nn import heads as nn_heads
from pretune.nn.dropout import Dropout
from pretune.nn.feedforward import ActivationName, FeedForward
from pretune.nn.heads import Head
from pretune.nn.positions import build_position_ids
from pretune.types import Batch, Layout, LossOptions, Outputs, OutputSpec, SpecialTokens, Traits

MODEL_TYPES = {"roberta": "Roberta", "xlm-roberta": "XLMRoberta", "camembert": "Camembert"}
"""``model_type`` of a config.json to what the names of its stock classes begin with."""

HF_DEFAULTS: Mapping[str, Any] = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
}
"""What a config.json means that leaves a key out, where it differs from our defaults."""
HF_VOCAB_SIZES = {"roberta": 50265, "xlm-roberta": 30522, "camembert": 30522}
"""Likewise, of vocab_size."""


class Config(settings.Settings):
    """The shape of a RoBERTa, under the names of its config.json; defaults for a small machine."""

    model_type: Literal["roberta", "xlm-roberta", "camembert"] = "roberta"
    """The stock class that it is written as; all compute the same."""

    vocab_size: pydantic.PositiveInt = 8192
    hidden_size: pydantic.PositiveInt = 256
    num_hidden_layers: pydantic.PositiveInt = 4
    num_attention_heads: pydantic.PositiveInt = 4
    intermediate_size: pydantic.PositiveInt | None = None
    """None: four times ``hidden_size``."""
    hidden_act: ActivationName = "gelu"
    # None in pretraining: it is slow on CPU and does not pay off in one epoch (Geiping & Goldstein 2022).
    hidden_dropout_prob: float = pydantic.Field(default=0.0, ge=0, lt=1)
    attention_probs_dropout_prob: float = pydantic.Field(default=0.0, ge=0, lt=1)
    classifier_dropout: float | None = pydantic.Field(default=None, ge=0, lt=1)
    """None: as ``hidden_dropout_prob``."""
    max_position_embeddings: pydantic.PositiveInt = 512
    """Tokens of the longest text; config.json counts the positions before the first, too."""
    pad_token_id: pydantic.NonNegativeInt = 1
    """Positions begin behind it: a text's first token has position ``pad_token_id`` + 1."""
    type_vocab_size: pydantic.PositiveInt = 1
    """All tokens are of the first type."""
    initializer_range: float = pydantic.Field(default=0.02, gt=0)
    layer_norm_eps: float = pydantic.Field(default=1e-5, gt=0, lt=1)
    tie_word_embeddings: bool = True

    @pydantic.model_validator(mode="after")
    def _check_heads(self) -> Self:
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is no multiple of {self.num_attention_heads} heads"
            )
        return self

    @property
    def inner_size(self) -> int:
        """F, the width between the two maps of a feed-forward block."""
        return self.intermediate_size or 4 * self.hidden_size

    @property
    def first_position(self) -> int:
        """Of a text."""
        return self.pad_token_id + 1

    @classmethod
    def from_hugging_face(cls, values: Mapping[str, Any]) -> Config:
        """The config of a config.json; what does not change the network is passed over.

        Raises:
            UnsupportedError: it asks for something that this family does not compute.
            ConfigError: a value is wrong.
        """
        if values.get("position_embedding_type", "absolute") != "absolute":
            embedding_type = values["position_embedding_type"]
            raise UnsupportedError(
                f"config.json: position_embedding_type {embedding_type!r}; roberta reads 'absolute' only"
            )
        for key in ("is_decoder", "add_cross_attention"):
            if values.get(key):
                raise UnsupportedError(f"config.json: {key} is set; the roberta family is an encoder only")
        model_type = values.get("model_type", "roberta")
        given = {**HF_DEFAULTS, "vocab_size": HF_VOCAB_SIZES.get(model_type), **values}
        known = {key: value for key, value in given.items() if key in cls.model_fields}
        stock_config = settings.build_settings(cls, {**known, "model_type": model_type}, where="config.json")
        max_length = stock_config.max_position_embeddings - stock_config.first_position
        shape = {**known, "model_type": model_type, "max_position_embeddings": max_length}
        return settings.build_settings(cls, shape, where="config.json: the positions of texts")

    def to_hugging_face(
        self, head: str, *, outputs: OutputSpec | None = None, specials: SpecialTokens | None = None
    ) -> dict[str, Any]:
        """The config.json with which stock transformers loads this network with ``head``."""
        values = {**self.model_dump(exclude={"model_type"}), "intermediate_size": self.inner_size}
        values |= {"max_position_embeddings": self.max_position_embeddings + self.first_position}
        values |= {
            "architectures": [nn_heads.stock_class(HEADS, MODEL_TYPES[self.model_type], head)],
            "model_type": self.model_type,
            "dtype": "float32",
        }
        if specials is not None:
            before, after = specials.single
            values |= {"bos_token_id": before[0] if before else None}
            values |= {"eos_token_id": after[-1] if after else None}
        return values | hub.output_config(outputs)


class Embeddings(nn.Module):
    """The sum of word and position embeddings, normalised."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.word = nn.Embedding(config.vocab_size, config.hidden_size)
        self.first_position = config.first_position
        self.position = nn.Embedding(self.first_position + config.max_position_embeddings, config.hidden_size)
        self.segment = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = Dropout(config.hidden_dropout_prob)

    def forward(self, tokens: Tensor, layout: Layout) -> Tensor:
        """(B, T) to (B, T, D)"""
        width, max_length = tokens.shape[1], self.position.num_embeddings - self.first_position
        if layout.position_ids is None and width > max_length:
            raise UnsupportedError(
                f"a row of {width} tokens; this model has {max_length} positions (cut the text)"
            )
        position_ids = build_position_ids(layout, width) + self.first_position
        summed = self.word(tokens) + self.segment.weight[0] + self.position(position_ids)  # (B, T, D)
        embedded: Tensor = self.dropout(self.norm(summed))
        return embedded


class SelfAttention(nn.Module):
    """Multi-head self-attention (Vaswani et al. 2017, section 3.2.2)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        width = config.hidden_size
        self.heads = config.num_attention_heads
        self.dropout = config.attention_probs_dropout_prob
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)

    def forward(
        self, hidden: Tensor, mask: attention.AttentionMask, output_positions: Tensor | None = None
    ) -> Tensor:
        """(B, T, D) to (B, T, D), or to (M, D) at ``output_positions``"""
        query, key, value = (
            project(hidden).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, H, T, K)
            for project in (self.query, self.key, self.value)
        )
        mixed = attention.attend(query, key, value, mask, dropout=self.dropout if self.training else 0.0)
        output: Tensor = self.output(nn_heads.select(mixed, output_positions))
        return output


class Layer(nn.Module):
    """Attention and feed-forward, each with a residual connection and a norm behind it."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.attention = SelfAttention(config)
        self.attention_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.feed_forward = FeedForward(config.hidden_size, config.inner_size, config.hidden_act)
        self.feed_forward_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = Dropout(config.hidden_dropout_prob)

    def forward(
        self, hidden: Tensor, mask: attention.AttentionMask, output_positions: Tensor | None = None
    ) -> Tensor:
        """(B, T, D) to (B, T, D), or to (M, D) at ``output_positions``"""
        mixed = self.dropout(self.attention(hidden, mask, output_positions))
        hidden = self.attention_norm(nn_heads.select(hidden, output_positions) + mixed)
        hidden = self.feed_forward_norm(hidden + self.dropout(self.feed_forward(hidden)))
        return hidden


class PredictionTransform(nn.Module):
    """What RoBERTa does before it predicts a word."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, hidden: Tensor) -> Tensor:
        """(N, D) to (N, D)"""
        transformed: Tensor = self.norm(F.gelu(self.dense(hidden)))
        return transformed


def _classifier_dropout(config: Config) -> float:
    return config.hidden_dropout_prob if config.classifier_dropout is None else config.classifier_dropout


class Classifier(nn_heads.HeadModule):
    """A hidden layer over the first place, and a linear map to the classes."""

    def __init__(self, config: Config, num_labels: int) -> None:
        super().__init__()
        self.dropout = Dropout(_classifier_dropout(config))
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.output = nn.Linear(config.hidden_size, num_labels)

    def forward(self, hidden: Tensor) -> Tensor:
        """(N, D) to (N, C)"""
        inner = self.dropout(self.dense(self.dropout(hidden)).tanh())
        logits: Tensor = self.output(inner)
        return logits


class PooledHead(nn_heads.HeadModule):
    """The pooler of the first position, as BERT has it, and a linear map to the outputs."""

    def __init__(self, config: Config, num_outputs: int) -> None:
        super().__init__()
        self.pooler = nn.Linear(config.hidden_size, config.hidden_size)
        self.dropout = Dropout(config.hidden_dropout_prob)
        self.output = nn.Linear(config.hidden_size, num_outputs)

    def forward(self, hidden: Tensor) -> Tensor:
        """(N, D) to (N, C)"""
        logits: Tensor = self.output(self.dropout(self.pooler(hidden).tanh()))
        return logits


class Network(nn.Module):
    """A RoBERTa with the heads that are asked for, at its first values."""

    def __init__(self, config: Config, heads: Sequence[str] = ("masked_lm",), num_labels: int = 0) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        self.norm = nn.Identity()  # each layer ends in a norm of its own
        self.heads = nn.ModuleDict()
        for name in heads:
            self.heads[name] = nn_heads.build_head(HEADS, name, self, num_labels, "roberta")
        self.reset_parameters()

    @property
    def embed(self) -> nn.Embedding:
        """The embedding of tokens; a forward hook may replace its output."""
        return self.embeddings.word

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw first values as the released BERT does."""
        init.init_normal_(self, self.config.initializer_range, generator)

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
            UnsupportedError: a head that the network was not built with, a cache, or too long a row.
        """
        if cache is not None:
            raise UnsupportedError("roberta sees both sides of every place: it has no cache")
        hidden = self.embeddings(batch.tokens, batch.layout)
        mask = attention.build_mask(batch.layout, batch.tokens.shape[1], causal=False)
        *before, last = self.layers
        for layer in before:
            hidden = layer(hidden, mask)
        hidden = last(hidden, mask, nn_heads.needed_positions(self.heads, batch, heads))
        return nn_heads.run_heads(self.heads, self.norm(hidden), batch, heads, targets, loss)


def _build_lm_head(network: Network, _: int) -> nn_heads.VocabularyHead:
    config = network.config
    decoder = nn.Linear(config.hidden_size, config.vocab_size)
    if config.tie_word_embeddings:
        decoder.weight = network.embeddings.word.weight
    return nn_heads.VocabularyHead(decoder, PredictionTransform(config))


def _build_classifier(network: Network, num_outputs: int) -> Classifier:
    return Classifier(network.config, num_outputs)


def _build_choice_head(network: Network, num_outputs: int) -> PooledHead:
    return PooledHead(network.config, num_outputs)


HEADS = {
    "masked_lm": Head("vocabulary", "ForMaskedLM", _build_lm_head, is_pretrained=True),
    "classification": Head(
        "sequence", "ForSequenceClassification", _build_classifier, "first",
        {"dense.{leaf}": "classifier.dense.{leaf}", "output.{leaf}": "classifier.out_proj.{leaf}"},
    ),
    "token_classification": nn_heads.token_head(
        nn_heads.make_linear(_classifier_dropout), {"output.{leaf}": "classifier.{leaf}"}
    ),
    "question_answering": nn_heads.span_head(),
    "multiple_choice": nn_heads.choice_head(
        _build_choice_head, {"output.{leaf}": "classifier.{leaf}"}, "first"
    ),
}  # fmt: skip

TRAITS = Traits(architecture="encoder", heads=tuple(HEADS), pooling="first")

WEIGHTS: list[Operation] = [
    Alias(r"^(embeddings|encoder|pooler)\.", r"roberta.\1."),  # a stock RobertaModel, without a head
    Ignore("roberta.embeddings.position_ids"),
    Rename("heads.multiple_choice.pooler.{leaf}", "roberta.pooler.dense.{leaf}"),  # no other head reads it
    Rename("embeddings.word.{leaf}", "roberta.embeddings.word_embeddings.{leaf}"),
    Rename("embeddings.position.{leaf}", "roberta.embeddings.position_embeddings.{leaf}"),
    Rename("embeddings.segment.{leaf}", "roberta.embeddings.token_type_embeddings.{leaf}"),
    Rename("embeddings.norm.{leaf}", "roberta.embeddings.LayerNorm.{leaf}"),
    Rename("layers.{}.attention.query.{leaf}", "roberta.encoder.layer.{}.attention.self.query.{leaf}"),
    Rename("layers.{}.attention.key.{leaf}", "roberta.encoder.layer.{}.attention.self.key.{leaf}"),
    Rename("layers.{}.attention.value.{leaf}", "roberta.encoder.layer.{}.attention.self.value.{leaf}"),
    Rename("layers.{}.attention.output.{leaf}", "roberta.encoder.layer.{}.attention.output.dense.{leaf}"),
    Rename("layers.{}.attention_norm.{leaf}", "roberta.encoder.layer.{}.attention.output.LayerNorm.{leaf}"),
    Rename("layers.{}.feed_forward.up.{leaf}", "roberta.encoder.layer.{}.intermediate.dense.{leaf}"),
    Rename("layers.{}.feed_forward.down.{leaf}", "roberta.encoder.layer.{}.output.dense.{leaf}"),
    Rename("layers.{}.feed_forward_norm.{leaf}", "roberta.encoder.layer.{}.output.LayerNorm.{leaf}"),
    Tie("lm_head.decoder.bias", copy="lm_head.bias"),
    Rename("heads.masked_lm.decoder.{leaf}", "lm_head.decoder.{leaf}"),
    Rename("heads.masked_lm.transform.dense.{leaf}", "lm_head.dense.{leaf}"),
    Rename("heads.masked_lm.transform.norm.{leaf}", "lm_head.layer_norm.{leaf}"),
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
        pad_token_id=0,
    )
