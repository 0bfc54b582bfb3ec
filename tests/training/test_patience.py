"""Early stopping counts evaluations that do not improve by enough, in either direction."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
import small
from torch import nn

from pretune.types import Score


def outcome(folder: Path, values: list[float], direction: Literal["higher", "lower"], **settings: Any) -> Any:
    made = small.trainer(folder, "masked_lm", family="bert", evaluations=6, **settings)
    given: Iterator[float] = iter(values)

    def evaluate(network: nn.Module, step: int) -> list[Score]:
        return [Score("given", next(given), 1, "test", direction)]

    made.evaluate = evaluate
    return made.train()


@pytest.mark.parametrize("sign", [1, -1])
def test_ends_after_so_many_without_improvement(sign: int, tmp_path: Path) -> None:
    values = [sign * value for value in (3.0, 2.0, 1.99, 1.98, 0.0, 0.0)]
    direction: Literal["higher", "lower"] = "lower" if sign == 1 else "higher"
    early = outcome(tmp_path / "early", values, direction, patience=2, min_delta=0.1)
    assert (early.steps, early.best_step, early.stop_reason) == (8, 8, "patience")
    assert 0 < early.last_lr_factor < 1
    patient = outcome(tmp_path / "patient", values, direction, patience=2)
    assert (patient.steps, patient.best_step, patient.stop_reason) == (12, 10, "budget")
