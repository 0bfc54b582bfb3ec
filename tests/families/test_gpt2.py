"""GPT-2: its first values, and the end of its positions."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import transformers

from pretune.checkpoint import weights
from pretune.errors import UnsupportedError
from pretune.families import gpt2
from pretune.nn.cache import KVCache
from pretune.types import Batch, Layout


def grid(rows: int, width: int, vocabulary: int) -> Batch:
    tokens = torch.randint(vocabulary, (rows, width), generator=torch.Generator().manual_seed(2))
    return Batch(tokens, Layout(lengths=torch.full((rows,), width)))


def test_first_values_spread_as_in_stock() -> None:
    shape = {"n_embd": 96, "n_layer": 8, "n_head": 4, "vocab_size": 200, "n_positions": 64}
    torch.manual_seed(0)
    stock = transformers.GPT2LMHeadModel(transformers.GPT2Config(**shape))
    network = gpt2.Network(gpt2.Config.from_hugging_face(shape))
    expected = weights.from_hugging_face(stock.state_dict(), gpt2.WEIGHTS)
    for name, parameter in network.named_parameters():
        if parameter.ndim > 1:  # a deviation of n values is known to 1 / sqrt(2 n), here a percent
            assert float(parameter.detach().std()) == pytest.approx(float(expected[name].std()), rel=0.04), (
                name
            )
        else:
            assert torch.equal(parameter, expected[name]), name


@torch.no_grad()
def test_a_row_may_end_at_the_last_position_beside_longer_steps() -> None:
    """The padding behind a nearly full row lies beyond the last position, which has no embedding."""
    network = gpt2.Network(gpt2.tiny_config()).eval()
    whole = grid(2, 48, 96)
    expected = network(whole, heads=()).hidden
    cache = KVCache()
    first = replace(whole, tokens=whole.tokens[:, :46], layout=Layout(lengths=torch.tensor([46, 30])))
    network(first, heads=(), cache=cache)
    tokens = torch.zeros(2, 9, dtype=torch.long)
    tokens[0, :2], tokens[1] = whole.tokens[0, 46:], whole.tokens[1, 30:39]
    layout = Layout(lengths=torch.tensor([2, 9]), cache_lengths=cache.lengths)
    hidden = network(Batch(tokens, layout), heads=(), cache=cache).hidden
    torch.testing.assert_close(hidden[0, :2], expected[0, 46:], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(hidden[1], expected[1, 30:39], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("by_width", [True, False])
@pytest.mark.parametrize("by_layer", [True, False])
@torch.no_grad()
def test_products_are_scaled_as_in_stock(by_width: bool, by_layer: bool) -> None:
    shape = {"n_embd": 64, "n_layer": 4, "n_head": 4, "vocab_size": 200, "n_positions": 64}
    scales = {"scale_attn_weights": by_width, "scale_attn_by_inverse_layer_idx": by_layer}
    torch.manual_seed(0)
    config = transformers.GPT2Config(**shape, **scales, initializer_range=0.2)
    stock = transformers.GPT2LMHeadModel(config).eval()
    network = gpt2.Network(gpt2.Config.from_hugging_face(config.to_dict())).eval()
    assert weights.load_weights(network, stock.state_dict(), gpt2.WEIGHTS) == []
    batch = grid(2, 40, 200)
    expected = stock(batch.tokens).logits.flatten(0, 1)
    torch.testing.assert_close(network(batch).logits["causal_lm"], expected, atol=1e-4, rtol=1e-4)
    written = network.config.to_hugging_face("causal_lm")
    assert scales.items() <= transformers.GPT2Config(**written).to_dict().items()


def test_too_long_a_row_is_refused() -> None:
    network = gpt2.Network(gpt2.tiny_config()).eval()
    with pytest.raises(UnsupportedError, match="49 tokens; this model has 48 positions"):
        network(grid(1, 49, 96), heads=())
    layout = Layout(lengths=torch.tensor([1]), cache_lengths=torch.tensor([48]))
    with pytest.raises(UnsupportedError, match="49 tokens"):
        network(Batch(torch.zeros(1, 1, dtype=torch.long), layout), heads=())
