"""GPT: the names of its activations, and the end of its positions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from transformers.models.openai import modeling_openai

from pretune.checkpoint import weights
from pretune.errors import ConfigError, UnsupportedError
from pretune.families import gpt1
from pretune.types import Batch, Layout

SHAPE: dict[str, Any] = {"vocab_size": 200, "n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": 48}


@pytest.mark.parametrize("activation", modeling_openai.ACT_FNS)
@torch.no_grad()
def test_an_activation_means_what_it_means_to_stock(activation: str) -> None:
    """Its "gelu" is the approximation by tanh, which no other config.json calls so."""
    torch.manual_seed(0)
    config = transformers.OpenAIGPTConfig(**SHAPE, afn=activation, initializer_range=0.2)
    stock = transformers.OpenAIGPTLMHeadModel(config).eval()
    network = gpt1.Network(gpt1.Config.from_hugging_face(config.to_dict())).eval()
    assert weights.load_weights(network, stock.state_dict(), gpt1.WEIGHTS) == []
    tokens = torch.randint(200, (2, 48))
    found = network(Batch(tokens, Layout(lengths=torch.tensor([48, 48])))).logits["causal_lm"]
    torch.testing.assert_close(found, stock(tokens).logits.flatten(0, 1), atol=1e-4, rtol=1e-4)


def test_another_activation_is_refused() -> None:
    with pytest.raises(ConfigError, match="hidden_act = 'tanh'"):
        gpt1.Config.from_hugging_face({**SHAPE, "afn": "tanh"})


def test_too_long_a_row_is_refused() -> None:
    network = gpt1.Network(gpt1.tiny_config()).eval()
    tokens = torch.zeros(1, 49, dtype=torch.long)
    with pytest.raises(UnsupportedError, match="49 tokens; this model has 48 positions"):
        network(Batch(tokens, Layout(lengths=torch.tensor([49]))), heads=())
