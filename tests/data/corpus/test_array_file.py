"""Slices of a file are those of the array that was written."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from pretune.data.corpus import array_file as slices_module
from pretune.data.corpus.array_file import ArrayFile, chunk_checksums
from pretune.errors import ChecksumError


@pytest.mark.parametrize("positioned", [True, False])
def test_slices_are_those_of_the_array(
    positioned: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not positioned:
        monkeypatch.delattr(os, "pread", raising=False)  # as on Windows
    values = np.arange(5000, dtype=np.uint16)
    values.tofile(tmp_path / "numbers")
    slices = ArrayFile(tmp_path / "numbers", values.dtype)
    assert len(slices) == 5000
    bounds = [(low, low + size) for low in range(0, 5000, 37) for size in (0, 1, 700)]
    with ThreadPoolExecutor(4) as pool:
        read = list(pool.map(lambda pair: slices.read(*pair), bounds))
    for (low, high), found in zip(bounds, read, strict=True):
        np.testing.assert_array_equal(found, values[low:high])


def test_a_file_that_is_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        ArrayFile(tmp_path / "none", np.dtype(np.uint16))


def test_every_flipped_bit_is_found_where_it_is_read_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slices_module, "CHUNK", 64)
    path = tmp_path / "numbers"
    path.write_bytes(bytes(range(256)) + b"the rest")
    expected = chunk_checksums(path)
    assert len(expected) == 5
    whole = path.read_bytes()
    for at in (0, 63, 64, 130, 255, 263):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 8]) + whole[at + 1 :])
        slices = ArrayFile(path, np.dtype(np.uint8), expected)
        chunk = 64 * (at // 64)
        if chunk:
            slices.read(0, chunk)  # what lies before it is good
        assert len(slices.read(at, at)) == 0
        for _ in range(2):
            with pytest.raises(ChecksumError, match=rf"numbers: tokens are not what was written .*{chunk}\)"):
                slices.read(max(0, at - 2), at + 1)
        if chunk < 256:
            assert bytes(slices.read(chunk + 64, 1000)) == whole[chunk + 64 :]
    path.write_bytes(whole)
    slices = ArrayFile(path, np.dtype(np.uint8), expected)
    assert bytes(slices.read(0, 1000)) == whole
    path.write_bytes(whole[:100])
    with pytest.raises(ChecksumError):
        ArrayFile(path, np.dtype(np.uint8), expected).read(0, 150)
