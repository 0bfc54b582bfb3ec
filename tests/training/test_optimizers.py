"""Muon against its definition and torch's own; which parameters it takes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pretune.families import bert
from pretune.training import optimizers
from pretune.training.muon import Muon, orthogonalised
from pretune.training.settings import OptimizerSettings


@pytest.mark.parametrize("shape", [(3, 16, 16), (2, 16, 48), (2, 48, 16)])
def test_singular_values_come_near_one(shape: tuple[int, int, int]) -> None:
    """The published coefficients leave singular values between about 0.7 and 1.2, unless tiny before."""
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonalised(torch.randn(shape)))
    assert float(values.max()) < 1.3
    assert float(values.median()) > 0.65


def test_equals_torch_muon() -> None:
    """Torch iterates in bfloat16, hence the tolerance; scale and momentum are the original's in both."""
    torch.manual_seed(0)
    ours, theirs = nn.Parameter(torch.randn(24, 8)), nn.Parameter(torch.zeros(24, 8))
    theirs.data.copy_(ours.data)
    mine = Muon([ours], lr=0.02, weight_decay=0.1)
    torchs = torch.optim.Muon([theirs], lr=0.02, weight_decay=0.1, momentum=0.95, adjust_lr_fn="original")
    for _ in range(3):
        gradient = torch.randn(24, 8)
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        mine.step()
        torchs.step()
    assert (ours - theirs).abs().max() < 3e-3  # three updates of length 0.02 * sqrt(3), to 3 %


def test_muon_takes_hidden_matrices_only() -> None:
    network = bert.Network(bert.tiny_config(), heads=("masked_lm",))
    muon, adamw = optimizers.build(network, OptimizerSettings(name="muon")).parts
    names = {p: n for n, p in network.named_parameters()}
    taken = {names[p] for group in muon.param_groups for p in group["params"]}
    left = {names[p] for group in adamw.param_groups for p in group["params"]}
    assert all(name.startswith("layers.") for name in taken)
    assert taken | left == set(names.values())
    assert not taken & left
    assert {n for n in names.values() if "embedding" in n or n.startswith("heads.")} <= left
    decayed = adamw.param_groups[0]["params"]
    assert all(p.ndim >= 2 for p in decayed)
    assert adamw.param_groups[1]["weight_decay"] == 0.0
