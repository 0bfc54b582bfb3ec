"""Batches that are built ahead are those that are built when asked for."""

from __future__ import annotations

import importlib.util
import sys
import threading
import time
from pathlib import Path
from types import ModuleType

import pytest
import torch

from pretune.training.loading import Prefetched
from pretune.types import Batch


def _load_small() -> ModuleType:
    path = Path(__file__).parent.parent / "conformance" / "small.py"
    spec = importlib.util.spec_from_file_location("small_loading", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["small_loading"] = module
    spec.loader.exec_module(module)
    return module


class Slow:
    """Batches that take their time, and fail at one step."""

    steps_per_epoch, tokens_per_step, fingerprint = 10.0, 5.0, "slow"

    def __init__(self, seconds: float = 0.0, bad: int | None = None) -> None:
        self.seconds, self.bad = seconds, bad
        self.built: list[int] = []

    def __call__(self, step: int) -> list[Batch]:
        self.built.append(step)
        time.sleep(self.seconds)
        if step == self.bad:
            raise OSError(f"step {step} cannot be read")
        return [step]  # type: ignore[list-item]


def threads() -> int:
    return sum(thread.name.startswith("batches") for thread in threading.enumerate())


@pytest.mark.parametrize("steps", [[0, 1, 2, 3, 4], [7, 8], [0, 1, 5, 6, 2, 2, 3]])
@pytest.mark.parametrize("ahead", [0, 1, 3])
def test_any_order_of_steps_is_answered(ahead: int, steps: list[int]) -> None:
    with Prefetched(Slow(), ahead) as batches:
        assert [batches(step) for step in steps] == [[step] for step in steps]
    assert threads() == 0


@pytest.mark.parametrize("ahead", [0, 2])
def test_an_error_is_raised_where_its_step_is_asked_for(ahead: int) -> None:
    with Prefetched(Slow(bad=2), ahead) as batches:
        assert [batches(0), batches(1)] == [[0], [1]]
        for _ in range(2):
            with pytest.raises(OSError, match="step 2"):
                batches(2)
        assert batches(3) == [3]
    assert threads() == 0


def test_closing_throws_away_what_was_built_ahead() -> None:
    slow = Slow(seconds=0.05)
    batches = Prefetched(slow, 50)
    batches(0)
    began = time.monotonic()
    batches.close()
    assert time.monotonic() - began < 0.5
    assert len(slow.built) < 5
    assert threads() == 0
    assert batches(1) == [1]


def test_who_computes_meanwhile_does_not_wait() -> None:
    waited = {}
    for ahead in (0, 2):
        with Prefetched(Slow(seconds=0.02), ahead) as batches:
            for step in range(6):
                batches(step)
                time.sleep(0.05)
        waited[ahead] = batches.waited
    assert waited[0] >= 6 * 0.02
    assert waited[2] < 0.6 * waited[0]  # but for the first


@pytest.mark.parametrize("kind", [("masked_lm", "bert"), ("causal_lm", "llama")])
def test_a_run_is_the_same_bit_for_bit(kind: tuple[str, str], tmp_path: Path) -> None:
    small, found = _load_small(), []
    for ahead in (0, 2):
        made = small.trainer(tmp_path / str(ahead), kind[0], family=kind[1])
        with Prefetched(made.batches, ahead) as made.batches:
            made.train()
        found.append(small.state(made))
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
