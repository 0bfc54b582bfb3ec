"""The atomic store: a folder is whole and verified under its name, or it is not there at all.

A folder is written under a temporary name, each file flushed to disk, ``manifest.json`` (size and SHA-256
of every file, and of itself) last, then renamed once. Reading verifies the manifest before anything is used:
safetensors alone would not notice a flipped bit.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Container, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from pretune.errors import CheckpointError
from pretune.json_files import read_json_object

MANIFEST = "manifest.json"
SCHEMA = 1
_PARTIAL = ".partial"


def write_folder(folder: Path, fill: Callable[[Path], None], about: Mapping[str, Any] | None = None) -> None:
    """Write ``folder`` whole or not at all; ``fill(temporary)`` puts the files into it.

    An existing folder of that name is replaced only once the new one is complete.

    Raises:
        CheckpointError: the disk refused; names the folder, and nothing is left under its name.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(folder.name + _PARTIAL)
    shutil.rmtree(partial, ignore_errors=True)
    try:
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
    if not path.exists():
        raise CheckpointError(f"{folder}: no {MANIFEST}: this is no complete checkpoint")
    try:
        manifest = read_json_object(path)
        files, schema, about = manifest["files"], manifest["schema"], dict(manifest["about"])
        _check_manifest(manifest)
        expected = {str(name): (file["size"], file["sha256"]) for name, file in files.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: damaged: {error}") from None
    if schema != SCHEMA:
        raise CheckpointError(
            f"{path}: written by another version of pretune (schema {schema}, not {SCHEMA})"
        )
    for name, (size, sha256) in expected.items():
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise CheckpointError(f"{path}: {name!r} lies outside the folder; it is not opened")
        if name not in but:
            _verify_file(folder / name, size, sha256)
    return about


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
    """Remove a checkpoint; it first loses its name, so that half of one is never taken for a whole."""
    doomed = folder.with_name(folder.name + _PARTIAL)
    shutil.rmtree(doomed, ignore_errors=True)
    folder.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def clear_partial(parent: Path) -> None:
    """Remove what a killed process left half-written or half-removed."""
    for pattern in (f"*{_PARTIAL}", "*.old"):
        for leftover in parent.glob(pattern):
            shutil.rmtree(leftover, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + _PARTIAL)
    try:
        partial.write_text(text, encoding="utf-8")
        _sync(partial)
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise CheckpointError(f"{path}: could not be written: {error}") from error


def write_json(path: Path, value: Any) -> None:
    """Write a value as readable JSON, whole or not at all."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2) + "\n")


def _seal(folder: Path, about: Mapping[str, Any]) -> None:
    files = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        _sync(path)
        files[path.relative_to(folder).as_posix()] = {"size": path.stat().st_size, "sha256": _sha256(path)}
    manifest = folder / MANIFEST
    content = {"schema": SCHEMA, "about": dict(about), "files": files}
    manifest.write_text(json.dumps(content | {"sha256": _digest(content)}, indent=1))
    _sync(manifest)
    _sync(folder)


def _put_in_place(partial: Path, folder: Path) -> None:
    old = folder.with_name(folder.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():  # a folder cannot be renamed over a full one
        folder.rename(old)
    partial.rename(folder)
    _sync(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _check_manifest(manifest: Mapping[str, Any]) -> None:
    """A manifest vouches for itself, too: a flipped digit in it is still JSON."""
    content = {key: manifest[key] for key in ("schema", "about", "files")}
    if manifest != content | {"sha256": _digest(content)}:
        raise ValueError("its content changed after it was written (SHA-256 differs)")


def _verify_file(path: Path, expected: int, sha256: str) -> None:
    if not path.is_file():
        raise CheckpointError(f"{path}: missing")
    size = path.stat().st_size
    if size != expected:
        raise CheckpointError(f"{path}: {size} bytes where {expected} were written")
    if _sha256(path) != sha256:
        raise CheckpointError(f"{path}: its content changed after it was written (SHA-256 differs)")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
