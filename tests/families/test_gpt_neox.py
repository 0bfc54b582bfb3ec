"""GPT-NeoX: the two residual forms, what turns of a head, and the names of released checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from pretune.checkpoint import hub, weights
from pretune.families import gpt_neox
from pretune.nn.cache import KVCache
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
    assert weights.load_weights(network, stock.state_dict(), gpt_neox.WEIGHTS) == []
    tokens = torch.randint(200, (2, 40))
    expected = stock(tokens).logits.flatten(0, 1)
    batch = Batch(tokens, Layout(lengths=torch.full((2,), 40)))
    torch.testing.assert_close(network(batch).logits["causal_lm"], expected, atol=1e-4, rtol=1e-4)
    written = transformers.GPTNeoXConfig(**config.to_hugging_face("causal_lm")).to_dict()
    assert form.items() <= written.items()
    assert written["rope_parameters"] == stock.config.rope_parameters


STRETCHED: dict[str, dict[str, Any]] = {
    "linear": {"rope_type": "linear", "factor": 4.0},
    "dynamic": {"rope_type": "dynamic", "factor": 2.0},
    "llama3": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
               "original_max_position_embeddings": 16},
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "truncate": False},
}  # fmt: skip


@pytest.mark.parametrize("form", ["rope_parameters", "rope_scaling"])
@pytest.mark.parametrize("name", STRETCHED)
def test_stretched_positions_are_those_of_stock(name: str, form: str, tmp_path: Path) -> None:
    """Beyond the length that the model is meant for: outputs, gradients, and what is written."""
    told = dict(STRETCHED[name])
    rope = told | {"rope_theta": 500.0, "partial_rotary_factor": 0.5} if form == "rope_parameters" else told
    plain = {"rotary_emb_base": 500.0, "rotary_pct": 0.5}
    stock = stock_of(**{form: dict(rope)}, **plain)
    config = gpt_neox.Config.from_hugging_face({**SHAPE, form: dict(rope), **plain})
    assert config == gpt_neox.Config.from_hugging_face(stock.config.to_dict())
    network = gpt_neox.Network(config).eval()
    assert weights.load_weights(network, stock.state_dict(), gpt_neox.WEIGHTS) == []
    tokens = torch.randint(200, (2, 100))
    batch = Batch(tokens, Layout(lengths=torch.full((2,), 100)))
    ours, expected = network(batch).logits["causal_lm"], stock(tokens).logits.flatten(0, 1)
    torch.testing.assert_close(ours, expected, atol=2e-4, rtol=1e-4)
    unstretched = gpt_neox.Network(config.model_copy(update={"rope_scaling": None})).eval()
    weights.load_weights(unstretched, stock.state_dict(), gpt_neox.WEIGHTS)
    assert (unstretched(batch).logits["causal_lm"] - expected).abs().max() > 0.01
    for said in (ours, expected):
        said.log_softmax(-1)[:, 0].sum().backward()
    found = weights.to_hugging_face(
        {n: p.grad for n, p in network.named_parameters() if p.grad is not None}, gpt_neox.WEIGHTS
    )
    for parameter_name, parameter in stock.named_parameters():
        scale = max(float(parameter.grad.abs().max()), 1.0)
        torch.testing.assert_close(
            found[parameter_name], parameter.grad, rtol=1e-3, atol=1e-4 * scale, msg=parameter_name
        )
    hub.write_model(
        tmp_path, config.to_hugging_face("causal_lm"), weights.export_weights(network, gpt_neox.WEIGHTS)
    )
    again = transformers.GPTNeoXForCausalLM.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        torch.testing.assert_close(again(tokens).logits.flatten(0, 1), expected, atol=2e-4, rtol=1e-4)


@torch.no_grad()
def test_a_cache_keeps_stretched_positions() -> None:
    """Those whose angles do not depend on how long the text has grown."""
    for name in ("linear", "llama3", "yarn"):
        network = gpt_neox.Network(
            gpt_neox.Config.from_hugging_face({**SHAPE, "rope_scaling": STRETCHED[name]})
        )
        tokens = torch.randint(200, (1, 90))
        whole = network.eval()(Batch(tokens, Layout(lengths=torch.tensor([90]))), heads=()).hidden
        cache = KVCache()
        for begin, end in ((0, 60), (60, 89), (89, 90)):
            layout = Layout(lengths=torch.tensor([end - begin]), cache_lengths=cache.lengths)
            hidden = network(Batch(tokens[:, begin:end], layout), heads=(), cache=cache).hidden
            torch.testing.assert_close(hidden, whole[:, begin:end], atol=1e-5, rtol=1e-4)


def test_the_released_names_of_the_positions_are_read() -> None:
    released = gpt_neox.Config.from_hugging_face({**SHAPE, "rotary_pct": 0.5, "rotary_emb_base": 500})
    rope = {"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 0.5}
    assert released == gpt_neox.Config.from_hugging_face({**SHAPE, "rope_parameters": rope})


def test_buffers_of_released_checkpoints_are_passed_over() -> None:
    stock = stock_of()
    layer = "gpt_neox.layers.0.attention."
    buffers = {layer + name: torch.zeros(1) for name in ("bias", "masked_bias", "rotary_emb.inv_freq")}
    network = gpt_neox.Network(gpt_neox.Config.from_hugging_face(stock.config.to_dict()))
    assert weights.load_weights(network, stock.state_dict() | buffers, gpt_neox.WEIGHTS) == []
