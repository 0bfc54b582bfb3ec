"""The networks that were published, at their full size: as many parameters, and what stock says."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from transformers import initialization

from pretune.checkpoint import weights
from pretune.families import gpt2, modernbert
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
    ("family", "head", "network_class", "config", "parameters"),
    [
        (gpt2, "causal_lm", transformers.GPT2LMHeadModel, transformers.GPT2Config(), 124_439_808),
        (modernbert, "masked_lm", transformers.ModernBertForMaskedLM, transformers.ModernBertConfig(),
         149_655_232),
    ],
    ids=["gpt2-124m", "modernbert-base"],
)  # fmt: skip
@torch.no_grad()
def test_a_published_shape_says_what_stock_says(
    family: Any, head: str, network_class: Any, config: Any, parameters: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    stock = drawn(network_class, config)
    monkeypatch.setattr(family.Network, "reset_parameters", lambda self: None)
    network = family.Network(family.Config.from_hugging_face({"model_type": family.__name__})).eval()
    assert sum(p.numel() for p in network.parameters()) == parameters
    assert weights.load_into(network, stock.state_dict(), family.WEIGHTS) == []
    tokens = torch.randint(50_000, (2, 150))
    batch = Batch(tokens, Layout(lengths=torch.tensor([150, 150])))
    ours = network(batch, heads=(head,)).logits[head]
    theirs = stock(tokens).logits.flatten(0, 1)
    assert theirs.std() > 0.5
    torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=1e-4)
