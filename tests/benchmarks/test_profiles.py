"""An operation belongs to the innermost kind of work around it."""

from __future__ import annotations

import torch
from benchmarks.profiles import REST, kind_of
from torch.profiler import ProfilerActivity, profile

from pretune.nn.norms import RMSNorm
from pretune.training.optimizers.muon import Muon


def test_the_innermost_kind_counts() -> None:
    matrix = torch.nn.Parameter(torch.randn(8, 8))
    muon = Muon([matrix])
    with profile(activities=[ProfilerActivity.CPU]) as watch:
        hidden = RMSNorm(8, 1e-6)(torch.randn(4, 8) @ matrix)
        hidden.cos().sum().backward()
        muon.step()
    found = {(event.name, kind_of(event)) for event in watch.events() or []}
    assert {
        ("aten::mm", "products of matrices"),
        ("aten::linalg_vector_norm", "norms"),
        ("_RMSNormFunction", "norms"),
        ("aten::mul_", "norms"),
        ("aten::native_layer_norm_backward", "norms"),
        ("aten::cos", REST),
        ("aten::bmm", "Muon"),
    } <= found
