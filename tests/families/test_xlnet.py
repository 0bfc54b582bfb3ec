"""XLNet beside stock: memory, segments, its published shape, half precision, and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import transformers
from transformers import initialization

from pretune.checkpoint import weights
from pretune.errors import UnsupportedError
from pretune.families import xlnet
from pretune.nn.cache import SegmentMemory
from pretune.types import Batch, Layout

HEAD = "permutation_lm"


def pair(**changes: Any) -> tuple[Any, Any]:
    """Ours and stock's, of the same weights."""
    torch.manual_seed(0)
    config = xlnet.tiny_config().model_copy(update=changes)
    stock = transformers.XLNetLMHeadModel(transformers.XLNetConfig(**config.to_hugging_face(HEAD))).eval()
    with torch.no_grad():
        for parameter in stock.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    network = xlnet.Network(config, heads=(HEAD,)).eval()
    weights.load_weights(network, stock.state_dict(), xlnet.WEIGHTS)
    return network, stock


def asked(
    rows: int, width: int, vocabulary: int = 96, seed: int = 0
) -> tuple[Batch, dict[str, torch.Tensor]]:
    """A full grid with segments whose last sixth of a drawn order is asked for, for us and for stock."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(3, vocabulary, (rows, width), generator=generator)
    segments = (torch.arange(width) > width // 2).long().expand(rows, -1)
    ranks = torch.stack([torch.randperm(width, generator=generator) for _ in range(rows)])
    number = max(1, width // 6)
    order = (ranks - (width - number)).clamp(min=-1)
    places = (order.flatten() >= 0).nonzero()[:, 0]
    layout = Layout(torch.full((rows,), width), segments=segments, order=order)
    mapping = torch.zeros(rows, number, width)
    mapping[places // width, torch.arange(number).repeat(rows), places % width] = 1
    seen = (order[:, None, :] < 0) | (order[:, None, :] < order[:, :, None])
    inputs = {
        "input_ids": tokens,
        "token_type_ids": segments,
        "perm_mask": (~seen | torch.eye(width, dtype=torch.bool)).float(),
        "target_mapping": mapping,
    }
    return Batch(tokens, layout, positions={HEAD: places}), inputs


@pytest.mark.parametrize("width", [7, 8])
@pytest.mark.parametrize("length", [3, 8, 100])
@torch.no_grad()
def test_a_memory_is_that_of_stock(width: int, length: int) -> None:
    network, stock = pair(clamp_len=6)
    stock.transformer.mem_len = length
    memory, mems = SegmentMemory(length), None
    for step in range(4):
        batch, inputs = asked(3, width, seed=step)
        found = network(batch, heads=(HEAD,), cache=memory).logits[HEAD]
        outputs = stock(**inputs, mems=mems, use_mems=True)
        mems = outputs.mems
        torch.testing.assert_close(found, outputs.logits.flatten(0, 1), atol=1e-5, rtol=1e-4)
        assert memory.size == mems[0].shape[0] == min(length, width * (step + 1))


@torch.no_grad()
def test_a_memory_serves_what_stands_there_too() -> None:
    """Without an order: the hidden states behind a memory are those of stock."""
    network, stock = pair()
    memory, mems = SegmentMemory(8), None
    stock.transformer.mem_len = 8
    for step in range(3):
        batch, inputs = asked(2, 6, seed=step)
        batch = replace(batch, positions={}, layout=replace(batch.layout, order=None))
        found = network(batch, heads=(), cache=memory).hidden
        told = {key: inputs[key] for key in ("input_ids", "token_type_ids")}
        outputs = stock.transformer(**told, mems=mems, use_mems=True)
        mems = outputs.mems
        torch.testing.assert_close(found, outputs.last_hidden_state, atol=1e-5, rtol=1e-4)


def test_no_gradient_flows_through_a_memory() -> None:
    network, _ = pair()
    memory = SegmentMemory(8)
    first, second = asked(2, 6)[0], asked(2, 6, seed=1)[0]
    network(first, heads=(HEAD,), cache=memory)
    network(second, heads=(HEAD,), cache=memory).logits[HEAD].sum().backward()
    only = sorted(set(first.tokens.flatten().tolist()) - set(second.tokens.flatten().tolist()))
    network.zero_grad()
    hidden = network(
        replace(second, layout=replace(second.layout, order=None)), heads=(), cache=memory
    ).hidden
    hidden.square().sum().backward()
    assert (network.embedding.weight.grad[only] == 0).all()
    assert (network.embedding.weight.grad[second.tokens.flatten()] != 0).any()


@pytest.mark.parametrize("way", ["cast", "autocast"])
def test_half_precision_says_nearly_the_same(way: str) -> None:
    network, _ = pair()
    batch, _ = asked(2, 12)
    exact = network(batch, heads=(HEAD,)).logits[HEAD].detach()
    if way == "cast":
        network = network.bfloat16()
    with torch.autocast("cpu", torch.bfloat16, enabled=way == "autocast"):
        rough = network(batch, heads=(HEAD,)).logits[HEAD]
    rough.float().square().mean().backward()
    assert rough.dtype == torch.bfloat16
    assert ((rough.detach().float() - exact).norm() / exact.norm()).item() < 0.02
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_two_heads_at_once_are_refused_in_permuted_order() -> None:
    network = xlnet.Network(xlnet.tiny_config(), heads=(HEAD, "classification"), num_labels=2)
    batch, _ = asked(2, 6)
    with pytest.raises(UnsupportedError, match="alone"):
        network(batch, heads=(HEAD, "classification"))


@pytest.mark.slow
@torch.no_grad()
def test_the_published_shape_says_what_stock_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """xlnet-base-cased: 12 x 768, in permuted order and without."""
    shape = {"model_type": "xlnet", "d_model": 768, "n_layer": 12, "n_head": 12, "d_inner": 3072}
    with initialization.no_init_weights():
        stock = transformers.XLNetLMHeadModel(transformers.XLNetConfig(**shape)).eval()
    stock.tie_weights()
    torch.manual_seed(0)
    for name, parameter in stock.named_parameters():
        parameter.normal_(mean=float("norm.weight" in name), std=0.04)
    monkeypatch.setattr(xlnet.Network, "reset_parameters", lambda self: None)
    network = xlnet.Network(xlnet.Config.from_hugging_face(shape), heads=(HEAD,)).eval()
    # As published: 116,718,336 without the bias of the vocabulary's head.
    assert sum(p.numel() for p in network.parameters()) == 116_718_336 + 32_000
    assert weights.load_weights(network, stock.state_dict(), xlnet.WEIGHTS) == []
    batch, inputs = asked(2, 64, 32_000)
    theirs = stock(**inputs).logits.flatten(0, 1)
    assert theirs.std() > 0.5
    torch.testing.assert_close(network(batch, heads=(HEAD,)).logits[HEAD], theirs, atol=1e-3, rtol=1e-4)
