"""GPT-3's layers by turns, as GPT-Neo's config.json tells them, and the window of the local ones."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers

from pretune.checkpoint import weights
from pretune.errors import ConfigError
from pretune.families import gpt3
from pretune.types import Batch, Layout

SHAPE: dict[str, Any] = {
    "vocab_size": 200, "hidden_size": 64, "num_layers": 4, "num_heads": 4, "max_position_embeddings": 300,
    "window_size": 64, "attention_types": [[["global", "local"], 2]],
}  # fmt: skip


@torch.no_grad()
def test_the_window_of_a_long_text_is_that_of_stock() -> None:
    """A window one place wider or narrower changes the logits."""
    torch.manual_seed(0)
    stock = transformers.GPTNeoForCausalLM(transformers.GPTNeoConfig(**SHAPE, initializer_range=0.2)).eval()
    tokens = torch.randint(200, (2, 171))
    expected = stock(tokens).logits.flatten(0, 1)
    for window in (64, 63, 65):
        network = gpt3.Network(gpt3.Config.from_hugging_face({**SHAPE, "window_size": window})).eval()
        weights.load_weights(network, stock.state_dict(), gpt3.WEIGHTS)
        batch = Batch(tokens, Layout(lengths=torch.tensor([171, 171])))
        found = network(batch).logits["causal_lm"]
        assert torch.allclose(found, expected, atol=1e-4, rtol=1e-4) == (window == 64)


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ({"num_layers": 3}, ("global", "local", "global")),
        ({"num_layers": 3, "attention_layers": ["local", "global", "local"]}, ("local", "global", "local")),
        ({"num_layers": 5, "attention_types": [[["global", "local"], 2], [["global"], 1]]},
         ("global", "local", "global", "local", "global")),
        ({}, ("global", "local") * 12),
    ],
)  # fmt: skip
def test_what_each_layer_sees_is_read_in_every_form(values: dict[str, Any], found: tuple[str, ...]) -> None:
    assert gpt3.Config.from_hugging_face(values).layer_attention_types == found
    if "attention_types" in values or not values:
        assert tuple(transformers.GPTNeoConfig(**values).attention_layers) == found


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"attention_types": [["global"]]}, "attention_types"),
        ({"attention_types": [[["global", "dense"], 12]]}, "attention_layers"),
        ({"attention_types": [[["global"], 10**15]]}, "attention_layers has 4096 entries, not 24"),
        ({"attention_types": [[[], 10**15]]}, "attention_layers has 0 entries, not 24"),
        ({"attention_types": [[["global"], 2]]}, "attention_layers has 2 entries, not 24"),
        ({"hidden_size": 100, "num_heads": 3}, "no multiple of 3 heads"),
    ],
)
def test_a_wrong_config_is_named(values: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        gpt3.Config.from_hugging_face(values)
