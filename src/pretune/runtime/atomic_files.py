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
SCHEMA_VERSION = 1
_PARTIAL, _REPLACED = ".partial", ".old"
"""Ends of the hidden names of what is being written and of what it replaces."""
_MAX_NAMES = 3
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
        known = _manifest_names(folder)
        others = sorted(str(name) for name in _iter_files(folder) if name.as_posix() not in known)
        reason = f"holds {_format_names(others)}, which pretune did not write" if others else ""
    except CheckpointError as error:
        listed = _format_names(sorted(path.name for path in folder.iterdir()))
        has_manifest = (folder / MANIFEST).is_file()
        reason = f"what pretune wrote there has changed ({error})" if has_manifest else f"holds {listed}"
    if reason:
        raise UsageError(
            f"{folder}: is there already, and {reason}; give another folder, or overwrite it "
            "(overwrite=True, "
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


def write_folder(
    folder: Path, write_files: Callable[[Path], None], metadata: Mapping[str, Any] | None = None
) -> None:
    """Write ``folder`` whole or not at all; ``fill(temporary)`` puts the files into it.

    An existing folder of that name is replaced only once the new one is complete; files in it that pretune
    did not write are kept, but for those of the same names.

    Raises:
        CheckpointError: the disk refused; names the folder, and nothing is left under its name.
    """
    folder = folder.resolve() if folder.is_symlink() or folder.name in ("", "..") else folder
    partial = _temporary_path(folder, _PARTIAL)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _finish_replacement(folder)
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        write_files(partial)
        _write_manifest(partial, metadata or {})
        _replace_folder(partial, folder)
    except (OSError, SafetensorError) as error:  # safetensors has its own word for a full disk
        raise CheckpointError(
            f"{folder}: could not be saved: {error}; what was saved before is untouched"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def verify_folder(folder: Path, exclude: Container[str] = ()) -> dict[str, Any]:
    """The manifest's ``about`` mapping, after each file's size and SHA-256 were found as recorded.

    Files named in ``exclude`` may have been changed or removed.

    Raises:
        CheckpointError: names the first file that is missing, cut or changed.
    """
    path = folder / MANIFEST
    metadata, expected = read_manifest(folder)
    for name, (size, checksum) in expected.items():
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise CheckpointError(f"{path}: {name!r} lies outside the folder; it is not opened")
        if name not in exclude:
            verify_file(folder / name, size, checksum)
    return metadata


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
        files, schema, metadata = manifest["files"], manifest["schema"], dict(manifest["about"])
        _check_manifest(manifest)
        expected = {str(name): (file["size"], file["sha256"]) for name, file in files.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: damaged: {error}") from None
    if schema != SCHEMA_VERSION:
        raise CheckpointError(
            f"{path}: written by another version of pretune (schema {schema}, not {SCHEMA_VERSION})"
        )
    return metadata, expected


def list_checkpoints(parent: Path) -> list[Path]:
    """The complete checkpoint folders below ``parent``, newest (highest step) first."""
    folders = [p for p in parent.glob("step-*") if p.is_dir() and p.suffix == ""]
    return sorted(folders, key=lambda p: p.name, reverse=True)


def checkpoint_path(parent: Path, step: int) -> Path:
    """Where the checkpoint of ``step`` lies; names sort by step."""
    return parent / f"step-{step:08d}"


def find_newest_valid(parent: Path, warn: Callable[[str], None]) -> Path | None:
    """The newest checkpoint that verifies; ``warn`` is told of each damaged one that was passed over."""
    for folder in list_checkpoints(parent):
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
    hidden = _temporary_path(folder, _PARTIAL)
    shutil.rmtree(hidden, ignore_errors=True)
    folder.rename(hidden)
    known = _manifest_names(hidden)
    if known:  # of a folder without a manifest nobody can say what is whose
        others = [name for name in _iter_files(hidden) if name.as_posix() not in known]
        _move_names(others, hidden, folder.with_name(f"{folder.name}.kept"))
    shutil.rmtree(hidden, ignore_errors=True)


def clear_partial(parent: Path) -> None:
    """Remove what a killed process left half-written or half-removed."""
    for leftover in parent.glob(f".*{_PARTIAL}"):
        shutil.rmtree(leftover, ignore_errors=True)
    for leftover in parent.glob(f".*{_REPLACED}"):
        _finish_replacement(parent / leftover.name[1 : -len(_REPLACED)])


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    partial = _temporary_path(path, _PARTIAL)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(text, encoding="utf-8")
        _fsync(partial)
        partial.replace(path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise CheckpointError(f"{path}: could not be written: {error}") from error


def write_json(path: Path, value: Any) -> None:
    """Write a value as readable JSON, whole or not at all."""
    write_text(path, to_json(value))


def to_json(value: Any) -> str:
    """A value as readable JSON."""
    return json.dumps(value, ensure_ascii=False, indent=2) + "\n"


def _write_manifest(folder: Path, metadata: Mapping[str, Any]) -> None:
    files = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        _fsync(path)
        files[path.relative_to(folder).as_posix()] = {"size": path.stat().st_size, "sha256": sha256(path)}
    manifest = folder / MANIFEST
    content = {"schema": SCHEMA_VERSION, "about": dict(metadata), "files": files}
    manifest.write_text(json.dumps(content | {"sha256": _digest(content)}, indent=1))
    _fsync(manifest)
    _fsync(folder)


def _replace_folder(partial: Path, folder: Path) -> None:
    old = _temporary_path(folder, _REPLACED)
    if folder.exists():  # a folder cannot be renamed over a full one
        folder.rename(old)
    partial.rename(folder)
    _fsync(folder.parent)
    _finish_replacement(folder)


def _finish_replacement(folder: Path) -> None:
    """Finish a replacement, here or after a kill: the old folder comes back, or leaves what is not ours."""
    old = _temporary_path(folder, _REPLACED)
    if not old.is_dir():
        return
    if not folder.exists():
        old.rename(folder)
        return
    _move_user_files(old, folder)
    shutil.rmtree(old, ignore_errors=True)


def _temporary_path(path: Path, suffix: str) -> Path:
    """The temporary name of a file or folder, which nobody else uses."""
    return path.with_name(f".{path.name}{suffix}")


def _move_user_files(old: Path, target: Path) -> None:
    """Move to ``target`` the files of a folder that pretune did not write, but for those that are there."""
    known = _manifest_names(old)
    missing = [name for name in _iter_files(old) if not os.path.lexists(target / name)]
    _move_names(
        [name for name in missing if name.as_posix() not in known or not _is_unmodified(old, name)],
        old,
        target,
    )


def _move_names(names: list[Path], old: Path, target: Path) -> None:
    for name in names:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (old / name).rename(target / name)


def move_files(folder: Path, target: Path) -> None:
    """Move all files of a folder to where ``target`` has none of their names."""
    _move_names([name for name in _iter_files(folder) if not os.path.lexists(target / name)], folder, target)


def _is_unmodified(folder: Path, name: Path) -> bool:
    """Is a file that the manifest names as it was written? The manifest itself is."""
    if name.name == MANIFEST and len(name.parts) == 1:
        return True
    try:
        verify_file(folder / name, *read_manifest(folder)[1][name.as_posix()])
    except CheckpointError:
        return False
    return True


def _manifest_names(folder: Path) -> set[str]:
    """The files of a folder that its manifest names, and the manifest; none where that cannot be read."""
    try:
        return {MANIFEST, *read_manifest(folder)[1]}
    except CheckpointError:
        return set()


def _iter_files(folder: Path) -> Iterator[Path]:
    """All files and links below a folder, by their names within it."""
    for parent, folders, files in os.walk(folder):
        parent_path = Path(parent)
        links = [name for name in folders if (parent_path / name).is_symlink()]
        yield from ((parent_path / name).relative_to(folder) for name in (*files, *links))


def _format_names(names: list[str]) -> str:
    text = ", ".join(name[:60] for name in names[:_MAX_NAMES])
    return f"{text} ..." if len(names) > _MAX_NAMES else text


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


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
