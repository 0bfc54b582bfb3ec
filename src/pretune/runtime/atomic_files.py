"""The atomic store: a folder is whole and verified under its name, or it is not there at all.

A folder is written under a temporary name, each file flushed to disk, ``manifest.json`` (size and SHA-256
of every file, and of itself) last, then renamed once. Reading verifies the manifest before anything is used:
safetensors alone would not notice a flipped bit. The manifest also says which files are pretune's: one that
it does not name, or that has changed since, is the user's, and is not deleted with the folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from pretune.errors import CheckpointError, UsageError
from pretune.runtime.json_files import read_json_object

MANIFEST = "manifest.json"
SCHEMA = 1
_PARTIAL, _OLD = ".partial", ".old"
"""Ends of the hidden names of what is being written and of what it replaces."""
_NAMED = 3
"""Files that a message names."""


def check_target(folder: Path, *, overwrite: bool = False) -> None:
    """See that ``folder`` may be written: absent, empty, or as pretune wrote it, with no other file in it.

    With ``overwrite`` any folder may: files of the names that are written are replaced, and so is what
    pretune wrote there before; all others stay as they are.

    Raises:
        UsageError: it is a file, or a folder that may not be replaced; says what is in it.
    """
    if not os.path.lexists(folder):
        return
    if not folder.is_dir():
        raise UsageError(f"{folder}: is a file; give a folder that is new or empty")
    if overwrite or not any(folder.iterdir()):
        return
    try:
        verify_folder(folder)
        known = _named(folder)
        others = sorted(str(name) for name in _files(folder) if name.as_posix() not in known)
        why = f"holds {_listed(others)}, which pretune did not write" if others else ""
    except CheckpointError as error:
        listed = _listed(sorted(path.name for path in folder.iterdir()))
        ours = (folder / MANIFEST).is_file()
        why = f"what pretune wrote there has changed ({error})" if ours else f"holds {listed}"
    if why:
        raise UsageError(
            f"{folder}: is there already, and {why}; give another folder, or overwrite it (overwrite=True, "
            "--overwrite): files of the same names are replaced then, and all others stay as they are"
        )


def check_file(path: Path, *, overwrite: bool = False) -> None:
    """See that ``path`` may be written: no file is there, or an empty one, or it is to be overwritten.

    Raises:
        UsageError: it is a folder, or a file that holds something.
    """
    if path.is_dir():
        raise UsageError(f"{path}: is a folder; give the file that is to be written")
    if not overwrite and path.is_file() and path.stat().st_size:
        raise UsageError(
            f"{path}: is there already ({path.stat().st_size:,} bytes); give another file, or overwrite it "
            "(overwrite=True, --overwrite)"
        )


def write_folder(folder: Path, fill: Callable[[Path], None], about: Mapping[str, Any] | None = None) -> None:
    """Write ``folder`` whole or not at all; ``fill(temporary)`` puts the files into it.

    An existing folder of that name is replaced only once the new one is complete; files in it that pretune
    did not write are kept, but for those of the same names.

    Raises:
        CheckpointError: the disk refused; names the folder, and nothing is left under its name.
    """
    folder = folder.resolve() if folder.is_symlink() or folder.name in ("", "..") else folder
    partial = _hidden(folder, _PARTIAL)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _recover(folder)
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        fill(partial)
        _seal(partial, about or {})
        _put_in_place(partial, folder)
    except (OSError, SafetensorError) as error:  # safetensors has its own word for a full disk
        raise CheckpointError(
            f"{folder}: could not be saved: {error}; what was saved before is untouched"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def verify_folder(folder: Path, but: Container[str] = ()) -> dict[str, Any]:
    """The manifest's ``about`` mapping, after each file's size and SHA-256 were found as recorded.

    Files named in ``but`` may have been changed or removed.

    Raises:
        CheckpointError: names the first file that is missing, cut or changed.
    """
    path = folder / MANIFEST
    about, expected = read_manifest(folder)
    for name, (size, checksum) in expected.items():
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise CheckpointError(f"{path}: {name!r} lies outside the folder; it is not opened")
        if name not in but:
            verify_file(folder / name, size, checksum)
    return about


def read_manifest(folder: Path) -> tuple[dict[str, Any], dict[str, tuple[int, str]]]:
    """What a folder's manifest says: its ``about`` mapping, and the size and SHA-256 of each file.

    Raises:
        CheckpointError: there is none, or it is damaged.
    """
    path = folder / MANIFEST
    if not path.exists():
        raise CheckpointError(f"{folder}: no {MANIFEST}: this is no complete checkpoint")
    try:
        manifest = read_json_object(path)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: damaged: {str(error).removeprefix(f'{path}: ')}") from None
    try:
        files, schema, about = manifest["files"], manifest["schema"], dict(manifest["about"])
        _check_manifest(manifest)
        expected = {str(name): (file["size"], file["sha256"]) for name, file in files.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: damaged: {error}") from None
    if schema != SCHEMA:
        raise CheckpointError(
            f"{path}: written by another version of pretune (schema {schema}, not {SCHEMA})"
        )
    return about, expected


def checkpoints(parent: Path) -> list[Path]:
    """The complete checkpoint folders below ``parent``, newest (highest step) first."""
    found = [p for p in parent.glob("step-*") if p.is_dir() and p.suffix == ""]
    return sorted(found, key=lambda p: p.name, reverse=True)


def checkpoint_path(parent: Path, step: int) -> Path:
    """Where the checkpoint of ``step`` lies; names sort by step."""
    return parent / f"step-{step:08d}"


def newest_good(parent: Path, warn: Callable[[str], None]) -> Path | None:
    """The newest checkpoint that verifies; ``warn`` is told of each damaged one that was passed over."""
    for folder in checkpoints(parent):
        try:
            verify_folder(folder)
        except CheckpointError as error:
            warn(f"{error}; falling back to the checkpoint before it")
            continue
        return folder
    return None


def remove_folder(folder: Path) -> None:
    """Remove a checkpoint; it first loses its name, so that half of one is never taken for a whole.

    Files in it that pretune did not write move to a folder of its name that ends in ``.kept``.
    """
    doomed = _hidden(folder, _PARTIAL)
    shutil.rmtree(doomed, ignore_errors=True)
    folder.rename(doomed)
    known = _named(doomed)
    if known:  # of a folder without a manifest nobody can say what is whose
        others = [name for name in _files(doomed) if name.as_posix() not in known]
        _move(others, doomed, folder.with_name(f"{folder.name}.kept"))
    shutil.rmtree(doomed, ignore_errors=True)


def clear_partial(parent: Path) -> None:
    """Remove what a killed process left half-written or half-removed."""
    for leftover in parent.glob(f".*{_PARTIAL}"):
        shutil.rmtree(leftover, ignore_errors=True)
    for leftover in parent.glob(f".*{_OLD}"):
        _recover(parent / leftover.name[1 : -len(_OLD)])


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    partial = _hidden(path, _PARTIAL)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(text, encoding="utf-8")
        _sync(partial)
        partial.replace(path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise CheckpointError(f"{path}: could not be written: {error}") from error


def write_json(path: Path, value: Any) -> None:
    """Write a value as readable JSON, whole or not at all."""
    write_text(path, as_json(value))


def as_json(value: Any) -> str:
    """A value as readable JSON."""
    return json.dumps(value, ensure_ascii=False, indent=2) + "\n"


def _seal(folder: Path, about: Mapping[str, Any]) -> None:
    files = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        _sync(path)
        files[path.relative_to(folder).as_posix()] = {"size": path.stat().st_size, "sha256": sha256(path)}
    manifest = folder / MANIFEST
    content = {"schema": SCHEMA, "about": dict(about), "files": files}
    manifest.write_text(json.dumps(content | {"sha256": _digest(content)}, indent=1))
    _sync(manifest)
    _sync(folder)


def _put_in_place(partial: Path, folder: Path) -> None:
    old = _hidden(folder, _OLD)
    if folder.exists():  # a folder cannot be renamed over a full one
        folder.rename(old)
    partial.rename(folder)
    _sync(folder.parent)
    _recover(folder)


def _recover(folder: Path) -> None:
    """Finish a replacement, here or after a kill: the old folder comes back, or leaves what is not ours."""
    old = _hidden(folder, _OLD)
    if not old.is_dir():
        return
    if not folder.exists():
        old.rename(folder)
        return
    _keep_others(old, folder)
    shutil.rmtree(old, ignore_errors=True)


def _hidden(path: Path, end: str) -> Path:
    """The temporary name of a file or folder, which nobody else uses."""
    return path.with_name(f".{path.name}{end}")


def _keep_others(old: Path, place: Path) -> None:
    """Move to ``place`` the files of a folder that pretune did not write, but for those that are there."""
    known = _named(old)
    left = [name for name in _files(old) if not os.path.lexists(place / name)]
    _move([name for name in left if name.as_posix() not in known or not _is_ours(old, name)], old, place)


def _move(names: list[Path], old: Path, place: Path) -> None:
    for name in names:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (old / name).rename(place / name)


def move_files(folder: Path, place: Path) -> None:
    """Move all files of a folder to where ``place`` has none of their names."""
    _move([name for name in _files(folder) if not os.path.lexists(place / name)], folder, place)


def _is_ours(folder: Path, name: Path) -> bool:
    """Is a file that the manifest names as it was written? The manifest itself is."""
    if name.name == MANIFEST and len(name.parts) == 1:
        return True
    try:
        verify_file(folder / name, *read_manifest(folder)[1][name.as_posix()])
    except CheckpointError:
        return False
    return True


def _named(folder: Path) -> set[str]:
    """The files of a folder that its manifest names, and the manifest; none where that cannot be read."""
    try:
        return {MANIFEST, *read_manifest(folder)[1]}
    except CheckpointError:
        return set()


def _files(folder: Path) -> Iterator[Path]:
    """All files and links below a folder, by their names within it."""
    for parent, folders, files in os.walk(folder):
        place = Path(parent)
        links = [name for name in folders if (place / name).is_symlink()]
        yield from ((place / name).relative_to(folder) for name in (*files, *links))


def _listed(names: list[str]) -> str:
    shown = ", ".join(name[:60] for name in names[:_NAMED])
    return f"{shown} ..." if len(names) > _NAMED else shown


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _check_manifest(manifest: Mapping[str, Any]) -> None:
    """A manifest vouches for itself, too: a flipped digit in it is still JSON."""
    content = {key: manifest[key] for key in ("schema", "about", "files")}
    if manifest != content | {"sha256": _digest(content)}:
        raise ValueError("its content changed after it was written (SHA-256 differs)")


def verify_file(path: Path, expected: int, checksum: str) -> None:
    """Compare a file's size and SHA-256 with what was recorded.

    Raises:
        CheckpointError: it is missing, cut or changed.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: missing")
    size = path.stat().st_size
    if size != expected:
        raise CheckpointError(f"{path}: {size} bytes where {expected} were written")
    if sha256(path) != checksum:
        raise CheckpointError(f"{path}: its content changed after it was written (SHA-256 differs)")


def sha256(path: Path) -> str:
    """SHA-256 (hex) of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
