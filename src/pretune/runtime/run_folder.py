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

from pretune.config import Settings, differences, digest, to_yaml, unknown_keys
from pretune.errors import CheckpointError, ConfigError, PretuneError
from pretune.runtime import run_lock, state_file
from pretune.runtime.atomic_files import find_newest_valid, sha256, to_json, write_json, write_text
from pretune.runtime.distributed import World
from pretune.runtime.metrics_reader import REPEAT_ADVICE
from pretune.runtime.plan_file import RunPlan

DATA_FILES = (
    "tokenized_corpus.json", "text.sha256", "manifest.json", "corpus.json", "documents.bin", "tokens-*.bin",
    "word_starts-*.bin", "text_fingerprints.safetensors", "tokenizer.json", "tokenizer_config.json",
    "special_tokens_map.json", "vocab.txt", ".partial",
)  # fmt: skip
"""What a preparation of text writes."""
INITIAL_FILES = (
    "config.yaml", "environment.json", "plan.json", "initial_scores.json", "data.text.partial",
    "*.text.partial",
    *(f"data*/*{name}" for name in DATA_FILES),
)  # fmt: skip
"""What a run writes before it trains; all else in its folder is the user's."""
RUN_FILES = (
    *INITIAL_FILES, "metrics.jsonl", "summary.json", "checksums.json", "report.html", "predictions.jsonl",
    "requests/*.json", "tensorboard/events.out.tfevents.*", "checkpoints/step-*/*", "checkpoints/.step-*",
    "model/*.json", "model/*.safetensors", "model/*.txt", "model/README.md",
)  # fmt: skip
"""What a run writes from its first byte to its last."""
PLAN_FILE, SUMMARY_FILE = "plan.json", "summary.json"
CHECKSUMS_FILE = "checksums.json"
"""Of the summary, which is a person's to read and has no checksum of its own."""
RERUN_ADVICE = "remove it and run the command again"
PLAN_ADVICE = f"{RERUN_ADVICE}: the plan is then the one that the newest checkpoint keeps"


