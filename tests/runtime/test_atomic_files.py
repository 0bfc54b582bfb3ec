"""A manifest that was changed after it was written is found, as its files are."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pretune.errors import CheckpointError, UsageError
from pretune.runtime import atomic_files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "step-00000003"

    def fill(partial: Path) -> None:
        (partial / "weights").write_bytes(b"content")

    atomic_files.write_folder(place, fill, {"step": 3})
    return place


def test_a_whole_folder_says_what_it_is(folder: Path) -> None:
    assert atomic_files.verify_folder(folder) == {"step": 3}


def test_a_manifest_with_another_number_is_found(folder: Path) -> None:
    path = folder / atomic_files.MANIFEST
    path.write_text(path.read_text().replace('"step": 3', '"step": 7'))
    with pytest.raises(CheckpointError, match=r"manifest\.json: damaged.*SHA-256"):
        atomic_files.verify_folder(folder)


def test_a_digest_that_has_lost_its_name_is_found(folder: Path) -> None:
    """Else whoever damages the name would switch the check off."""
    path = folder / atomic_files.MANIFEST
    manifest = json.loads(path.read_text())
    manifest["sha257"] = manifest.pop("sha256")
    path.write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match="damaged"):
        atomic_files.verify_folder(folder)


def test_a_manifest_without_its_digest_is_found(folder: Path) -> None:
    path = folder / atomic_files.MANIFEST
    manifest = json.loads(path.read_text())
    del manifest["sha256"]
    path.write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match="damaged"):
        atomic_files.verify_folder(folder)


# -- what is the user's -----------------------------------------------------------------------------


def write(folder: Path, **files: str) -> None:
    """A folder as pretune writes it."""

    def fill(partial: Path) -> None:
        for name, text in files.items():
            (partial / name).write_text(text)

    atomic_files.write_folder(folder, fill)


def contents(folder: Path) -> dict[str, str]:
    """The files below a folder, without the manifest."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != atomic_files.MANIFEST]
    return {path.relative_to(folder).as_posix(): path.read_text() for path in files}


@pytest.mark.parametrize("kind", ["absent", "empty", "ours", "empty link"])
def test_these_may_be_replaced(kind: str, tmp_path: Path) -> None:
    folder, real = tmp_path / "out", tmp_path / "real"
    if kind == "ours":
        write(folder, a="1")
    elif kind != "absent":
        (folder if kind == "empty" else real).mkdir()
    if kind == "empty link":
        folder.symlink_to(real)
    atomic_files.check_target(folder)
    write(folder, b="2")
    assert contents(folder) == {"b": "2"}
    assert folder.is_symlink() == (kind == "empty link")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda folder: (folder / "notes.txt").write_text("mine"), "notes.txt"),
        (lambda folder: ((folder / "sub").mkdir(), (folder / "sub" / "x").write_text("mine")), "sub/x"),
        (lambda folder: (folder / "a").write_text("edited"), "a: 6 bytes"),
        (lambda folder: (folder / "a").unlink(), "a: missing"),
        (lambda folder: (folder / atomic_files.MANIFEST).unlink(), "holds a"),
        (lambda folder: (folder / atomic_files.MANIFEST).write_text("{}"), "manifest"),
        (lambda folder: (folder / "link").symlink_to("/etc"), "link"),
    ],
)
def test_these_are_refused_and_kept_when_overwritten(
    change: Callable[[Path], object], named: str, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    write(folder, a="1", old="of ours")
    change(folder)
    before = contents(folder)
    with pytest.raises(UsageError, match=rf"out: is there already.*{named}.*overwrite"):
        atomic_files.check_target(folder)
    assert contents(folder) == before
    atomic_files.check_target(folder, overwrite=True)
    write(folder, a="2")
    theirs = {name: text for name, text in before.items() if name not in ("a", "old")}
    assert contents(folder).items() >= {"a": "2", **theirs}.items()
    assert (folder / "link").is_symlink() == (named == "link")


def test_a_file_is_never_made_a_folder(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(UsageError, match="out: is a file"):
            atomic_files.check_target(path, overwrite=overwrite)
    os.symlink(tmp_path / "nowhere", tmp_path / "link")
    with pytest.raises(UsageError, match="link: is a file"):
        atomic_files.check_target(tmp_path / "link")
    assert path.read_text() == "mine"


def test_folders_beside_it_are_not_touched(tmp_path: Path) -> None:
    """``model.old`` is what people call a copy."""
    for name in ("model.old", "model.partial"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x").write_text("mine")
    for text in ("1", "2"):
        write(tmp_path / "model", a=text)
    assert {path.name for path in tmp_path.iterdir()} == {"model", "model.old", "model.partial"}
    assert (
        (tmp_path / "model.old" / "x").read_text() == (tmp_path / "model.partial" / "x").read_text() == "mine"
    )


def test_a_replacement_that_was_cut_off_is_finished(tmp_path: Path) -> None:
    """Killed between the two renames, and after them."""
    folder, old = tmp_path / "out", tmp_path / ".out.old"
    write(folder, a="1")
    (folder / "notes.txt").write_text("mine")
    folder.rename(old)
    atomic_files.clear_partial(tmp_path)
    assert contents(folder) == {"a": "1", "notes.txt": "mine"}
    folder.rename(old)
    write(tmp_path / "new", a="2")
    (tmp_path / "new").rename(folder)
    write(folder, a="3")
    assert contents(folder) == {"a": "3", "notes.txt": "mine"}
    assert not old.exists()


def test_a_checkpoint_that_goes_leaves_what_is_not_of_it(folder: Path) -> None:
    (folder / "notes.txt").write_text("mine")
    atomic_files.remove_folder(folder)
    assert not folder.exists()
    assert contents(folder.with_name("step-00000003.kept")) == {"notes.txt": "mine"}
    assert atomic_files.list_checkpoints(folder.parent) == []


def test_a_file_that_is_there_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "said.jsonl"
    atomic_files.check_file(path)
    path.touch()
    atomic_files.check_file(path)
    path.write_text("mine")
    with pytest.raises(UsageError, match=r"said\.jsonl: is there already \(4 bytes\).*--overwrite"):
        atomic_files.check_file(path)
    atomic_files.check_file(path, overwrite=True)
    with pytest.raises(UsageError, match="is a folder"):
        atomic_files.check_file(tmp_path, overwrite=True)
