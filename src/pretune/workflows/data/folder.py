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

from pretune.config import Settings, build, differences, digest
from pretune.data.cleaning.settings import CleaningSettings
from pretune.data.sources.columns import check_names
from pretune.data.sources.read_options import Reading
from pretune.data.sources.records import RecordLog, listing, read_records
from pretune.data.sources.text_shards import NOTES, PREPARED, Finished, verify_part
from pretune.errors import CheckpointError, ConfigError
from pretune.runtime import state_file
from pretune.runtime.progress import Reporter
from pretune.runtime.run_folder import remove_files

_ASKED = f"{NOTES}/asked.json"
NOTE_FILES = (f"{NOTES}/*.json", f"{NOTES}/*.safetensors", f"{NOTES}/*.partial")
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
    part_megabytes: float = pydantic.Field(default=128, gt=0)
    """Text in each part of the output; what a stop may cost is the work on one."""

    @property
    def reading(self) -> Reading:
        """How the sources are read."""
        return Reading(self.columns, self.encoding)


def resolve(
    settings: PrepareSettings | Mapping[str, Any] | None, given: Mapping[str, Any]
) -> PrepareSettings:
    """The settings with keywords laid over them, checked.

    Raises:
        ConfigError: names the wrong key or value.
    """
    base = settings.model_dump() if isinstance(settings, PrepareSettings) else dict(settings or {})
    resolved = build(PrepareSettings, {**base, **given})
    if not resolved.sources:
        raise ConfigError("no SOURCES: give files or folders of text")
    check_names(resolved.columns, ("text",), "data prepare")
    Reading(encoding=resolved.encoding)  # refuses an encoding that there is none of
    return resolved


def rehearse(settings: PrepareSettings, reporter: Reporter | None = None) -> dict[str, Any]:
    """Read the first records and say what would be done, without writing anything.

    What was skipped among them, and which files are not read, goes to ``reporter``.

    Raises:
        DataError: nothing to read.
    """
    files = listing(settings.sources)
    log = RecordLog()
    first = list(itertools.islice(read_records(settings.sources, reading=settings.reading, log=log), 100))
    if not first:
        log.finish()
    if log.remarkable and reporter is not None:
        reporter.say(f"  {log.summary()}")
    steps = {k: v for k, v in settings.cleaning.model_dump(mode="json", exclude_defaults=True).items() if v}
    return {
        "files": len(files),
        "megabytes": round(sum(size for _, size, _ in files) / 1e6, 1),
        "first": first[0].where,
        "settings": steps or "as they are by default",
        "folder": str(default_folder(settings)),
    }


def default_folder(settings: PrepareSettings) -> Path:
    """``runs/data-<hash of settings>``: the same command finds its folder again."""
    home = Path(os.environ.get("PRETUNE_HOME", "."))
    return home / "runs" / f"data-{digest(settings.model_dump(mode='json'))[:10]}"


def versions() -> dict[str, str]:
    """Of what decides about the result."""
    return {name: metadata.version(name) for name in _PACKAGES}


def finished(folder: Path, asked: Mapping[str, Any]) -> dict[str, Any] | None:
    """The summary of a folder that holds what is asked for, or None where it is still to be made.

    Raises:
        ConfigError: the folder holds something else.
        CheckpointError: the text or what stands beside it is not what was written.
    """
    path = folder / PREPARED
    if not path.exists():
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ConfigError(f"{folder}: holds files but no prepared text; give another folder with --out")
        return None
    way_out = f"remove {folder} and prepare the text again"
    there = state_file.read(path, way_out, Finished) or {}
    changed = differences({"settings": there["settings"]}, {"settings": asked["settings"]})
    same = there["sources"] == _plain(asked["sources"])
    if changed or not same:
        what = f"other settings ({'; '.join(changed)})" if changed else "another state of the source files"
        raise ConfigError(f"{folder}: holds text prepared with {what}; give another folder with --out")
    for part in there["parts"]:
        verify_part(folder / "text" / part["name"], part, way_out)
    return dict(there["summary"])


def open_partial(folder: Path, asked: Mapping[str, Any], reporter: Reporter) -> Path:
    """The ``.partial`` folder beside ``folder``: the one that a stopped call left, if it is of any use.

    Raises:
        ConfigError: it holds files that no preparation wrote, or cannot be made.
    """
    partial = folder.with_name(f"{folder.name}.partial")
    there = partial / _ASKED
    try:
        known = state_file.read(there, "the preparation is begun anew")
    except CheckpointError as error:
        reporter.say(str(error))
        known = {}
    if known is None or known != _plain(asked):
        if known:
            reporter.say(f"{partial}: of other settings, files or versions; begun anew")
        clear(partial)
        try:
            partial.mkdir(parents=True, exist_ok=True)
            left = sorted(path.name for path in partial.iterdir())
        except OSError as error:
            raise ConfigError(f"{partial}: cannot be made: {error.strerror}; give another --out") from None
        if left:
            raise ConfigError(
                f"{partial}: holds files that pretune did not write ({left[0]} ...); move them away, or give "
                "another --out"
            )
        state_file.write(there, asked)
    return partial


def clear(partial: Path) -> None:
    """Remove what a preparation wrote, and the folder if nothing else is in it."""
    remove_files(partial, (*NOTE_FILES, "text/part-*", "report*.*", PREPARED))
    with suppress(OSError):  # it is not there, or holds something of the user's
        partial.rmdir()


def _plain(value: Any) -> Any:
    """As it comes back from JSON."""
    return json.loads(json.dumps(value))
