"""Activations mean what config.json means by their names."""

from __future__ import annotations

import pytest
import torch
from transformers.activations import ACT2FN

from pretune.nn.feedforward import ACTIVATIONS


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_is_that_of_transformers(name: str) -> None:
    values = torch.linspace(-8, 8, 1001, dtype=torch.float64)
    found, expected = ACTIVATIONS[name](values), ACT2FN[name](values)
    torch.testing.assert_close(found, expected, atol=1e-7, rtol=1e-6)
