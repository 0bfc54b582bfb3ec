"""What the Transformer has beyond the suite: its sinusoids, Marian's configs, and real shapes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers.models.marian.modeling_marian import MarianSinusoidalPositionalEmbedding

from pretune import config as settings
from pretune.checkpoint import hub, weights
from pretune.errors import ConfigError, UnsupportedError
from pretune.families import transformer
from pretune.nn.positions import sinusoids
from pretune.types import Batch, Layout


@pytest.mark.parametrize("size", [2, 32, 512])
def test_sinusoids_are_those_of_marian_and_of_the_paper(size: int) -> None:
    ours = sinusoids(torch.arange(600)[None], size)[0]
    torch.testing.assert_close(ours, MarianSinusoidalPositionalEmbedding(600, size).create_weight())
    i = size // 4
    assert float(ours[7, i]) == pytest.approx(
        float(torch.tensor(7 / 10000 ** (2 * i / size)).sin()), abs=1e-6
    )


@torch.no_grad()
def test_a_folder_as_translation_models_are_published_is_read(tmp_path: Path) -> None:
    """Swish, embeddings not scaled, a bias of the logits, sinusoids among the weights."""
    values = transformer.tiny_config().to_hugging_face("causal_lm") | {
        "activation_function": "swish", "scale_embedding": False, "pad_token_id": 95,
        "decoder_start_token_id": 95, "eos_token_id": 0, "static_position_embeddings": True,
        "normalize_embedding": False, "add_final_layer_norm": False, "extra_pos_embeddings": 96,
    }  # fmt: skip
    torch.manual_seed(0)
    stock = transformers.MarianMTModel(transformers.MarianConfig(**values)).eval()
    stock.final_logits_bias.normal_()
    hub.write_model(tmp_path, values, stock.state_dict())
    assert "model.encoder.embed_positions.weight" in hub.read_tensors(tmp_path)
    network = transformer.Network(transformer.Config.from_hugging_face(hub.read_config(tmp_path))).eval()
    assert weights.load_weights(network, hub.read_tensors(tmp_path), transformer.WEIGHTS) == []
    source, target = torch.randint(1, 95, (2, 40)), torch.randint(1, 95, (2, 48))
    batch = Batch(
        target, Layout(lengths=torch.tensor([48, 48])), source_tokens=source,
        source_layout=Layout(lengths=torch.tensor([40, 40])),
    )  # fmt: skip
    expected = stock(input_ids=source, decoder_input_ids=target).logits
    found = network(batch).logits["causal_lm"].view(2, 48, -1)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_a_text_may_be_longer_than_it_was_meant_for() -> None:
    longer = Layout(lengths=torch.tensor([200]))
    tokens = torch.randint(3, 96, (1, 200))
    batch = Batch(tokens, longer, source_tokens=tokens, source_layout=longer)
    assert transformer.Network(transformer.tiny_config())(batch).logits["causal_lm"].isfinite().all()


def test_a_config_means_what_it_means_to_transformers() -> None:
    config = transformer.Config.from_hugging_face({})
    assert (config.hidden_size, config.decoder_layers, config.hidden_act) == (1024, 12, "gelu")
    assert (config.dropout, config.scale_embedding) == (0.1, False)
    for values, named in (
        ({"share_encoder_decoder_embeddings": False}, "share_encoder_decoder_embeddings"),
        ({"vocab_size": 9, "decoder_vocab_size": 8}, "decoder_vocab_size"),
        ({"normalize_before": True}, "normalize_before"),
    ):
        with pytest.raises(UnsupportedError, match=named):
            transformer.Config.from_hugging_face(values)


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"hidden_size": 100, "num_attention_heads": 3}, "no multiple of 3 heads"),
        ({"hidden_size": 33, "num_attention_heads": 3}, "33 is odd"),
    ],
)
def test_a_wrong_value_is_named(values: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        settings.build_settings(transformer.Config, values)
