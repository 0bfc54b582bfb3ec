"""DistilBERT (Sanh et al. 2019): BERT without segments and pooler, made to be half as deep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import pydantic
import torch
from torch import Tensor, nn

from pretune import config as settings
from pretune.checkpoint import hub
from pretune.checkpoint.weights import Alias, Ignore, Operation, Rename
from pretune.errors import UnsupportedError
from pretune.nn import attention, init
from pretune.nn import heads as nn_heads
from pretune.nn.dropout import Dropout
from pretune.nn.feedforward import ACTIVATIONS, ActivationName, FeedForward
from pretune.nn.heads import Head
from pretune.nn.positions import build_position_ids
from pretune.types import Batch, Layout, LossOptions, Outputs, OutputSpec, SpecialTokens, Traits

MODEL_TYPES = {"distilbert": "DistilBert"}
"""``model_type`` of a config.json to what the names of its stock classes begin with."""

ATTRIBUTE_MAP = {
    "hidden_size": "dim",
    "num_hidden_layers": "n_layers",
    "num_attention_heads": "n_heads",
    "intermediate_size": "hidden_dim",
    "hidden_act": "activation",
    "hidden_dropout_prob": "dropout",
    "attention_probs_dropout_prob": "attention_dropout",
    "classifier_dropout": "seq_classif_dropout",
}
"""Our settings, which are called as in the other families, and what DistilBERT's config.json calls them."""

HF_DEFAULTS: Mapping[str, Any] = {
    "vocab_size": 30522,
    "dim": 768,
    "n_layers": 6,
    "n_heads": 12,
    "hidden_dim": 3072,
    "dropout": 0.1,
    "attention_dropout": 0.1,
    "seq_classif_dropout": 0.2,
}
"""What a config.json means that leaves a key out, where it differs from our defaults."""

NORM_EPS = 1e-12


class Config(settings.Settings):
    """The shape of a DistilBERT; defaults for a small machine."""

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
    classifier_dropout: float = pydantic.Field(default=0.0, ge=0, lt=1)
    max_position_embeddings: pydantic.PositiveInt = 512
    initializer_range: float = pydantic.Field(default=0.02, gt=0)
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
        return settings.build_settings(cls, known, where="config.json")

    def to_hugging_face(
        self, head: str, *, outputs: OutputSpec | None = None, specials: SpecialTokens | None = None
    ) -> dict[str, Any]:
        """The config.json with which stock transformers loads this network with ``head``."""
        values = {ATTRIBUTE_MAP.get(name, name): value for name, value in self.model_dump().items()}
        values |= {"hidden_dim": self.inner_size, "model_type": "distilbert", "dtype": "float32"}
        values |= {"architectures": [nn_heads.stock_class(HEADS, MODEL_TYPES["distilbert"], head)]}
        if specials is not None:
            values |= {"pad_token_id": specials.pad_id}
        return values | hub.output_config(outputs)


class Embeddings(nn.Module):
    """The sum of word and position embeddings, normalised."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.word = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=NORM_EPS)
        self.dropout = Dropout(config.hidden_dropout_prob)

    def forward(self, tokens: Tensor, layout: Layout) -> Tensor:
        """(B, T) to (B, T, D)"""
        width, max_length = tokens.shape[1], self.position.num_embeddings
        if layout.position_ids is None and width > max_length:
            raise UnsupportedError(
                f"a row of {width} tokens; this model has {max_length} positions (cut the text)"
            )
        summed = self.word(tokens) + self.position(build_position_ids(layout, width))  # (B, T, D)
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
        self.attention_norm = nn.LayerNorm(config.hidden_size, eps=NORM_EPS)
        self.feed_forward = FeedForward(config.hidden_size, config.inner_size, config.hidden_act)
        self.feed_forward_norm = nn.LayerNorm(config.hidden_size, eps=NORM_EPS)
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
    """What BERT does before it predicts a word."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.activation = ACTIVATIONS[config.hidden_act]
        self.norm = nn.LayerNorm(config.hidden_size, eps=NORM_EPS)

    def forward(self, hidden: Tensor) -> Tensor:
        """(N, D) to (N, D)"""
        transformed: Tensor = self.norm(self.activation(self.dense(hidden)))
        return transformed


