"""Slices of a file are those of the array that was written."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from pretune.data.slices import Slices


@pytest.mark.parametrize("positioned", [True, False])
def test_slices_are_those_of_the_array(
    positioned: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not positioned:
        monkeypatch.delattr(os, "pread", raising=False)  # as on Windows
    values = np.arange(5000, dtype=np.uint16)
    values.tofile(tmp_path / "numbers")
    slices = Slices(tmp_path / "numbers", values.dtype)
    assert len(slices) == 5000
    bounds = [(low, low + size) for low in range(0, 5000, 37) for size in (0, 1, 700)]
    with ThreadPoolExecutor(4) as pool:
        read = list(pool.map(lambda pair: slices.read(*pair), bounds))
    for (low, high), found in zip(bounds, read, strict=True):
        np.testing.assert_array_equal(found, values[low:high])


def test_a_file_that_is_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Slices(tmp_path / "none", np.dtype(np.uint16))
