"""ModernBERT: its local window, its pooling, and both forms of its config."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from pretune.checkpoint import hub, weights
from pretune.errors import ConfigError, UnsupportedError
from pretune.families import modernbert, weight_operations
from pretune.types import Batch, Layout, SpecialTokens

SHAPE: dict[str, Any] = {
    "vocab_size": 200, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4,
    "num_attention_heads": 4, "max_position_embeddings": 512, "pad_token_id": 0,
}  # fmt: skip


def grid(lengths: list[int], vocabulary: int) -> Batch:
    shape = (len(lengths), max(lengths))
    tokens = torch.randint(3, vocabulary, shape, generator=torch.Generator().manual_seed(2))
    return Batch(tokens, Layout(lengths=torch.tensor(lengths)))


def mask_of(batch: Batch) -> Tensor:
    return torch.arange(batch.tokens.shape[1]) < batch.layout.lengths[:, None]


@torch.no_grad()
def assert_same(stock: Any, head: str, lengths: list[int], classes: int = 0, **changed: Any) -> None:
    config = modernbert.Config.from_hugging_face({**stock.config.to_dict(), **changed})
    network = modernbert.Network(config, heads=(head,), num_labels=classes).eval()
    operations = weight_operations(modernbert, network.config, (head,))
    assert weights.load_weights(network, stock.state_dict(), operations) == []
    batch = grid(lengths, config.vocab_size)
    mask = mask_of(batch)
    ours = network(batch, heads=(head,)).logits[head]
    theirs = stock.eval()(batch.tokens, attention_mask=mask.long()).logits
    if head == "masked_lm":
        ours, theirs = ours.view(*mask.shape, -1)[mask], theirs[mask]
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_the_window_of_a_long_text_is_that_of_stock(implementation: str) -> None:
    """Twice the window of 128 and more: a window one place wider or narrower changes the logits."""
    torch.manual_seed(0)
    config = transformers.ModernBertConfig(**SHAPE, attn_implementation=implementation, initializer_range=0.1)
    stock = transformers.ModernBertForMaskedLM(config)
    assert_same(stock, "masked_lm", [300, 171])
    for wrong in (126, 130):
        with pytest.raises(AssertionError):
            assert_same(stock, "masked_lm", [300, 171], local_attention=wrong)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_a_text_is_pooled_as_its_config_says(pooling: str) -> None:
    torch.manual_seed(0)
    config = transformers.ModernBertConfig(**SHAPE, classifier_pooling=pooling, num_labels=3)
    stock = transformers.ModernBertForSequenceClassification(config)
    assert_same(stock, "classification", [40, 3, 17], classes=3)


STRETCHED: dict[str, dict[str, Any]] = {
    "linear": {"rope_type": "linear", "factor": 4.0},
    "dynamic": {"rope_type": "dynamic", "factor": 2.0},
    "llama3": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
               "original_max_position_embeddings": 16},
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "beta_fast": 20.0},
}  # fmt: skip


@pytest.mark.parametrize("name", STRETCHED)
def test_stretched_positions_are_those_of_stock(name: str, tmp_path: Path) -> None:
    """Beyond the length that the model is meant for: of all layers, or of a kind; and what is written."""
    stretched, shape = STRETCHED[name], {**SHAPE, "max_position_embeddings": 64, "initializer_range": 0.1}
    for values in (
        {"rope_scaling": dict(stretched)},
        {"rope_parameters": {"full_attention": {**stretched, "rope_theta": 3e3},
                             "sliding_attention": {"rope_type": "default", "rope_theta": 200.0}}},
        {"rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 3e3},
                             "sliding_attention": {**stretched, "rope_theta": 200.0}}},
    ):  # fmt: skip
        torch.manual_seed(0)
        stock = transformers.ModernBertForMaskedLM(transformers.ModernBertConfig(**shape, **deepcopy(values)))
        config = modernbert.Config.from_hugging_face({**shape, **values})
        told = modernbert.Config.from_hugging_face(stock.config.to_dict())
        assert told.rope_settings == config.rope_settings
        assert (
            told.rope_settings
            == modernbert.Config.from_hugging_face(told.to_hugging_face("masked_lm")).rope_settings
        )
        assert_same(stock, "masked_lm", [120])
        network = modernbert.Network(config, heads=("masked_lm",)).eval()
        weights.load_weights(network, stock.state_dict(), modernbert.WEIGHTS)
        batch = grid([120], 200)
        unstretched = {"global_rope_scaling": None, "local_rope_scaling": None}
        plain = modernbert.Network(config.model_copy(update=unstretched), heads=("masked_lm",)).eval()
        weights.load_weights(plain, stock.state_dict(), modernbert.WEIGHTS)
        ours = network(batch).logits["masked_lm"]
        assert (plain(batch).logits["masked_lm"] - ours).abs().max() > 0.01
        written = config.to_hugging_face("masked_lm", specials=SpecialTokens(vocabulary_size=200, pad_id=0))
        hub.write_model(tmp_path, written, weights.export_weights(network, modernbert.WEIGHTS))
        again = transformers.ModernBertForMaskedLM.from_pretrained(tmp_path).eval()
        torch.testing.assert_close(again(batch.tokens).logits[0], ours, atol=1e-4, rtol=1e-4)
        gradients = {}
        for model, logits in ((network, ours), (again, again(batch.tokens).logits[0])):
            logits.log_softmax(-1)[:, 0].sum().backward()
            gradients[model] = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        found = weights.to_hugging_face(gradients[network], modernbert.WEIGHTS)
        assert found.keys() == gradients[again].keys()
        for key, gradient in gradients[again].items():
            scale = max(float(gradient.abs().max()), 1.0)
            torch.testing.assert_close(found[key], gradient, rtol=1e-3, atol=1e-4 * scale, msg=key)


@pytest.mark.parametrize(
    ("values", "error", "named"),
    [
        ({"rope_scaling": {"rope_type": "longrope", "factor": 8.0}}, UnsupportedError, "longrope.*modern"),
        ({"rope_scaling": {"type": "linear", "factor": 8.0}}, UnsupportedError, "'linear'.*rope_type"),
        ({"rope_parameters": {"sliding_attention": {"rope_type": "linear", "factor": 2.0,
                                                    "partial_rotary_factor": 0.5}}},
         UnsupportedError, "partial_rotary_factor 0.5"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 2.0, "truncate": False}}, ConfigError, "truncate"),
        ({"rope_scaling": {"rope_type": "linear"}}, ConfigError, "factor"),
        ({"hidden_size": 24, "rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, ConfigError, "4 dim"),
    ],
)  # fmt: skip
def test_a_stretching_that_is_not_computed_is_refused(
    values: dict[str, Any], error: type[Exception], named: str
) -> None:
    with pytest.raises(error, match=named):
        modernbert.Config.from_hugging_face(values)


def test_first_values_spread_as_in_stock() -> None:
    torch.manual_seed(0)
    for cls, head in (
        (transformers.ModernBertForMaskedLM, "masked_lm"),
        (transformers.ModernBertForSequenceClassification, "classification"),
    ):
        config = transformers.ModernBertConfig(**SHAPE, num_labels=50)
        operations = weight_operations(modernbert, modernbert.tiny_config(), (head,))
        expected = weights.from_hugging_face(cls(config).state_dict(), operations)
        ours = modernbert.Network(
            modernbert.Config.from_hugging_face(SHAPE), heads=(head,), num_labels=50
        ).named_parameters()
        for name, parameter in ours:
            if parameter.ndim > 1:  # a deviation of n values is known to 1 / sqrt(2 n), here 2 %
                assert float(parameter.detach().std()) == pytest.approx(
                    float(expected[name].std()), rel=0.07
                ), name
                cut = float(expected[name].abs().max())
                assert float(parameter.detach().abs().max()) <= cut * 1.05, name
            else:
                assert torch.equal(parameter, expected[name]), name


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ({}, ("full_attention", *["sliding_attention"] * 2) * 7 + ("full_attention",)),
        ({"global_attn_every_n_layers": 1}, ("full_attention",) * 22),
        ({"num_hidden_layers": 2, "layer_types": ["sliding_attention", "full_attention"]},
         ("sliding_attention", "full_attention")),
    ],
)  # fmt: skip
def test_what_each_layer_sees_is_read_in_both_forms(values: dict[str, Any], found: tuple[str, ...]) -> None:
    assert modernbert.Config.from_hugging_face(values).layer_attention_types == found
    assert tuple(transformers.ModernBertConfig(**values).layer_types) == found


@pytest.mark.parametrize(
    ("values", "thetas"),
    [
        ({}, (160_000.0, 10_000.0)),
        ({"global_rope_theta": 5e4, "local_rope_theta": 2e4}, (5e4, 2e4)),
        ({"rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 1e6},
                              "sliding_attention": {"rope_type": "default", "rope_theta": 3e4}}}, (1e6, 3e4)),
    ],
)  # fmt: skip
def test_the_bases_of_the_positions_are_read_in_both_forms(values: dict[str, Any], thetas: Any) -> None:
    config = modernbert.Config.from_hugging_face(values)
    assert (config.global_rope_theta, config.local_rope_theta) == thetas
    stock = transformers.ModernBertConfig(**values).rope_parameters
    assert (stock["full_attention"]["rope_theta"], stock["sliding_attention"]["rope_theta"]) == thetas
