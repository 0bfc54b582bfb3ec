"""GPT-NeoX: the two residual forms, what turns of a head, and the names of released checkpoints."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers

from pretune.checkpoint import weights
from pretune.families import gpt_neox
from pretune.types import Batch, Layout

SHAPE: dict[str, Any] = {
    "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 96,
    "vocab_size": 200, "max_position_embeddings": 64,
}  # fmt: skip


def stock_of(**values: Any) -> Any:
    torch.manual_seed(0)
    stock = transformers.GPTNeoXForCausalLM(transformers.GPTNeoXConfig(**SHAPE, **values)).eval()
    with torch.no_grad():
        for parameter in stock.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return stock


@pytest.mark.parametrize("parallel", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("share", [0.25, 0.5, 1.0])
@torch.no_grad()
def test_each_form_says_what_stock_says(parallel: bool, bias: bool, share: float) -> None:
    form = {"use_parallel_residual": parallel, "attention_bias": bias}
    stock = stock_of(**form, rotary_pct=share, rotary_emb_base=500.0)
    config = gpt_neox.Config.from_hugging_face(stock.config.to_dict())
    network = gpt_neox.Network(config).eval()
    assert weights.load_into(network, stock.state_dict(), gpt_neox.WEIGHTS) == []
    tokens = torch.randint(200, (2, 40))
    expected = stock(tokens).logits.flatten(0, 1)
    batch = Batch(tokens, Layout(lengths=torch.full((2,), 40)))
    torch.testing.assert_close(network(batch).logits["causal_lm"], expected, atol=1e-4, rtol=1e-4)
    written = transformers.GPTNeoXConfig(**config.to_hugging_face("causal_lm")).to_dict()
    assert form.items() <= written.items()
    assert written["rope_parameters"] == stock.config.rope_parameters


def test_the_released_names_of_the_positions_are_read() -> None:
    released = gpt_neox.Config.from_hugging_face({**SHAPE, "rotary_pct": 0.5, "rotary_emb_base": 500})
    rope = {"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 0.5}
    assert released == gpt_neox.Config.from_hugging_face({**SHAPE, "rope_parameters": rope})


def test_buffers_of_released_checkpoints_are_passed_over() -> None:
    stock = stock_of()
    layer = "gpt_neox.layers.0.attention."
    buffers = {layer + name: torch.zeros(1) for name in ("bias", "masked_bias", "rotary_emb.inv_freq")}
    network = gpt_neox.Network(gpt_neox.Config.from_hugging_face(stock.config.to_dict()))
    assert weights.load_into(network, stock.state_dict() | buffers, gpt_neox.WEIGHTS) == []
