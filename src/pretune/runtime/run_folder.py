"""A run is a folder; the files are the database.

``config.yaml`` says what was asked for, ``plan.json`` what was decided by measurement and in mid-run,
``metrics.jsonl`` what happened, ``checkpoints/`` how to go on, ``model/`` and ``summary.json`` what came out.
"""

from __future__ import annotations

import fnmatch
import hashlib
import os
import platform
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
import yaml

from pretune.config import Settings, differences, digest, dump
from pretune.errors import CheckpointError, ConfigError, PretuneError
from pretune.runtime import run_lock, state_file
from pretune.runtime.atomic_files import as_json, newest_good, sha256, write_json, write_text
from pretune.runtime.distributed import World
from pretune.runtime.plan_file import Plan

DATA = (
    "prepared.json", "text.sha256", "manifest.json", "corpus.json", "documents.bin", "tokens-*.bin",
    "flags-*.bin", "text_fingerprints.safetensors", "tokenizer.json", "tokenizer_config.json",
    "special_tokens_map.json", "vocab.txt", ".partial",
)  # fmt: skip
"""What a preparation of text writes."""
BEGUN = (
    "config.yaml", "environment.json", "plan.json", "before.json", "data.text.partial", "*.text.partial",
    *(f"data*/*{name}" for name in DATA),
)  # fmt: skip
"""What a run writes before it trains; all else in its folder is the user's."""
MADE = (
    *BEGUN, "metrics.jsonl", "summary.json", "checksums.json", "report.html", "predictions.jsonl",
    "requests/*.json", "tensorboard/events.out.tfevents.*", "checkpoints/step-*/*", "checkpoints/.step-*",
    "model/*.json", "model/*.safetensors", "model/*.txt", "model/README.md",
)  # fmt: skip
"""What a run writes from its first byte to its last."""
PLAN, SUMMARY = "plan.json", "summary.json"
CHECKSUMS = "checksums.json"
"""Of the summary, which is a person's to read and has no checksum of its own."""
AGAIN = "remove it and run the command again"
PLAN_AGAIN = f"{AGAIN}: the plan is then the one that the newest checkpoint keeps"


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
            names = [path.name for path in folder.iterdir()]
        except OSError as error:
            raise ConfigError(
                f"{folder}: cannot be made: {error.strerror}; give another folder with --out"
            ) from None
        others = [name for name in names if name != run_lock.NAME and not name.endswith(".partial")]
        if others:
            raise ConfigError(
                f"{folder}: holds files ({min(others)} ...) but no run; give another folder with --out"
            )
        write_text(run.config_path, dump(settings))
        write_json(folder / "environment.json", environment())
        return run

    @contextmanager
    def starting(self) -> Iterator[None]:
        """Around what comes before training: where bad input ends it, what it wrote to begin a run is gone.

        So neither the mended command nor one with other settings finds its way blocked. Files that somebody
        else put there stay.
        """
        try:
            yield
        except PretuneError:
            if self.fresh:
                remove_files(self.folder, BEGUN)
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

    def summary(self, *, verified: bool = False) -> dict[str, Any] | None:
        """What came out, or None where the run has not ended.

        Raises:
            CheckpointError: the file is damaged; ``verified``: or is not what the run wrote there.
        """
        path = self.folder / SUMMARY
        found = state_file.read_any(path, AGAIN)
        if verified and found is not None:
            kept = (
                state_file.read(self.folder / CHECKSUMS, f"remove {SUMMARY} and run the command again") or {}
            )
            if kept.get(SUMMARY) != sha256(path):
                raise state_file.damaged(path, "not what the run wrote (SHA-256 differs)", AGAIN)
        return found

    def finish(self, summary: dict[str, Any]) -> None:
        """Write the summary: its presence says that the run is complete."""
        text = as_json(summary)
        state_file.write(self.folder / CHECKSUMS, {SUMMARY: hashlib.sha256(text.encode()).hexdigest()})
        write_text(self.folder / SUMMARY, text)

    def plan(self) -> dict[str, Any]:
        """The choices made by measurement, and changes in mid-run.

        Raises:
            CheckpointError: the file is damaged.
        """
        return state_file.read(self.plan_path, PLAN_AGAIN, Plan) or {}

    def write_plan(self, plan: dict[str, Any]) -> None:
        state_file.write(self.plan_path, plan)

    def mend_plan(self, say: Callable[[str], None]) -> None:
        """Put a plan that is gone back as the newest good checkpoint keeps it."""
        if self.plan_path.exists():
            return
        newest = newest_good(self.checkpoints, say)
        if newest is not None and (newest / PLAN).exists():
            write_text(self.plan_path, (newest / PLAN).read_text(encoding="utf-8"))
            say(f"{self.plan_path}: was gone; put back as {newest} keeps it, without changes since then")

    @property
    def plan_path(self) -> Path:
        return self.folder / PLAN

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


def remove_files(folder: Path, patterns: tuple[str, ...]) -> None:
    """Remove the files below ``folder`` whose names there match, and the folders that this empties.

    ``folder`` itself stays. ``*`` stands for folders, too.
    """
    emptied: set[Path] = set()
    for parent, _, files in os.walk(folder, topdown=False):
        place = Path(parent)
        for path in (place / name for name in files):
            if any(fnmatch.fnmatch(path.relative_to(folder).as_posix(), pattern) for pattern in patterns):
                path.unlink(missing_ok=True)
                emptied.add(place)
        if place in emptied and place != folder:
            with suppress(OSError):  # it holds something
                place.rmdir()
                emptied.add(place.parent)


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
