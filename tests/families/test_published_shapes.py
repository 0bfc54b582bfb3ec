"""The networks that were published, at their full size: as many parameters, and what stock says."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from transformers import initialization

from pretune.checkpoint import weights
from pretune.families import distilbert, gpt1, gpt2, gpt3, gpt_neox, modernbert, roberta
from pretune.types import Batch, Layout

pytestmark = pytest.mark.slow
WIDTH = 300
"""Places: more than the windows of GPT-Neo and ModernBERT."""


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
    ("family", "head", "network_class", "values", "parameters"),
    [
        (gpt1, "causal_lm", "OpenAIGPTLMHeadModel", {}, 116_534_784),
        (gpt2, "causal_lm", "GPT2LMHeadModel", {}, 124_439_808),
        (gpt3, "causal_lm", "GPTNeoForCausalLM",
         {"hidden_size": 768, "num_layers": 12, "num_heads": 12,
          "attention_types": [[["global", "local"], 6]]}, 125_198_592),
        (gpt_neox, "causal_lm", "GPTNeoXForCausalLM",
         {"hidden_size": 512, "num_hidden_layers": 6, "num_attention_heads": 8, "intermediate_size": 2048,
          "vocab_size": 50304}, 70_426_624),
        (distilbert, "masked_lm", "DistilBertForMaskedLM", {}, 66_985_530),
        (modernbert, "masked_lm", "ModernBertForMaskedLM", {}, 149_655_232),
        (roberta, "masked_lm", "RobertaForMaskedLM",
         {"max_position_embeddings": 514, "type_vocab_size": 1, "layer_norm_eps": 1e-5}, 124_697_433),
    ],
    ids=["gpt", "gpt2-124m", "gpt-neo-125m", "pythia-70m", "distilbert-base", "modernbert-base",
         "roberta-base"],
)  # fmt: skip
@torch.no_grad()
def test_a_published_shape_says_what_stock_says(
    family: Any,
    head: str,
    network_class: str,
    values: dict[str, Any],
    parameters: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kind = getattr(transformers, network_class)
    stock = drawn(kind, kind.config_class(**values))
    monkeypatch.setattr(family.Network, "reset_parameters", lambda self: None)
    values = {"model_type": kind.config_class.model_type, **values}
    network = family.Network(family.Config.from_hugging_face(values), heads=(head,)).eval()
    assert sum(p.numel() for p in network.parameters()) == parameters
    assert weights.load_weights(network, stock.state_dict(), family.WEIGHTS) == []
    tokens = torch.randint(3, 30_000, (1, WIDTH))
    ours = network(Batch(tokens, Layout(lengths=torch.tensor([WIDTH]))), heads=(head,)).logits[head]
    theirs = stock(tokens).logits.flatten(0, 1)
    assert theirs.std() > 0.5
    torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=1e-4)
