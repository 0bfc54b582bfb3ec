"""The running average of the weights against its definition, and what it shows when."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pretune.errors import CheckpointError
from pretune.training.callbacks.ema import EMA


def network() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(3, 2)


def test_equals_torchs_own_average() -> None:
    """With the decay that a short run begins with, (1 + n) / (10 + n), until the asked one is smaller."""
    ours = network()
    theirs = network()
    average = EMA(ours, 0.4)
    decays: list[float] = []
    reference = torch.optim.swa_utils.AveragedModel(
        theirs, avg_fn=lambda mean, new, _: decays[-1] * mean + (1 - decays[-1]) * new
    )
    reference.n_averaged.fill_(1)  # so that the first update averages, too, and does not copy
    for number in range(1, 9):
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            step = torch.randn_like(a)
            a.data += step
            b.data += step
        decays.append(min(0.4, (1 + number) / (10 + number)))
        average.update(number)
        reference.update_parameters(theirs)
    assert 0.4 in decays
    assert decays[0] < 0.4
    with average.swapped_in():
        for a, b in zip(ours.parameters(), reference.module.parameters(), strict=True):
            torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)


def test_the_weights_come_back_as_they_were() -> None:
    made = network()
    average = EMA(made, 0.9)
    with torch.no_grad():
        made.weight += 1
    average.update(1)
    before = made.weight.detach().clone()
    with average.swapped_in() as trained:
        assert torch.equal(trained["weight"], before)
        assert not torch.equal(made.weight, before)
    assert torch.equal(made.weight, before)


def test_weights_of_another_network_are_refused() -> None:
    average = EMA(network(), 0.9)
    with pytest.raises(CheckpointError, match="another network"):
        average.restore({"weight": torch.zeros(5, 5)})
