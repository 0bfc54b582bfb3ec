"""Every family in bfloat16 says what it says in float32, but for bfloat16's rounding, and learns in it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from pretune import registry
from pretune.nn.heads import VocabularyHead
from pretune.types import Batch, Layout

LENGTHS = (9, 4, 12)
ROUNDING = 2.0**-8
"""Of a value in bfloat16, relative to it: 8 bits of significand."""


def cases() -> Iterator[Any]:
    for name in registry.list_names("families"):
        family = registry.find("families", name)
        if family.TRAITS.architecture == "encoder-decoder":
            continue
        for model_type in family.MODEL_TYPES:
            yield from (
                pytest.param(family, model_type, head, id=f"{model_type}-{head}") for head in family.HEADS
            )


def network_of(family: Any, model_type: str, head: str) -> Any:
    values = {**family.tiny_config().to_hugging_face(head), "model_type": model_type}
    torch.manual_seed(0)
    return family.Network(family.Config.from_hugging_face(values), heads=(head,), num_labels=3).eval()


def grid() -> Batch:
    tokens = torch.randint(3, 96, (3, 12), generator=torch.Generator().manual_seed(1))
    return Batch(tokens, Layout(lengths=torch.tensor(LENGTHS)))


@pytest.mark.parametrize(("family", "model_type", "head"), list(cases()))
@pytest.mark.parametrize("way", ["cast", "autocast"])
def test_bfloat16_changes_rounding_only(family: Any, model_type: str, head: str, way: str) -> None:
    network, batch = network_of(family, model_type, head), grid()
    exact = network(batch, heads=(head,)).logits[head]
    if way == "cast":
        rough = network_of(family, model_type, head).bfloat16()(batch, heads=(head,)).logits[head].float()
    else:
        with torch.autocast("cpu", torch.bfloat16):
            rough = network(batch, heads=(head,)).logits[head].float()
    if family.HEADS[head].pooling(network.config) == "all":
        real = (torch.arange(12) < batch.layout.lengths[:, None]).flatten()
        exact, rough = exact[real], rough[real]
    error = (rough - exact).norm() / exact.norm()
    assert 0 < error < 8 * ROUNDING  # a rounding after each of some ten maps; it grows with their root


@pytest.mark.parametrize(("family", "model_type", "head"), list(cases()))
def test_a_loss_in_bfloat16_has_gradients_near_those_in_float32(
    family: Any, model_type: str, head: str
) -> None:
    network, batch = network_of(family, model_type, head), grid()
    if not isinstance(network.heads[head], VocabularyHead):
        pytest.skip("its loss is computed outside the network")
    batch = Batch(batch.tokens, batch.layout, positions={head: torch.arange(8)})
    targets = {head: torch.arange(40, 48)}
    found = []
    for enabled in (False, True):
        network.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            loss = network(batch, heads=(head,), targets=targets).sums[head]
        loss.backward()
        gradients = [p.grad.flatten() for p in network.parameters() if p.grad is not None]
        assert all(gradient.dtype == torch.float32 for gradient in gradients)
        found.append((loss.item(), torch.cat(gradients)))
    (exact, slope), (rough, other) = found
    assert rough == pytest.approx(exact, rel=1e-2)
    assert (other - slope).norm() < 0.05 * slope.norm()
