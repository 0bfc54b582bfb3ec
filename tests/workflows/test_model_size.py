"""Sizes are tried until one does not fit."""

from __future__ import annotations

import pytest

from pretune.errors import TrainingError
from pretune.planning.size import LADDER, Shape, Trial
from pretune.workflows.pretrain.model_size import those_that_fit


def narrow(fits: int) -> object:
    def trial(shape: Shape) -> Trial:
        if LADDER.index(shape) >= fits:
            raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 1 bytes.")
        return Trial(shape, 1, 1.0)

    return trial


def test_a_size_that_does_not_fit_ends_the_search() -> None:
    assert [trial.shape for trial in those_that_fit(narrow(3))] == list(LADDER[:3])  # type: ignore[arg-type]


def test_if_the_smallest_does_not_fit_it_is_said() -> None:
    with pytest.raises(TrainingError, match=r"does not fit into memory.*micro_batch"):
        list(those_that_fit(narrow(0)))  # type: ignore[arg-type]


def test_other_errors_are_left_as_they_are() -> None:
    def wrong(shape: Shape) -> Trial:
        raise RuntimeError("shapes")

    with pytest.raises(RuntimeError, match="shapes"):
        list(those_that_fit(wrong))
