"""What BART has beyond the suite: configs, scaled embeddings, and the end of its positions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from pretune import config as settings
from pretune.checkpoint import hub, weights
from pretune.errors import CheckpointError, ConfigError, UnsupportedError
from pretune.families import bart
from pretune.types import Batch, Layout


def pairs(source: int, target: int) -> Batch:
    return Batch(
        torch.randint(3, 96, (1, target)), Layout(lengths=torch.tensor([target])),
        source_tokens=torch.randint(3, 96, (1, source)), source_layout=Layout(lengths=torch.tensor([source])),
    )  # fmt: skip


@torch.no_grad()
def test_scaled_embeddings_and_another_activation_are_those_of_stock(tmp_path: Path) -> None:
    config = bart.tiny_config().model_copy(update={"scale_embedding": True, "hidden_act": "relu"})
    network = bart.Network(config).eval()
    hub.write_model(
        tmp_path, config.to_hugging_face("causal_lm"), weights.export_weights(network, bart.WEIGHTS)
    )
    stock = transformers.BartForConditionalGeneration.from_pretrained(tmp_path).eval()
    batch = pairs(48, 48)  # all positions
    expected = stock(input_ids=batch.source_tokens, decoder_input_ids=batch.tokens).logits[0]
    torch.testing.assert_close(network(batch).logits["causal_lm"], expected, atol=1e-4, rtol=1e-4)


def test_a_checkpoint_without_a_bias_has_none(tmp_path: Path) -> None:
    network, other = bart.Network(bart.tiny_config()), bart.Network(bart.tiny_config())
    tensors = weights.export_weights(network, bart.WEIGHTS)
    assert tensors["final_logits_bias"].shape == (1, 96)
    with torch.no_grad():
        other.heads["causal_lm"].decoder.bias.fill_(1.0)  # type: ignore[union-attr, operator]
    without = {name: tensor for name, tensor in tensors.items() if name != "final_logits_bias"}
    assert weights.load_weights(other, without, bart.WEIGHTS) == []
    assert not other.heads["causal_lm"].decoder.bias.any()  # type: ignore[union-attr, operator]


def test_embeddings_that_differ_are_refused() -> None:
    tensors = weights.export_weights(bart.Network(bart.tiny_config()), bart.WEIGHTS)
    for name in ("model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight", "lm_head.weight"):
        with pytest.raises(CheckpointError, match=name):
            weights.load_weights(
                bart.Network(bart.tiny_config()), tensors | {name: torch.ones(96, 32)}, bart.WEIGHTS
            )


def test_what_is_too_long_is_refused() -> None:
    network = bart.Network(bart.tiny_config())
    for batch in (pairs(49, 3), pairs(3, 49)):
        with pytest.raises(UnsupportedError, match="a row of 49 tokens; this model has 48 positions"):
            network(batch)


def test_a_config_means_what_it_means_to_transformers() -> None:
    config = bart.Config.from_hugging_face({})
    assert (config.hidden_size, config.decoder_layers, config.decoder_inner_size) == (1024, 12, 4096)
    assert config.dropout == 0.1
    for values, named in (
        ({"encoder_layerdrop": 0.1}, "encoder_layerdrop"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings"),
        ({"normalize_before": True}, "mBART"),
    ):
        with pytest.raises(UnsupportedError, match=named):
            bart.Config.from_hugging_face(values)


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"hidden_size": 100, "num_attention_heads": 3}, "no multiple of 3 heads"),
        ({"decoder_attention_heads": 7}, "no multiple of 7 heads"),
        ({"hidden_act": "gleu"}, "gelu_new"),
    ],
)
def test_a_wrong_value_is_named(values: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        settings.build_settings(bart.Config, values)