class Run:
    """One run's folder."""

    def __init__(self, folder: Path, *, is_new: bool = False) -> None:
        self.folder = folder
        self.is_new = is_new
        """Was it begun by this process?"""

    @classmethod
    def open(cls, folder: Path, settings: Settings) -> Run:
        """Begin a run in ``folder``, or go on with the one that lies there.

        Raises:
            ConfigError: the folder holds a run of other settings (names the keys), or other files.
        """
        run = cls(folder)
        if run.config_path.exists():
            run._check_config(settings)
            return run
        run.is_new = True
        try:
            folder.mkdir(parents=True, exist_ok=True)
            names = [path.name for path in folder.iterdir()]
        except OSError as error:
            raise ConfigError(
                f"{folder}: cannot be made: {error.strerror}; give another folder with --out"
            ) from None
        others = [name for name in names if name != run_lock.LOCK_FILE and not name.endswith(".partial")]
        if others:
            raise ConfigError(
                f"{folder}: holds files ({min(others)} ...) but no run; give another folder with --out"
            )
        write_text(run.config_path, to_yaml(settings))
        write_json(folder / "environment.json", describe_environment())
        return run

    @contextmanager
    def discard_on_error(self) -> Iterator[None]:
        """Around what comes before training: where bad input ends it, what it wrote to begin a run is gone.

        So neither the mended command nor one with other settings finds its way blocked. Files that somebody
        else put there stay.
        """
        try:
            yield
        except PretuneError:
            if self.is_new:
                remove_files(self.folder, INITIAL_FILES)
            raise

    @property
    def config_path(self) -> Path:
        return self.folder / "config.yaml"

    @property
    def checkpoints_path(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def model_path(self) -> Path:
        return self.folder / "model"

    @property
    def metrics_path(self) -> Path:
        return self.folder / "metrics.jsonl"

    def read_summary(self, *, verify: bool = False) -> dict[str, Any] | None:
        """What came out, or None where the run has not ended.

        Raises:
            CheckpointError: the file is damaged or an earlier version's; ``verify``: or it is not what
                the run wrote there.
        """
        path = self.folder / SUMMARY_FILE
        summary = state_file.read_unverified(path, RERUN_ADVICE)
        if summary is not None and "ended" in summary:
            raise state_file.renamed_error(path, "key 'ended' is called 'stop_reason' now", REPEAT_ADVICE)
        if verify and summary is not None:
            checksums = (
                state_file.read(
                    self.folder / CHECKSUMS_FILE, f"remove {SUMMARY_FILE} and run the command again"
                )
                or {}
            )
            if checksums.get(SUMMARY_FILE) != sha256(path):
                raise state_file.corrupt_error(path, "not what the run wrote (SHA-256 differs)", RERUN_ADVICE)
        return summary

    def finish(self, summary: dict[str, Any]) -> None:
        """Write the summary: its presence says that the run is complete."""
        text = to_json(summary)
        state_file.write(
            self.folder / CHECKSUMS_FILE, {SUMMARY_FILE: hashlib.sha256(text.encode()).hexdigest()}
        )
        write_text(self.folder / SUMMARY_FILE, text)

    def read_plan(self) -> dict[str, Any]:
        """The choices made by measurement, and changes in mid-run.

        Raises:
            CheckpointError: the file is damaged.
        """
        return state_file.read(self.plan_path, PLAN_ADVICE, RunPlan) or {}

    def write_plan(self, plan: dict[str, Any]) -> None:
        state_file.write(self.plan_path, plan)

    def restore_plan(self, say: Callable[[str], None]) -> None:
        """Put a plan that is gone back as the newest good checkpoint keeps it."""
        if self.plan_path.exists():
            return
        newest = find_newest_valid(self.checkpoints_path, say)
        if newest is not None and (newest / PLAN_FILE).exists():
            write_text(self.plan_path, (newest / PLAN_FILE).read_text(encoding="utf-8"))
            say(f"{self.plan_path}: was gone; put back as {newest} keeps it, without changes since then")

    @property
    def plan_path(self) -> Path:
        return self.folder / PLAN_FILE

    def _check_config(self, settings: Settings) -> None:
        try:
            stored = yaml.safe_load(self.config_path.read_text(encoding="utf-8"))
            if not isinstance(stored, dict):
                raise ValueError("expected 'key: value' lines")
        except (OSError, yaml.YAMLError, ValueError) as error:
            raise CheckpointError(
                f"{self.config_path}: damaged: {error}; give another folder with --out"
            ) from None
        changed = differences(_without_parallel(stored), _without_parallel(settings.model_dump(mode="json")))
        if changed:
            old = ", ".join(unknown_keys(type(settings), stored))
            hint = (
                f"; there is no key {old}: an earlier version may have called it so "
                f"({state_file.RENAMED_KEYS_PAGE} has all names), and the run's model can still be begun from"
            )
            raise ConfigError(
                f"{self.folder}: holds a run with other settings ({'; '.join(changed)}); "
                "give another folder with --out, or the same settings to go on with it"
                f"{hint if old else ''}"
            )


def remove_files(folder: Path, patterns: tuple[str, ...]) -> None:
    """Remove the files below ``folder`` whose names there match, and the folders that this empties.

    ``folder`` itself stays. ``*`` stands for folders, too.
    """
    emptied: set[Path] = set()
    for parent, _, files in os.walk(folder, topdown=False):
        parent_path = Path(parent)
        for path in (parent_path / name for name in files):
            if any(fnmatch.fnmatch(path.relative_to(folder).as_posix(), pattern) for pattern in patterns):
                path.unlink(missing_ok=True)
                emptied.add(parent_path)
        if parent_path in emptied and parent_path != folder:
            with suppress(OSError):  # it holds something
                parent_path.rmdir()
                emptied.add(parent_path.parent)


def default_folder(verb: str, settings: Settings, data: list[str]) -> Path:
    """``runs/<verb>-<hash of settings and data>``: the same command finds its run again."""
    home = Path(os.environ.get("PRETUNE_HOME", "."))
    return (
        home / "runs" / f"{verb}-{digest([_without_parallel(settings.model_dump(mode='json')), data])[:10]}"
    )


def _without_parallel(values: dict[str, Any]) -> dict[str, Any]:
    """The settings without those that say how several processes share the work, not what is learnt."""
    settings = {key: value for key, value in values.items() if key != "parallel"}
    training = settings.get("training")
    return settings | {"training": _without_parallel(training)} if isinstance(training, dict) else settings


def describe_environment() -> dict[str, Any]:
    """Where the run was made: what a repeat needs to know."""
    packages = ("pretune", "torch", "tokenizers", "numpy", "safetensors", "scikit-learn")
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor_name(),
        "threads": torch.get_num_threads(),
        "device": World.from_environment(os.environ).device.type,
        "processes": World.from_environment(os.environ).world_size,
        "packages": {name: _package_version(name) for name in packages},
    }


def _package_version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "unknown"


def _processor_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
