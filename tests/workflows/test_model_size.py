"""Sizes are tried until one does not fit."""

from __future__ import annotations

import pytest

from pretune.errors import TrainingError
from pretune.planning.size import SHAPES, Shape, ShapeTrial
from pretune.workflows.pretrain.model_size import iter_trials


def narrow(fits: int) -> object:
    def trial(shape: Shape) -> ShapeTrial:
        if SHAPES.index(shape) >= fits:
            raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 1 bytes.")
        return ShapeTrial(shape, 1, 1.0)

    return trial


def test_a_size_that_does_not_fit_ends_the_search() -> None:
    assert [trial.shape for trial in iter_trials(narrow(3))] == list(SHAPES[:3])  # type: ignore[arg-type]


def test_if_the_smallest_does_not_fit_it_is_said() -> None:
    with pytest.raises(TrainingError, match=r"does not fit into memory.*micro_batch"):
        list(iter_trials(narrow(0)))  # type: ignore[arg-type]


def test_other_errors_are_left_as_they_are() -> None:
    def wrong(shape: Shape) -> ShapeTrial:
        raise RuntimeError("shapes")

    with pytest.raises(RuntimeError, match="shapes"):
        list(iter_trials(wrong))
