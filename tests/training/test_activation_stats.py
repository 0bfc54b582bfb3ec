"""What is seen within a network: against sums made by hand, and at no effect on the training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import small
import torch

from pretune.training.activation_stats import ActivationStats, layer_name
from pretune.training.gradients import GradientAccumulator, never_stop


def rows(folder: Path, kind: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "seconds"} for line in lines if line["type"] == kind]


@pytest.mark.parametrize(("kind", "family"), [("masked_lm", "bert"), ("causal_lm", "llama")])
def test_watching_changes_nothing(kind: str, family: str, tmp_path: Path) -> None:
    """Bit for bit, with dropout on and several micro-batches a step."""
    seen = small.trainer(tmp_path / "seen", kind, family=family, activation_stats_every=1)
    unseen = small.trainer(tmp_path / "unseen", kind, family=family, activation_stats_every=None)
    assert seen.train().best_scores == unseen.train().best_scores
    for (name, a), b in zip(small.state(seen).items(), small.state(unseen).values(), strict=True):
        assert torch.equal(a, b), name
    assert rows(tmp_path / "seen", "step") == rows(tmp_path / "unseen", "step")
    assert len(rows(tmp_path / "seen", "activation_stats")) == 12
    assert not rows(tmp_path / "unseen", "activation_stats")


def test_norms_are_those_of_the_whole(tmp_path: Path) -> None:
    """The groups' gradients make up the gradient; every layer is seen."""
    small.trainer(tmp_path / "run", "causal_lm", family="llama", activation_stats_every=3).train()
    norms = {row["step"]: row["gradient_norm"] for row in rows(tmp_path / "run", "step")}
    found = rows(tmp_path / "run", "activation_stats")
    assert [row["step"] for row in found] == [1, 4, 7, 10]
    for row in found:
        total = sum(value**2 for value in row["gradient_norm"].values()) ** 0.5
        assert total == pytest.approx(norms[row["step"]], rel=1e-4)
        assert {"layers.0", "layers.1"} == set(row["rms"]) == set(row["dead_share"])
        assert {"layers.0", "layers.1"} < set(row["update_ratio"]) == set(row["gradient_norm"])


def test_a_dead_unit_is_found(tmp_path: Path) -> None:
    made = small.trainer(tmp_path / "run", "masked_lm", family="bert", dropout=False)
    network, health = made.network, ActivationStats(made.network, 1)
    up = network.layers[1].feed_forward.up
    with torch.no_grad():
        up.weight[:32], up.bias[:32] = 0.0, -20.0  # of 128 units; GELU of -20 is 0
    outputs = []
    handle = network.layers[0].register_forward_hook(lambda m, i, o: outputs.append(o.detach()))
    before = [p.detach().clone() for p in network.layers[0].parameters()]
    with health.record_activations(0):
        GradientAccumulator(network, made.settings.seed).accumulate(made.dataloader(0), 0, never_stop)
    handle.remove()
    health.record_gradients(0)
    made.optimizer.step(1.0, 0)
    found = health.collect(0)
    assert found is not None
    assert found["dead_share"]["layers.1"] == 0.25
    assert found["dead_share"]["layers.0"] == 0
    assert found["quiet_share"]["layers.1"] > 0.25
    values = torch.cat([output.flatten() for output in outputs])
    assert len(outputs) > 1
    assert found["rms"]["layers.0"] == pytest.approx(float(values.square().mean().sqrt()), rel=1e-5)
    moved = [p - old for p, old in zip(network.layers[0].parameters(), before, strict=True)]
    ratio = float(
        torch.cat([m.flatten() for m in moved]).norm() / torch.cat([b.flatten() for b in before]).norm()
    )
    assert found["update_ratio"]["layers.0"] == pytest.approx(ratio, rel=1e-5)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("layers.11.attention.query.weight", "layers.11"),
        ("encoder.layers.2.norm.weight", "encoder.layers.2"),
        ("embeddings.word.weight", "embeddings"),
        ("norm", "norm"),
    ],
)
def test_groups(name: str, group: str) -> None:
    assert layer_name(name) == group
