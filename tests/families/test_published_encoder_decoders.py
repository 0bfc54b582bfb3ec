"""The encoder-decoders that were published, at their full size: as many parameters, and what stock says."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from transformers import initialization

from pretune.checkpoint import weights
from pretune.families import bart, t5, transformer
from pretune.types import Batch, Layout

pytestmark = pytest.mark.slow


def drawn(network_class: Any, config: Any) -> Any:
    """A stock network at values that take a second to draw, not a minute: no two parameters alike."""
    with initialization.no_init_weights():
        network = network_class(config)
    network.tie_weights()
    torch.manual_seed(0)
    for parameter in network.parameters():
        if parameter.ndim > 1:
            parameter.normal_(std=0.04)
        else:
            parameter.normal_(mean=1.0, std=0.1)
    return network.eval()


@pytest.mark.parametrize(
    ("family", "network_class", "config", "parameters"),
    [
        (t5, transformers.T5ForConditionalGeneration, transformers.T5Config(), 60_506_624),
        (bart, transformers.BartForConditionalGeneration,
         transformers.BartConfig(
             d_model=768, encoder_layers=6, decoder_layers=6, encoder_attention_heads=12,
             decoder_attention_heads=12, encoder_ffn_dim=3072, decoder_ffn_dim=3072,
         ), 139_420_416 + 50_265),
        (transformer, transformers.MarianMTModel,
         transformers.MarianConfig(
             d_model=512, encoder_layers=6, decoder_layers=6, encoder_attention_heads=8,
             decoder_attention_heads=8, encoder_ffn_dim=2048, decoder_ffn_dim=2048, scale_embedding=True,
             max_position_embeddings=512, activation_function="swish",
         ), 73_886_208 + 58_101),
    ],
    ids=["t5-small", "bart-base", "opus-mt"],
)  # fmt: skip
@torch.no_grad()
def test_a_published_encoder_decoder_says_what_stock_says(
    family: Any, network_class: Any, config: Any, parameters: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bias of the logits, which stock does not count, is counted."""
    stock = drawn(network_class, config)
    for module in stock.modules():
        if hasattr(module, "create_weight"):  # sinusoids, which are not drawn
            module.weight.copy_(module.create_weight())
    monkeypatch.setattr(family.Network, "reset_parameters", lambda self: None)
    network = family.Network(family.Config.from_hugging_face(config.to_dict())).eval()
    assert sum(p.numel() for p in network.parameters()) == parameters
    assert weights.load_weights(network, stock.state_dict(), family.WEIGHTS) == []
    source, target = torch.randint(30_000, (2, 300)), torch.randint(30_000, (2, 140))
    lengths = torch.tensor([300, 130])
    batch = Batch(
        target, Layout(lengths=torch.tensor([140, 140])), source_tokens=source,
        source_layout=Layout(lengths=lengths),
    )  # fmt: skip
    ours = network(batch).logits["causal_lm"]
    mask = (torch.arange(300) < lengths[:, None]).long()
    theirs = stock(input_ids=source, attention_mask=mask, decoder_input_ids=target).logits.flatten(0, 1)
    spread = float(theirs.std())
    assert spread > 0.01
    torch.testing.assert_close(ours / spread, theirs / spread, atol=2e-3, rtol=1e-3)
