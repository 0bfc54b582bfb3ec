"""Muon and Adafactor against their definitions and others' own; which parameters each takes and shrinks."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers.optimization import Adafactor as ReferenceAdafactor

from pretune.config import build_settings as build_settings
from pretune.errors import ConfigError
from pretune.families import bert
from pretune.training.optimizers import optimizers
from pretune.training.optimizers.adafactor import Adafactor
from pretune.training.optimizers.muon import Muon, newton_schulz
from pretune.training.optimizers.optimizers import BUILDERS
from pretune.training.settings import OptimizerSettings


@pytest.mark.parametrize("shape", [(3, 16, 16), (2, 16, 48), (2, 48, 16)])
def test_singular_values_come_near_one(shape: tuple[int, int, int]) -> None:
    """The published coefficients leave singular values between about 0.7 and 1.2, unless tiny before."""
    torch.manual_seed(0)
    values = torch.linalg.svdvals(newton_schulz(torch.randn(shape)))
    assert float(values.max()) < 1.3
    assert float(values.median()) > 0.65


@pytest.mark.parametrize("shape", [(2, 16, 16), (2, 16, 64), (2, 64, 16), (2, 16, 40), (1, 1, 9)])
@pytest.mark.parametrize("weakest", [0, -3, -8])
def test_orthogonalised_follows_the_published_iteration(shape: tuple[int, int, int], weakest: int) -> None:
    """Whatever products it takes to get there, and however weak (10 ** ``weakest``) some directions are."""
    torch.manual_seed(0)
    left, values, right = torch.linalg.svd(torch.randn(shape), full_matrices=False)
    values = torch.logspace(0, weakest, values.shape[-1])
    expected = values.double() / (values.double().norm() + 1e-7)
    for _ in range(5):
        expected = 3.4445 * expected - 4.7750 * expected**3 + 2.0315 * expected**5
    found = newton_schulz((left * values) @ right)
    exact = (left.double() * expected) @ right.double()
    assert float((found - exact).norm() / exact.norm()) < 1e-3  # rounding of fp32, 2e-4 here


def test_no_gradient_is_no_update() -> None:
    for shape in ((1, 8, 8), (1, 8, 32)):
        assert torch.equal(newton_schulz(torch.zeros(shape)), torch.zeros(shape))


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


def test_rarer_updates_are_that_much_longer_and_take_turns() -> None:
    """Each is what an update in every step would be from there, with the rate and the decay so many times."""
    torch.manual_seed(0)
    rare, often = ([nn.Parameter(torch.zeros(24, 8)) for _ in range(4)] for _ in range(2))
    mine, usual = Muon(rare, lr=0.02, weight_decay=0.5, every=3), Muon(often, lr=0.06, weight_decay=0.5)
    moved = []
    for number in range(6):
        before = [p.detach().clone() for p in rare]
        for one, other in zip(rare, often, strict=True):
            other.data.copy_(one.data)
            one.grad = torch.randn(24, 8)
            other.grad = one.grad.clone()
        mine.param_groups[0]["number"] = number
        mine.step()
        usual.step()
        turns = [i for i in range(4) if not torch.equal(rare[i], before[i])]
        moved.append(turns)
        for i in turns:
            torch.testing.assert_close(rare[i], often[i])
        assert all(torch.equal(mine.state[a]["momentum"], usual.state[b]["momentum"])
                   for a, b in zip(rare, often, strict=True))  # fmt: skip
    assert moved == [[0, 3], [2], [1]] * 2


def test_muon_takes_hidden_matrices_only() -> None:
    network = bert.Network(bert.tiny_config(), heads=("masked_lm",))
    muon, adamw = optimizers.build_optimizers(network, OptimizerSettings(name="muon")).optimizers
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


@pytest.mark.parametrize("shape", [(24, 8), (8,), (3, 4, 5)])
def test_equals_the_reference_adafactor(shape: tuple[int, ...]) -> None:
    """Transformers', with relative step, parameter scale and momentum off."""
    torch.manual_seed(0)
    start = torch.randn(shape)
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    mine = Adafactor([ours], lr=0.02, weight_decay=0.1)
    reference = ReferenceAdafactor(
        [theirs], lr=0.02, weight_decay=0.1, relative_step=False, scale_parameter=False
    )
    for number in range(6):
        gradient = torch.randn(shape) * (1 + 5 * number)  # later ones are clipped
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        mine.step()
        reference.step()
    assert (ours - start).abs().max() > 0.02
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)  # products in another order


@pytest.mark.parametrize("name", BUILDERS)
def test_norms_and_biases_and_on_request_embeddings_do_not_decay(name: str) -> None:
    """By what an update without a gradient does: decay alone changes a weight."""
    network = bert.Network(bert.tiny_config(), heads=("masked_lm",))
    before = {n: p.detach().clone() for n, p in network.named_parameters()}
    settings = OptimizerSettings.model_validate(
        {"name": name, "decay_embeddings": False, "weight_decay": 0.5, "learning_rate": 0.1}
    )
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizers.build_optimizers(network, settings).step(1.0, 0)
    shrunk = {n for n, p in network.named_parameters() if not torch.equal(p, before[n])}
    matrices = {n for n, p in network.named_parameters() if p.ndim >= 2}
    assert shrunk == {n for n in matrices if not n.startswith("embeddings.")}


def test_a_change_in_mid_run_moves_peaks_and_decay() -> None:
    network = bert.Network(bert.tiny_config(), heads=("masked_lm",))
    made = optimizers.build_optimizers(network, OptimizerSettings(name="muon"))
    made.update_hyperparameters(
        OptimizerSettings(name="muon", learning_rate=0.25, muon_learning_rate=0.5, weight_decay=0.125)
    )
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    made.step(0.5, 0)
    muon, adamw = made.optimizers
    assert [group["lr"] for group in muon.param_groups] == [0.25]
    assert [group["lr"] for group in adamw.param_groups] == [0.125, 0.125]
    assert [group["weight_decay"] for group in (*muon.param_groups, *adamw.param_groups)] == [0.125, 0.125, 0]


def test_nesterov_without_momentum_is_refused() -> None:
    with pytest.raises(ConfigError, match="nesterov=false"):
        build_settings(OptimizerSettings, {"name": "sgd", "momentum": 0})
