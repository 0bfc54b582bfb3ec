"""DistilBERT (Sanh et al. 2019): BERT without segments and pooler, made to be half as deep."""

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
from pretune.nn import attention, init
from pretune.nn import heads as reading
from pretune.nn.dropout import Dropout
from pretune.nn.feedforward import ACTIVATIONS, ActivationName, FeedForward
from pretune.nn.positions import positions
from pretune.types import Batch, Layout, Outputs, Specials, Traits

TRAITS = Traits(kind="encoder", heads=("masked_lm", "classification"), sentence="first")

HF_TYPES = {
    "distilbert": {
        "masked_lm": "DistilBertForMaskedLM",
        "classification": "DistilBertForSequenceClassification",
    }
}

NAMES = {
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

REFERENCE: Mapping[str, Any] = {
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
    def _heads_divide(self) -> Self:
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
        given = {**REFERENCE, **values}
        known = {
            name: given[NAMES.get(name, name)] for name in cls.model_fields if NAMES.get(name, name) in given
        }
        return settings.build(cls, known, where="config.json")

    def to_hugging_face(
        self, head: str, *, labels: tuple[str, ...] = (), specials: Specials | None = None
    ) -> dict[str, Any]:
        """The config.json with which stock transformers loads this network with ``head``."""
        values = {NAMES.get(name, name): value for name, value in self.model_dump().items()}
        values |= {"hidden_dim": self.inner_size, "model_type": "distilbert", "dtype": "float32"}
        values |= {"architectures": [HF_TYPES["distilbert"][head]]}
        if specials is not None:
            values |= {"pad_token_id": specials.pad}
        return values | hub.label_fields(labels)


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
        width, longest = tokens.shape[1], self.position.num_embeddings
        if layout.positions is None and width > longest:
            raise UnsupportedError(
                f"a row of {width} tokens; this model has {longest} positions (cut the text)"
            )
        summed = self.word(tokens) + self.position(positions(layout, width))  # (B, T, D)
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

    def forward(self, hidden: Tensor, plan: attention.Plan, places: Tensor | None = None) -> Tensor:
        """(B, T, D) to (B, T, D), or to (M, D) at ``places``"""
        query, key, value = (
            project(hidden).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, H, T, K)
            for project in (self.query, self.key, self.value)
        )
        mixed = attention.attend(query, key, value, plan, dropout=self.dropout if self.training else 0.0)
        output: Tensor = self.output(reading.at(mixed, places))
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

    def forward(self, hidden: Tensor, plan: attention.Plan, places: Tensor | None = None) -> Tensor:
        """(B, T, D) to (B, T, D), or to (M, D) at ``places``"""
        mixed = self.dropout(self.attention(hidden, plan, places))
        hidden = self.attention_norm(reading.at(hidden, places) + mixed)
        hidden = self.feed_forward_norm(hidden + self.dropout(self.feed_forward(hidden)))
        return hidden


class Transform(nn.Module):
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


class Classifier(nn.Module):
    """A hidden layer over the [CLS] place, and a linear map to the classes."""

    reads: reading.Reads = TRAITS.sentence

    def __init__(self, config: Config, classes: int) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.dropout = Dropout(config.classifier_dropout)
        self.output = nn.Linear(config.hidden_size, classes)

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
        self.heads = nn.ModuleDict({name: self._head(name, num_labels) for name in heads})
        self.reset_parameters()

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw first values as the released BERT does."""
        init.normal(self, self.config.initializer_range, generator)

    def forward(
        self,
        batch: Batch,
        heads: Sequence[str] = ("masked_lm",),
        targets: Mapping[str, Tensor] | None = None,
        cache: None = None,
    ) -> Outputs:
        """Hidden states of the batch, and what the heads say at their places.

        Raises:
            UnsupportedError: a head that the network was not built with, a cache, or too long a row.
        """
        if cache is not None:
            raise UnsupportedError("distilbert sees both sides of every place: it has no cache")
        hidden = self.embeddings(batch.tokens, batch.layout)
        plan = attention.plan(batch.layout, batch.tokens.shape[1], causal=False)
        *before, last = self.layers
        for layer in before:
            hidden = layer(hidden, plan)
        hidden = last(hidden, plan, reading.narrow(self.heads, batch, heads))
        return reading.read(self.heads, hidden, batch, heads, targets)

    def _head(self, name: str, num_labels: int) -> nn.Module:
        if name == "masked_lm":
            decoder = nn.Linear(self.config.hidden_size, self.config.vocab_size)
            if self.config.tie_word_embeddings:
                decoder.weight = self.embeddings.word.weight
            return reading.VocabularyHead(decoder, Transform(self.config))
        if name == "classification":
            if num_labels < 1:
                raise ConfigError("num_labels: a classification head needs at least one")
            return Classifier(self.config, num_labels)
        raise UnsupportedError(f"distilbert has no head {name!r}; it has: {', '.join(TRAITS.heads)}")


WEIGHTS: list[Operation] = [
    Accept(r"^(embeddings|transformer)\.", r"distilbert.\1."),  # a stock DistilBertModel, without a head
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
    Rename("heads.classification.dense.{leaf}", "pre_classifier.{leaf}"),
    Rename("heads.classification.output.{leaf}", "classifier.{leaf}"),
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
