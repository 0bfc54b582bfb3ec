"""What T5 has beyond the suite: its buckets of distances, the block without a gate, and odd folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers.models.t5.modeling_t5 import T5Attention

from pretune import config as settings
from pretune.checkpoint import hub, weights
from pretune.errors import ConfigError, UnsupportedError
from pretune.families import t5
from pretune.nn.positions import RelativePositionBias
from pretune.types import Batch, Layout


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("buckets", "longest"), [(32, 128), (32, 100), (8, 12), (64, 1000)])
def test_distances_fall_into_the_buckets_of_stock(causal: bool, buckets: int, longest: int) -> None:
    distances = torch.arange(-3000, 3001)
    ours = RelativePositionBias(buckets, longest, 2, causal=causal).bucket_indices(distances)
    theirs = T5Attention._relative_position_bucket(distances, not causal, buckets, longest)
    assert torch.equal(ours, theirs)


def said(network: Any, stock: Any) -> tuple[torch.Tensor, torch.Tensor]:
    source, target = torch.randint(3, 96, (2, 40)), torch.randint(3, 96, (2, 30))
    full = Layout(lengths=torch.tensor([40, 40]))
    batch = Batch(target, Layout(lengths=torch.tensor([30, 30])), source_tokens=source, source_layout=full)
    with torch.no_grad():
        ours = network(batch).logits["causal_lm"].view(2, 30, -1)
        return ours, stock(input_ids=source, decoder_input_ids=target).logits


@pytest.mark.parametrize("block", ["relu", "gated-silu", "gelu"])
def test_other_feed_forward_blocks_are_those_of_stock(block: str, tmp_path: Path) -> None:
    network = t5.Network(t5.tiny_config().model_copy(update={"feed_forward_proj": block})).eval()
    tensors = weights.export_weights(network, t5.WEIGHTS)
    hub.write_model(tmp_path, network.config.to_hugging_face("causal_lm"), tensors)
    stock, told = transformers.T5ForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert not told["missing_keys"]
    assert not told["unexpected_keys"]
    torch.testing.assert_close(*said(network, stock.eval()), atol=1e-4, rtol=1e-4)


def test_a_new_model_of_v1_1_that_transformers_has_tied_is_read(tmp_path: Path) -> None:
    """It says that it is tied, does not scale, and saves no head."""
    values = t5.tiny_config().model_copy(update={"tie_word_embeddings": False}).to_hugging_face("causal_lm")
    values = {key: value for key, value in values.items() if key != "scale_decoder_outputs"}
    stock = transformers.T5ForConditionalGeneration(transformers.T5Config(**values)).eval()
    stock.save_pretrained(tmp_path)
    tensors = hub.read_tensors(tmp_path)
    assert "lm_head.weight" not in tensors
    network = t5.Network(t5.Config.from_hugging_face(hub.read_config(tmp_path))).eval()
    assert weights.load_weights(network, tensors, t5.WEIGHTS) == []
    torch.testing.assert_close(*said(network, stock), atol=1e-4, rtol=1e-4)


def test_a_config_means_what_it_means_to_transformers() -> None:
    assert t5.Config.from_hugging_face({}).inner_size == 2048
    assert t5.Config.from_hugging_face({}).tie_word_embeddings
    assert t5.Config.from_hugging_face({"num_layers": 5}).decoder_layers == 5
    assert not t5.Config.from_hugging_face({"tie_word_embeddings": False}).tie_word_embeddings
    multilingual = t5.Config.from_hugging_face({"model_type": "mt5"})
    assert (multilingual.feed_forward_proj, multilingual.tie_word_embeddings) == ("gated-gelu", False)
    with pytest.raises(UnsupportedError, match="longt5"):
        t5.Config.from_hugging_face({"model_type": "longt5"})


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"feed_forward_proj": "gated"}, "gated-gelu"),
        ({"hidden_size": 100, "num_attention_heads": 3}, "no multiple of 3 heads"),
        ({"relative_attention_num_buckets": 30}, "no multiple of 4"),
        ({"relative_attention_max_distance": 16}, "more than half of the 32 buckets"),
        ({"model_type": "mt5", "tie_word_embeddings": True}, "has a head of its own"),
    ],
)
def test_a_wrong_value_is_named(values: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        settings.build_settings(t5.Config, values)
