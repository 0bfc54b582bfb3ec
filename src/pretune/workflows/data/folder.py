"""The folder of a prepared text: what was asked for, whether it is there, what a stopped call left."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import pydantic

from pretune.config import Settings, build_settings, differences, digest
from pretune.data.cleaning.settings import CleaningSettings
from pretune.data.sources.columns import check_column_names
from pretune.data.sources.read_options import ReadOptions
from pretune.data.sources.records import RecordLog, list_files, read_records
from pretune.data.sources.text_shards import (
    MANIFEST,
    PROGRESS_FOLDER,
    CleanedTextForm,
    check_marker_name,
    verify_shard,
)
from pretune.errors import CheckpointError, ConfigError
from pretune.runtime import state_file
from pretune.runtime.progress import Reporter
from pretune.runtime.run_folder import remove_files

_REQUEST_FILE = f"{PROGRESS_FOLDER}/request.json"
RESUME_FILES = (
    f"{PROGRESS_FOLDER}/*.json",
    f"{PROGRESS_FOLDER}/*.safetensors",
    f"{PROGRESS_FOLDER}/*.partial",
)
"""What a restart needs; it goes when all is done."""
_PACKAGES = (
    "pretune", "ftfy", "numpy", "opencc", "orjson", "py3langid", "rensa", "rjieba", "stopwordsiso",
    "zstandard",
)  # fmt: skip


class PrepareSettings(Settings):
    """What ``data prepare`` takes, from a YAML file, ``key=value`` and keywords alike."""

    sources: tuple[str, ...]
    """Files, folders and patterns of raw text."""
    columns: dict[str, str] = pydantic.Field(default_factory=dict)
    """Field to the column that it is read from, where that is called otherwise: ``{text: article}``."""
    encoding: str | None = None
    """Of files that are neither UTF-8 nor marked otherwise; None: it is recognised."""
    cleaning: CleaningSettings = CleaningSettings()
    shard_megabytes: float = pydantic.Field(default=128, gt=0)
    """Text in each part of the output; what a stop may cost is the work on one."""

    @property
    def reading(self) -> ReadOptions:
        """How the sources are read."""
        return ReadOptions(self.columns, self.encoding)


def resolve(
    settings: PrepareSettings | Mapping[str, Any] | None, overrides: Mapping[str, Any]
) -> PrepareSettings:
    """The settings with keywords laid over them, checked.

    Raises:
        ConfigError: names the wrong key or value.
    """
    base = settings.model_dump() if isinstance(settings, PrepareSettings) else dict(settings or {})
    resolved = build_settings(PrepareSettings, {**base, **overrides})
    if not resolved.sources:
        raise ConfigError("no SOURCES: give files or folders of text")
    check_column_names(resolved.columns, ("text",), "data prepare")
    ReadOptions(encoding=resolved.encoding)  # refuses an encoding that there is none of
    return resolved


def dry_run(settings: PrepareSettings, reporter: Reporter | None = None) -> dict[str, Any]:
    """Read the first records and say what would be done, without writing anything.

    What was skipped among them, and which files are not read, goes to ``reporter``.

    Raises:
        DataError: nothing to read.
    """
    files = list_files(settings.sources)
    log = RecordLog()
    first = list(
        itertools.islice(read_records(settings.sources, read_options=settings.reading, log=log), 100)
    )
    if not first:
        log.raise_if_too_many_bad()
    if log.has_notes and reporter is not None:
        reporter.say(f"  {log.summary()}")
    steps = {k: v for k, v in settings.cleaning.model_dump(mode="json", exclude_defaults=True).items() if v}
    return {
        "files": len(files),
        "megabytes": round(sum(size for _, size, _ in files) / 1e6, 1),
        "first": first[0].location,
        "settings": steps or "as they are by default",
        "folder": str(default_folder(settings)),
    }


def default_folder(settings: PrepareSettings) -> Path:
    """``runs/data-<hash of settings>``: the same command finds its folder again."""
    home = Path(os.environ.get("PRETUNE_HOME", "."))
    return home / "runs" / f"data-{digest(settings.model_dump(mode='json'))[:10]}"


def package_versions() -> dict[str, str]:
    """Of what decides about the result."""
    return {name: metadata.version(name) for name in _PACKAGES}


def load_finished(folder: Path, request: Mapping[str, Any]) -> dict[str, Any] | None:
    """The summary of a folder that holds what is asked for, or None where it is still to be made.

    Raises:
        ConfigError: the folder holds something else.
        CheckpointError: the text or what stands beside it is not what was written.
    """
    path = folder / MANIFEST
    check_marker_name(folder)
    if not path.exists():
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ConfigError(f"{folder}: holds files but no prepared text; give another folder with --out")
        return None
    way_out = f"remove {folder} and prepare the text again"
    manifest = state_file.read(path, way_out, CleanedTextForm) or {}
    changed = differences({"settings": manifest["settings"]}, {"settings": request["settings"]})
    same = manifest["sources"] == _json_round_trip(request["sources"])
    if changed or not same:
        what = f"other settings ({'; '.join(changed)})" if changed else "another state of the source files"
        raise ConfigError(f"{folder}: holds text prepared with {what}; give another folder with --out")
    for shard in manifest["shards"]:
        verify_shard(folder / "text" / shard["name"], shard, way_out)
    return dict(manifest["summary"])


def open_partial(folder: Path, request: Mapping[str, Any], reporter: Reporter) -> Path:
    """The ``.partial`` folder beside ``folder``: the one that a stopped call left, if it is of any use.

    Raises:
        ConfigError: it holds files that no preparation wrote, or cannot be made.
    """
    partial = folder.with_name(f"{folder.name}.partial")
    request_file = partial / _REQUEST_FILE
    try:
        previous_request = state_file.read(request_file, "the preparation is begun anew")
    except CheckpointError as error:
        reporter.say(str(error))
        previous_request = {}
    if previous_request is None or previous_request != _json_round_trip(request):
        if previous_request:
            reporter.say(f"{partial}: of other settings, files or versions; begun anew")
        remove_partial(partial)
        try:
            partial.mkdir(parents=True, exist_ok=True)
            foreign_files = sorted(path.name for path in partial.iterdir())
        except OSError as error:
            raise ConfigError(f"{partial}: cannot be made: {error.strerror}; give another --out") from None
        if foreign_files:
            raise ConfigError(
                f"{partial}: holds files that pretune did not write ({foreign_files[0]} ...); move them "
                "away, or give "
                "another --out"
            )
        state_file.write(request_file, request)
    return partial


def remove_partial(partial: Path) -> None:
    """Remove what a preparation wrote, and the folder if nothing else is in it."""
    remove_files(partial, (*RESUME_FILES, "text/shard-*", "report*.*", MANIFEST))
    with suppress(OSError):  # it is not there, or holds something of the user's
        partial.rmdir()


def _json_round_trip(value: Any) -> Any:
    """As it comes back from JSON."""
    return json.loads(json.dumps(value))
