"""Where the time of a training step goes, by kind of work; what explains a ratio that falls short."""

from __future__ import annotations

import re
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity

import pretune
from benchmarks.ours import Clock, Enough

KINDS: dict[str, str] = {
    "products of matrices": r"aten::(mm|addmm)$",
    "attention": r"aten::_scaled_dot_product",
    "Muon": r"Optimizer\.step#Muon",
    "AdamW": r"Optimizer\.step#AdamW",
    "clipping and the norm of gradients": r"aten::_foreach_(norm|mul_)",
    "norms": r"_RMSNormFunction|aten::(native_layer_norm|rms_norm)|NativeLayerNorm",
    "rotary positions": r"_Rotation",
    "activations": r"aten::(silu|gelu)",
    "the loss but its products": r"_SampledLoss|_VocabularyLoss",
    "the embedding's gradient": r"EmbeddingBackward|aten::embedding",
    "sums of gradients": r"AccumulateGrad|aten::add_$",
}
"""Of an event, and of what happens within it but for events that are of a kind of their own."""
REST = "other operations"
BETWEEN = "between operations: Python, data, the log"
_PATTERNS = {kind: re.compile(pattern) for kind, pattern in KINDS.items()}


def kind_of(event: FunctionEvent) -> str:
    """That of the innermost event around it that has one."""
    around: FunctionEvent | None = event
    while around is not None:
        for kind, pattern in _PATTERNS.items():
            if pattern.search(around.name):
                return kind
        around = around.cpu_parent
    return REST


class Profiler(Clock):
    """A clock that watches the steps within its window."""

    def __init__(self, stage: str, warm: float, seconds: float) -> None:
        super().__init__(stage, warm, seconds)
        self.watch = torch.profiler.profile(activities=[ProfilerActivity.CPU], with_flops=True)
        self.began: float | None = None
        self.took, self.steps = 0.0, 0

    def update(self, done: int, detail: str = "", total: int | None = None) -> None:
        """A step ended: begin or go on watching."""
        if self._current != self.stage:
            return
        now = time.perf_counter()
        self.marks.append((now, done))
        if self.began is None and now - self.marks[0][0] >= self.warm:
            self.watch.start()
            self.began = time.perf_counter()
        elif self.began is not None:
            self.steps, self.took = self.steps + 1, now - self.began
            if self.took >= self.seconds:
                self.watch.stop()
                raise Enough


def step(config: Mapping[str, Any]) -> dict[str, Any]:
    """Shares of the time of a step by kind of work, and the rate of its products."""
    clock = Profiler(config["settings"]["family"], config["warm"], config["seconds"])
    with tempfile.TemporaryDirectory() as scratch, suppress(Enough):
        pretune.pretrain(
            {"budget": "100000 steps", **config["settings"]}, out=Path(scratch) / "run", reporter=clock
        )
    events = clock.watch.events()
    assert events is not None, "the window was watched"
    seconds: dict[str, float] = defaultdict(float)
    operations = 0.0
    for event in events:
        kind = kind_of(event)
        seconds[kind] += event.self_cpu_time_total / 1e6
        operations += event.flops if kind == "products of matrices" and event.flops else 0
    seconds[BETWEEN] = max(0.0, clock.took - sum(seconds.values()))
    whole = sum(seconds.values())
    return {
        "milliseconds a step": 1000 * clock.took / clock.steps,
        "steps": clock.steps,
        "shares": {k: v / whole for k, v in sorted(seconds.items(), key=lambda pair: -pair[1])},
        "operations a second of the products": operations / seconds["products of matrices"],
    }


SIDES = {"step": step}
