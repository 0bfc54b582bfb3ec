"""A run is a folder; the files are the database.

``config.yaml`` says what was asked for, ``plan.json`` what was decided by measurement and in mid-run,
``metrics.jsonl`` what happened, ``checkpoints/`` how to go on, ``model/`` and ``summary.json`` what came out.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
import yaml

from pretune.checkpoint.store import write_json, write_text
from pretune.config import Settings, differences, digest, dump
from pretune.errors import CheckpointError, ConfigError, PretuneError
from pretune.training.world import World


class Run:
    """One run's folder."""

    def __init__(self, folder: Path, *, fresh: bool = False) -> None:
        self.folder = folder
        self.fresh = fresh
        """Was it begun by this process?"""

    @classmethod
    def open(cls, folder: Path, settings: Settings) -> Run:
        """Begin a run in ``folder``, or go on with the one that lies there.

        Raises:
            ConfigError: the folder holds a run of other settings (names the keys), or other files.
        """
        run = cls(folder)
        if run.config_path.exists():
            run._same_config(settings)
            return run
        run.fresh = True
        try:
            folder.mkdir(parents=True, exist_ok=True)
            others = [p.name for p in folder.iterdir() if not p.name.endswith(".partial")]
        except OSError as error:
            raise ConfigError(
                f"{folder}: cannot be made: {error.strerror}; give another folder with --out"
            ) from None
        if others:
            raise ConfigError(
                f"{folder}: holds files ({min(others)} ...) but no run; give another folder with --out"
            )
        write_text(run.config_path, dump(settings))
        write_json(folder / "environment.json", environment())
        return run

    @contextmanager
    def starting(self) -> Iterator[None]:
        """Around what comes before training: where bad input ends it, a folder that it began is gone.

        So neither the mended command nor one with other settings finds its way blocked.
        """
        try:
            yield
        except PretuneError:
            if self.fresh:
                shutil.rmtree(self.folder, ignore_errors=True)
            raise

    @property
    def config_path(self) -> Path:
        return self.folder / "config.yaml"

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def model(self) -> Path:
        return self.folder / "model"

    @property
    def metrics(self) -> Path:
        return self.folder / "metrics.jsonl"

    def summary(self) -> dict[str, Any] | None:
        """What came out, or None where the run has not ended."""
        return self._read("summary.json")

    def finish(self, summary: dict[str, Any]) -> None:
        """Write the summary: its presence says that the run is complete."""
        write_json(self.folder / "summary.json", summary)

    def plan(self) -> dict[str, Any]:
        """The choices made by measurement, and changes in mid-run."""
        return self._read("plan.json") or {}

    def write_plan(self, plan: dict[str, Any]) -> None:
        write_json(self.folder / "plan.json", plan)

    def _read(self, name: str) -> dict[str, Any] | None:
        path = self.folder / name
        try:
            value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(value, dict):
                raise ValueError("expected an object")
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise CheckpointError(f"{path}: damaged: {error}; remove it and run the command again") from None
        return value

    def _same_config(self, settings: Settings) -> None:
        try:
            there = yaml.safe_load(self.config_path.read_text(encoding="utf-8"))
            if not isinstance(there, dict):
                raise ValueError("expected 'key: value' lines")
        except (OSError, yaml.YAMLError, ValueError) as error:
            raise CheckpointError(
                f"{self.config_path}: damaged: {error}; give another folder with --out"
            ) from None
        changed = differences(_deciding(there), _deciding(settings.model_dump(mode="json")))
        if changed:
            raise ConfigError(
                f"{self.folder}: holds a run with other settings ({'; '.join(changed)}); "
                "give another folder with --out, or the same settings to go on with it"
            )


def default_folder(verb: str, settings: Settings, data: list[str]) -> Path:
    """``runs/<verb>-<hash of settings and data>``: the same command finds its run again."""
    home = Path(os.environ.get("PRETUNE_HOME", "."))
    return home / "runs" / f"{verb}-{digest([_deciding(settings.model_dump(mode='json')), data])[:10]}"


def _deciding(values: dict[str, Any]) -> dict[str, Any]:
    """The settings without those that say how several processes share the work, not what is learnt."""
    kept = {key: value for key, value in values.items() if key != "parallel"}
    training = kept.get("training")
    return kept | {"training": _deciding(training)} if isinstance(training, dict) else kept


def environment() -> dict[str, Any]:
    """Where the run was made: what a repeat needs to know."""
    packages = ("pretune", "torch", "tokenizers", "numpy", "safetensors", "scikit-learn")
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "device": World.of(os.environ).device.type,
        "processes": World.of(os.environ).size,
        "packages": {name: _version(name) for name in packages},
    }


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "unknown"


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
