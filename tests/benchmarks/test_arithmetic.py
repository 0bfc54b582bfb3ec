"""The fixed formula of operations."""

from __future__ import annotations

import importlib

import torch
from torch import nn

arithmetic = importlib.import_module("benchmarks.arithmetic")


def test_the_formula_by_hand() -> None:
    shape = {"layers": 2, "width": 8, "length": 16, "body": 1000, "head": 500}
    assert arithmetic.operations_per_token(**shape, share=0.25, causal=False) == 6000 + 750 + 3072
    assert arithmetic.operations_per_token(**shape, share=1.0, causal=True) == 6000 + 3000 + 1536


def test_an_embedding_that_is_looked_up_is_no_product() -> None:
    network = nn.ModuleDict({
        "embedding": nn.Embedding(100, 8), "layer": nn.Linear(8, 8),
        "heads": nn.ModuleDict({"causal_lm": nn.Linear(8, 100, bias=False)}),
    })  # fmt: skip
    assert arithmetic.matmul_parameters(network) == (64, 800)


def test_the_formula_is_what_torch_counts_of_a_linear_layer() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    layer, rows = nn.Linear(32, 48, bias=False), torch.randn(10, 32, requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        layer(rows).sum().backward()
    formula = arithmetic.operations_per_token(
        layers=0, width=0, length=0, body=32 * 48, head=0, share=0.0, causal=False
    )
    assert counter.get_total_flops() == 10 * formula