class Classifier(nn_heads.HeadModule):
    """A hidden layer over the [CLS] place, and a linear map to the classes."""

    def __init__(self, config: Config, num_labels: int) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.dropout = Dropout(config.classifier_dropout)
        self.output = nn.Linear(config.hidden_size, num_labels)

    def forward(self, hidden: Tensor) -> Tensor:
        """(N, D) to (N, C)"""
        logits: Tensor = self.output(self.dropout(self.dense(hidden).relu()))
        return logits


class Network(nn.Module):
    """A DistilBERT with the heads that are asked for, at its first values."""

    def __init__(self, config: Config, heads: Sequence[str] = ("masked_lm",), num_labels: int = 0) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        self.norm = nn.Identity()  # each layer ends in a norm of its own
        self.heads = nn.ModuleDict()
        for name in heads:
            self.heads[name] = nn_heads.build_head(HEADS, name, self, num_labels, "distilbert")
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
            raise UnsupportedError("distilbert sees both sides of every place: it has no cache")
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


def _hidden_dropout(config: Config) -> float:
    return config.hidden_dropout_prob


CLASSIFIER_WEIGHTS = {"dense.{leaf}": "pre_classifier.{leaf}", "output.{leaf}": "classifier.{leaf}"}
HEADS = {
    "masked_lm": Head("vocabulary", "ForMaskedLM", _build_lm_head, is_pretrained=True),
    "classification": Head(
        "sequence", "ForSequenceClassification", _build_classifier, "first", CLASSIFIER_WEIGHTS
    ),
    "token_classification": nn_heads.token_head(
        nn_heads.make_linear(_hidden_dropout), {"output.{leaf}": "classifier.{leaf}"}
    ),
    "question_answering": nn_heads.span_head(),
    "multiple_choice": nn_heads.choice_head(_build_classifier, CLASSIFIER_WEIGHTS, "first"),
}

TRAITS = Traits(architecture="encoder", heads=tuple(HEADS), pooling="first")

WEIGHTS: list[Operation] = [
    Alias(r"^(embeddings|transformer)\.", r"distilbert.\1."),  # a stock DistilBertModel, without a head
    Ignore("distilbert.embeddings.position_ids"),
    Rename("embeddings.word.weight", "distilbert.embeddings.word_embeddings.weight"),
    Rename("embeddings.position.weight", "distilbert.embeddings.position_embeddings.weight"),
    Rename("embeddings.norm.{leaf}", "distilbert.embeddings.LayerNorm.{leaf}"),
    Rename("layers.{}.attention.query.{leaf}", "distilbert.transformer.layer.{}.attention.q_lin.{leaf}"),
    Rename("layers.{}.attention.key.{leaf}", "distilbert.transformer.layer.{}.attention.k_lin.{leaf}"),
    Rename("layers.{}.attention.value.{leaf}", "distilbert.transformer.layer.{}.attention.v_lin.{leaf}"),
    Rename("layers.{}.attention.output.{leaf}", "distilbert.transformer.layer.{}.attention.out_lin.{leaf}"),
    Rename("layers.{}.attention_norm.{leaf}", "distilbert.transformer.layer.{}.sa_layer_norm.{leaf}"),
    Rename("layers.{}.feed_forward.up.{leaf}", "distilbert.transformer.layer.{}.ffn.lin1.{leaf}"),
    Rename("layers.{}.feed_forward.down.{leaf}", "distilbert.transformer.layer.{}.ffn.lin2.{leaf}"),
    Rename("layers.{}.feed_forward_norm.{leaf}", "distilbert.transformer.layer.{}.output_layer_norm.{leaf}"),
    Rename("heads.masked_lm.transform.dense.{leaf}", "vocab_transform.{leaf}"),
    Rename("heads.masked_lm.transform.norm.{leaf}", "vocab_layer_norm.{leaf}"),
    Rename("heads.masked_lm.decoder.{leaf}", "vocab_projector.{leaf}"),
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
