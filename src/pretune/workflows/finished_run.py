"""A run that has ended: complete only if its model is there, as it was written, or can be put back."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pretune.config import Settings
from pretune.data.cleaning.fingerprints import FINGERPRINTS_FILE as FINGERPRINTS
from pretune.errors import CheckpointError, PretuneError
from pretune.runtime import atomic_files
from pretune.runtime.run_folder import Run

CARD = "README.md"


def is_complete(run: Run, settings: Settings) -> bool:
    """Is it a run of these settings that has ended, with nothing left to write?"""
    if not run.config_path.exists():
        return False
    try:
        Run.open(run.folder, settings)
        return run.read_summary(verify=True) is not None and not _find_corruption(run.model_path)
    except PretuneError:
        return False


def load_summary(run: Run, say: Callable[[str], None]) -> Mapping[str, Any] | None:
    """The summary of a run that has ended; None: it has not, or its model must be made again.

    A file of the model that is gone or damaged is put back from the best checkpoint, where that holds it.
    """
    found = run.read_summary(verify=True)
    if found is None:
        return None
    damaged = _find_corruption(run.model_path)
    if not damaged:
        return found
    say(f"{run.model_path}: {'; '.join(damaged)}")
    best = atomic_files.checkpoint_path(run.checkpoints_path, int(found["best_step"]))
    if _restore_files(run.model_path, best):
        say(f"{run.model_path}: put back from {best}")
        return found
    say(f"{run.model_path}: is made again from the checkpoints")
    return None


def _find_corruption(folder: Path) -> list[str]:
    """What is wrong with a model folder. The card may be edited, and the fingerprints may be taken out."""
    try:
        _, expected = atomic_files.read_manifest(folder)
    except CheckpointError as error:
        return [str(error)]
    return [fault for name in expected if (fault := _file_corruption(folder, name, expected[name]))]


def _file_corruption(folder: Path, name: str, expected: tuple[int, str]) -> str:
    if name == CARD or (name == FINGERPRINTS and not (folder / name).exists()):
        return ""
    try:
        atomic_files.verify_file(folder / name, *expected)
    except CheckpointError as error:
        return str(error)
    return ""


def _restore_files(model: Path, checkpoint: Path) -> bool:
    """Whether all damaged files could be copied from a checkpoint that holds them as they were."""
    try:
        _, expected = atomic_files.read_manifest(model)
        _, available = atomic_files.read_manifest(checkpoint)
        names = [name for name in expected if _file_corruption(model, name, expected[name])]
        if any(available.get(name) != expected[name] for name in names):
            return False
        for name in names:
            atomic_files.verify_file(checkpoint / name, *expected[name])
    except CheckpointError:
        return False
    for name in names:
        partial = model / f".{name}.partial"
        shutil.copyfile(checkpoint / name, partial)
        partial.replace(model / name)
    return True
