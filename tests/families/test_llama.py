"""Llama and its relatives, as real checkpoints have them: their shapes, windows and stretched positions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers.initialization import no_init_weights

from pretune import config as settings
from pretune.checkpoint import hub, weights
from pretune.errors import ConfigError
from pretune.families import llama
from pretune.model.model import Model
from pretune.nn.cache import KVCache
from pretune.text.training import train_byte_bpe
from pretune.types import Batch, Layout

SMALL: dict[str, Any] = {
    "vocab_size": 200, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64,
    "initializer_range": 0.2,
}  # fmt: skip
STRETCHED: dict[str, dict[str, Any]] = {
    "plain": {"rope_type": "default"},
    "linear": {"rope_type": "linear", "factor": 4.0},
    "dynamic": {"rope_type": "dynamic", "factor": 2.0},
    "llama3": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
               "original_max_position_embeddings": 32},
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16},
}  # fmt: skip


def stock_of(values: dict[str, Any]) -> Any:
    """A stock model with no two parameters alike, at the values of its config.json."""
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(**values)
    stock = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in stock.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    return stock


def ours_of(stock: Any, values: dict[str, Any]) -> Any:
    network = llama.Network(llama.Config.from_hugging_face(values)).eval()
    assert weights.load_weights(network, stock.state_dict(), llama.WEIGHTS) == []
    return network


def grid(rows: int, width: int, vocabulary: int = 200) -> Batch:
    tokens = torch.randint(vocabulary, (rows, width), generator=torch.Generator().manual_seed(2))
    return Batch(tokens, Layout(lengths=torch.full((rows,), width)))


def assert_same(stock: Any, network: Any, batch: Batch) -> None:
    ours, theirs = network(batch), stock(batch.tokens)
    expected = theirs.logits.flatten(0, 1)
    assert expected.std() > 0.3
    torch.testing.assert_close(ours.logits["causal_lm"], expected, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("form", llama.VARIANTS)
@pytest.mark.parametrize("name", STRETCHED)
@pytest.mark.parametrize("width", [40, 200])
def test_within_and_beyond_its_context_it_says_what_stock_says(
    form: str, name: str, width: int, tmp_path: Path
) -> None:
    """And its folder loads as a stock model that says the same; gradients are equal."""
    values = {**SMALL, "model_type": form, "rope_theta": 1000.0, "rope_scaling": dict(STRETCHED[name])}
    stock = stock_of({**SMALL, "model_type": form, "rope_parameters": {**STRETCHED[name], "rope_theta": 1e3}})
    network, batch = ours_of(stock, values), grid(2, width)
    hub.write_model(
        tmp_path, network.config.to_hugging_face("causal_lm"), weights.export_weights(network, llama.WEIGHTS)
    )
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    for other in (stock, again):
        assert_same(other, network, batch)
    places = torch.arange(width)
    for said in (network(batch).logits["causal_lm"][:width], again(batch.tokens).logits[0]):
        said.log_softmax(-1)[places, batch.tokens[0]].sum().backward()
    gradients = {n: p.grad for n, p in network.named_parameters()}
    expected = weights.from_hugging_face({n: p.grad for n, p in again.named_parameters()}, llama.WEIGHTS)
    for parameter, gradient in gradients.items():
        scale = float(expected[parameter].abs().max())
        torch.testing.assert_close(gradient, expected[parameter], rtol=1e-3, atol=1e-4 * max(scale, 1.0))


WINDOWS: dict[str, dict[str, Any]] = {
    "mistral": {"model_type": "mistral", "sliding_window": 12},
    "mistral without": {"model_type": "mistral", "sliding_window": None},
    "qwen2 above": {"model_type": "qwen2", "use_sliding_window": True, "sliding_window": 12,
                    "max_window_layers": 2},
    "qwen2 without": {"model_type": "qwen2", "use_sliding_window": False, "sliding_window": 12},
    "qwen3 by turns": {"model_type": "qwen3", "use_sliding_window": True, "sliding_window": 12,
                       "head_dim": 16, "layer_types": ["full_attention", "sliding_attention"] * 2},
}  # fmt: skip


@pytest.mark.parametrize("name", WINDOWS)
@torch.no_grad()
def test_a_window_is_that_of_stock(name: str) -> None:
    """A window one place wider or narrower changes the logits."""
    values = {**SMALL, **WINDOWS[name]}
    stock, batch = stock_of(values), grid(2, 50)
    network = ours_of(stock, values)
    assert_same(stock, network, batch)
    assert (
        llama.Config.from_hugging_face(stock.config.to_dict()).layer_attention_types
        == network.config.layer_attention_types
    )
    if network.config.sliding_window is not None:
        for wrong in (11, 13):
            with pytest.raises(AssertionError):
                assert_same(stock, ours_of(stock, {**values, "sliding_window": wrong}), batch)


@pytest.mark.parametrize("name", STRETCHED)
@torch.no_grad()
def test_a_text_grows_beyond_its_context_as_in_stock(name: str) -> None:
    """A token at a time, with the cache of each."""
    values = {**SMALL, "model_type": "llama", "rope_scaling": dict(STRETCHED[name])}
    stock = stock_of({**SMALL, "model_type": "llama", "rope_parameters": {**STRETCHED[name]}})
    network, tokens = ours_of(stock, values), grid(1, 90).tokens
    cache, past = KVCache(), None
    for start, end in ((0, 60), *((place, place + 1) for place in range(60, 90))):
        theirs = stock(tokens[:, start:end], past_key_values=past, use_cache=True)
        past = theirs.past_key_values
        layout = Layout(lengths=torch.tensor([end - start]), cache_lengths=cache.lengths)
        ours = network(Batch(tokens[:, start:end], layout), cache=cache).logits["causal_lm"]
        torch.testing.assert_close(ours, theirs.logits[0], atol=1e-3, rtol=1e-3)


PUBLISHED: dict[str, dict[str, Any]] = {
    "Llama-3.2-1B": {
        "model_type": "llama", "vocab_size": 128256, "hidden_size": 2048, "intermediate_size": 8192,
        "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64, "rms_norm_eps": 1e-5,
        "max_position_embeddings": 131072, "rope_theta": 500000.0, "tie_word_embeddings": True,
        "rope_scaling": {"factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
                         "original_max_position_embeddings": 8192, "rope_type": "llama3"},
    },
    "Qwen2.5-0.5B": {
        "model_type": "qwen2", "vocab_size": 151936, "hidden_size": 896, "intermediate_size": 4864,
        "num_attention_heads": 14, "num_key_value_heads": 2, "max_position_embeddings": 32768,
        "max_window_layers": 24, "rope_theta": 1000000.0, "sliding_window": 32768,
        "use_sliding_window": False, "tie_word_embeddings": True,
    },
    "Qwen3-0.6B": {
        "model_type": "qwen3", "vocab_size": 151936, "hidden_size": 1024, "intermediate_size": 3072,
        "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128, "attention_bias": False,
        "max_position_embeddings": 40960, "max_window_layers": 28, "rope_scaling": None,
        "rope_theta": 1000000, "sliding_window": None, "use_sliding_window": False,
        "tie_word_embeddings": True,
    },
    "Mistral-7B-v0.1": {
        "model_type": "mistral", "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 14336,
        "num_attention_heads": 32, "num_key_value_heads": 8, "rms_norm_eps": 1e-5,
        "max_position_embeddings": 32768, "rope_theta": 10000.0, "sliding_window": 4096,
        "tie_word_embeddings": False, "num_hidden_layers": 1,
    },
    "SmolLM2-135M": {
        "model_type": "llama", "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536,
        "num_attention_heads": 9, "num_key_value_heads": 3, "rms_norm_eps": 1e-5,
        "max_position_embeddings": 8192, "rope_theta": 100000, "rope_scaling": None,
        "rope_interleaved": False, "attention_bias": False, "tie_word_embeddings": True,
    },
}  # fmt: skip
"""As their config.json says, but for the depth."""


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
@torch.no_grad()
def test_a_published_shape_says_what_stock_says(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """At full width, but for the vocabulary, and a layer or two deep: the layers are alike."""
    monkeypatch.setattr(llama.Network, "reset_parameters", lambda self: None)
    values = {"num_hidden_layers": 2, **PUBLISHED[name], "vocab_size": 4096}
    with torch.device("cpu"), no_init_weights():
        config = transformers.AutoConfig.for_model(**values)
        stock = transformers.AutoModelForCausalLM.from_config(config).eval()
    stock.tie_weights()
    for parameter in stock.parameters():
        parameter.uniform_(-0.06, 0.06) if parameter.ndim > 1 else parameter.uniform_(0.5, 1.5)
    assert_same(stock, ours_of(stock, values), grid(1, 300, 4096))


@pytest.mark.parametrize(
    ("values", "named"),
    [
        (
            {"model_type": "llama", "sliding_window": 8},
            "sliding_window: llama has none, mistral and qwen2 and qwen3",
        ),
        ({"model_type": "mistral", "attention_bias": True}, "attention_bias: mistral has none"),
        ({"model_type": "qwen2", "mlp_bias": True}, "mlp_bias: qwen2 has none, llama have"),
        ({"layer_types": ("sliding_attention",) * 4}, "needs a sliding_window"),
        ({"sliding_window": 4, "layer_types": ("full_attention",)}, "layer_types has 1 entries, not 4"),
        ({"model_type": "gemma"}, "model_type"),
        ({"head_dim": 2, "rope_scaling": {"rope_type": "linear", "factor": 2.0}}, "4 dimensions"),
    ],
)
def test_a_setting_that_no_stock_class_has_is_refused(values: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        settings.build_settings(llama.Config, values)


def test_a_form_whose_tokenizer_stock_would_read_otherwise_is_refused() -> None:
    tokenizer = train_byte_bpe(["the king sent word"] * 20, 300)
    shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    assert (
        Model.create("llama", shape, tokenizer, "causal_lm", max_length=8, seed=1).config.model_type
        == "qwen3"
    )
    with pytest.raises(ConfigError, match=r"model_type = qwen2.*Qwen2Tokenizer"):
        Model.create("llama", shape | {"model_type": "qwen2"}, tokenizer, "causal_lm", max_length=8, seed=1)
