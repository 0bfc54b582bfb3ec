"""A manifest that was changed after it was written is found, as its files are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pretune.checkpoint import store
from pretune.errors import CheckpointError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "step-00000003"

    def fill(partial: Path) -> None:
        (partial / "weights").write_bytes(b"content")

    store.write_folder(place, fill, {"step": 3})
    return place


def test_a_whole_folder_says_what_it_is(folder: Path) -> None:
    assert store.verify_folder(folder) == {"step": 3}


def test_a_manifest_with_another_number_is_found(folder: Path) -> None:
    path = folder / store.MANIFEST
    path.write_text(path.read_text().replace('"step": 3', '"step": 7'))
    with pytest.raises(CheckpointError, match=r"manifest\.json: damaged.*SHA-256"):
        store.verify_folder(folder)


def test_a_digest_that_has_lost_its_name_is_found(folder: Path) -> None:
    """Else whoever damages the name would switch the check off."""
    path = folder / store.MANIFEST
    manifest = json.loads(path.read_text())
    manifest["sha257"] = manifest.pop("sha256")
    path.write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match="damaged"):
        store.verify_folder(folder)


def test_a_manifest_without_its_digest_is_found(folder: Path) -> None:
    path = folder / store.MANIFEST
    manifest = json.loads(path.read_text())
    del manifest["sha256"]
    path.write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match="damaged"):
        store.verify_folder(folder)
