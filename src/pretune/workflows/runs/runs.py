"""The runs that there are: a list, what one shows, and a change in the middle of one.

A run's folder is all that is read; nothing is loaded, and nothing but a change is written.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from pretune.arguments import FilePath, check_arguments
from pretune.config import Settings, apply_overrides, build_settings
from pretune.errors import ConfigError, PretuneError
from pretune.runtime import atomic_files, run_lock
from pretune.runtime.metrics_reader import read_metrics
from pretune.runtime.run_folder import Run
from pretune.training import adjustments
from pretune.training.settings import TrainingSettings
from pretune.workflows import verdicts
from pretune.workflows.finetune.finetune import FinetuneSettings
from pretune.workflows.pretrain.pretrain import PretrainSettings

MAX_DEPTH = 3
"""Folders below each other in which runs are looked for."""
SKIPPED_FOLDERS = ("checkpoints", "model", "data", "tensorboard")
"""Folders of a run that hold no runs."""
BARS = "▁▂▃▄▅▆▇█"
VERB_SETTINGS: dict[str, tuple[type[Settings], dict[str, Any]]] = {
    "pretrain": (PretrainSettings, {"corpus": ()}),
    "finetune": (FinetuneSettings, {"model": "", "train": ()}),
}
"""A verb's settings, with what it always asks for."""

Entry = dict[str, Any]


@check_arguments
def list_runs(folder: FilePath | None = None) -> list[Entry]:
    """The runs below ``folder`` (``runs/`` where none is given), newest first.

    Raises:
        ConfigError: there is no such folder.
    """
    home = Path(folder) if folder is not None else Path(os.environ.get("PRETUNE_HOME", ".")) / "runs"
    if not home.is_dir():
        raise ConfigError(f"{home}: no such folder; give one that holds runs, or make a run first")
    return sorted(
        (_entry(found) for found in _find_runs(home, MAX_DEPTH)), key=lambda e: e["last_write"], reverse=True
    )


@check_arguments
def show_run(run: FilePath) -> Entry:
    """What a run was asked for, how far it came, its curve, its scores and what they say.

    Raises:
        ConfigError: there is no run in the folder, or its files are damaged.
    """
    opened = open_run(run)
    config, summary, rows = (
        read_config(opened),
        opened.read_summary() or {},
        read_metrics(opened.metrics_path),
    )
    language = str(config.get("language", "en"))
    found = verdicts.findings_to_dicts(language, verdicts.diagnose_run(rows)) if rows else []
    checks = [row for row in rows if row["type"] == "evaluation"]
    plan = opened.read_plan()
    return _entry(opened.folder) | {
        "settings": non_default_settings(config),
        "evaluation_curve": [{"step": c["step"], **c["scores"]} for c in checks],
        "training_curve": [[row["step"], row["loss"]] for row in rows if row["type"] == "step"],
        "reference_losses": checks[-1].get("reference_losses", {}) if checks else {},
        "scores": summary_scores(summary) | _component_values(summary, summary_scores),
        "baselines": summary_baselines(summary) | _component_values(summary, summary_baselines),
        "verdicts": summary.get("verdicts", found),
        "plan": {key: value for key, value in plan.items() if key != "changes"},
        "changes": plan.get("changes", []),
        "pending_changes": [path.name for path in adjustments.pending_requests(opened.folder)],
        "summary": summary,
    }


@check_arguments
def adjust_run(run: FilePath, values: Mapping[str, Any] | Sequence[str]) -> Entry:
    """Change settings of a run that has not ended, from its next step on, on record.

    ``values`` are keys and values, or ``key=value`` words; :data:`training.adjustments.ADJUSTABLE_KEYS`
    says which.
    A run that stands still has the change in its plan at once; one that trains takes it up between two steps.

    Raises:
        ConfigError: no run, one that has ended, or a change that may not or cannot be.
    """
    opened = open_run(run)
    requested = _flatten(apply_overrides({}, values)) if not isinstance(values, Mapping) else dict(values)
    if not requested:
        raise ConfigError(f"nothing to change; give key=value, of: {', '.join(adjustments.ADJUSTABLE_KEYS)}")
    if opened.read_summary() is not None:
        raise ConfigError(f"{opened.folder}: this run has ended; begin another one with --out")
    training = build_settings(
        TrainingSettings, read_config(opened).get("training") or {}, where=f"{opened.config_path}"
    )
    plan, state = opened.read_plan(), run_state(opened)
    step = None if state == "running" or "steps" not in plan else _resume_step(opened)
    now = adjustments.settings_at(training, plan, 10**12 if step is None else step)
    adjustments.apply_changes(now, requested)
    if step is None:
        adjustments.request_changes(opened, requested)
    else:
        with run_lock.lock_run(opened.folder):
            adjustments.record_change(opened, requested, step)
    return {"run": str(opened.folder), "values": requested, "state": state, "step": step}


def open_run(run: str | Path) -> Run:
    """The run in a folder.

    Raises:
        ConfigError: there is none.
    """
    folder = Path(run)
    opened = Run(folder)
    if not opened.config_path.is_file():
        raise ConfigError(
            f"{folder}: no run (no config.yaml in it); `pretune runs list` shows those that are"
        )
    return opened


def read_config(run: Run) -> Entry:
    """The settings that a run was begun with.

    Raises:
        ConfigError: the file is damaged.
    """
    try:
        values = yaml.safe_load(run.config_path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{run.config_path}: damaged: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{run.config_path}: damaged: expected 'key: value' lines")
    return values


def detect_verb(config: Mapping[str, Any]) -> str:
    """Which verb began the run of these settings; empty where none of today's did."""
    needed = {verb: set(required) for verb, (_, required) in VERB_SETTINGS.items()}
    return next((verb for verb, keys in needed.items() if keys <= config.keys()), "")


def run_state(run: Run) -> str:
    """``finished``, ``running`` (a process trains it now) or ``stopped``."""
    if run.read_summary() is not None:
        return "finished"
    return "running" if run_lock.is_running(run.folder) else "stopped"


def non_default_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings, flat, that are not the verb's defaults; all of them where the verb is unknown."""
    verb, values = detect_verb(config), _flatten(config)
    if not verb:
        return values
    settings_class, required = VERB_SETTINGS[verb]
    defaults = _flatten(build_settings(settings_class, required).model_dump(mode="json"))
    return {k: v for k, v in values.items() if k in required or k not in defaults or defaults[k] != v}


def all_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Every setting, flat, with the verb's defaults where a run of an earlier version has none."""
    verb, values = detect_verb(config), _flatten(config)
    defaults = {}
    if verb:
        settings_class, required = VERB_SETTINGS[verb]
        defaults = _flatten(build_settings(settings_class, required).model_dump(mode="json"))
    found = {**defaults, **values}
    within = {key.rpartition(".")[0] for key in found}
    return {
        key: value for key, value in found.items() if value != {} and not (value is None and key in within)
    }


def summary_scores(summary: Mapping[str, Any]) -> dict[str, Entry]:
    """The scores of a finished run by name, each with what is known of its interval."""
    found: dict[str, Entry] = dict(summary.get("scores") or {})
    for name in ("loss", "bits_per_byte"):
        if name in summary:
            found[name] = {"value": summary[name], "n": summary.get("num_targets"), "interval": None}
    return found


def summary_baselines(summary: Mapping[str, Any]) -> dict[str, float]:
    """What stands beside the scores: n-gram losses, or the score that decides, of simple classifiers."""
    found = {name: summary[f"{name}_loss"] for name in ("unigram", "bigram") if f"{name}_loss" in summary}
    decides = next(iter(summary.get("scores") or {}), "")
    rows = summary.get("baselines") or {}
    return found | {name: row[decides]["value"] for name, row in rows.items() if decides in row}


def _component_values(
    summary: Mapping[str, Any], extract: Callable[[Mapping[str, Any]], Mapping[str, Any]]
) -> Entry:
    """What ``extract`` finds of each part of a mixture, by its and the part's name."""
    components = summary.get("mixture", {})
    return {
        f"{name}/{component}": value
        for component, found in components.items()
        for name, value in extract(found).items()
    }


def sparkline(values: Sequence[float], width: int = 48) -> str:
    """A curve as a row of bars, the highest value the tallest; of more values their means."""
    if not values:
        return ""
    size = max(1, -(-len(values) // width))
    means = [sum(values[i : i + size]) / len(values[i : i + size]) for i in range(0, len(values), size)]
    low, high = min(means), max(means)
    scale = (len(BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(BARS[round((mean - low) * scale)] for mean in means)


def _entry(folder: Path) -> Entry:
    """One line of the list; of a damaged run, what is wrong with it."""
    run = Run(folder)
    entry: Entry = {
        "run": str(folder), "verb": "", "family": "", "state": "damaged",
        "step": 0, "steps": None, "score": None,
    }  # fmt: skip
    entry["last_write"] = _last_write_time(folder)
    try:
        config, summary, rows = read_config(run), run.read_summary() or {}, read_metrics(run.metrics_path)
        plan = run.read_plan()
        entry |= {"verb": summary.get("verb") or detect_verb(config), "state": run_state(run)}
    except PretuneError as error:
        return entry | {"error": str(error)}
    steps = [row["step"] for row in rows if row["type"] == "step"]
    checks = [row["scores"] for row in rows if row["type"] == "evaluation"]
    lengths = [change["steps"][1] for change in plan.get("changes", ()) if "steps" in change]
    entry["family"] = summary.get("family") or config.get("family", "")
    entry["step"] = steps[-1] if steps else 0
    entry["steps"] = ([plan.get("steps"), *lengths])[-1]
    if checks:
        name, value = next(iter(checks[-1].items()))
        best = summary.get("loss", (summary.get("validation") or {}).get(name, value))
        entry["score"] = {"name": name, "value": best}
    return entry


def _find_runs(home: Path, depth: int) -> Iterator[Path]:
    if (home / "config.yaml").is_file():
        yield home
    if depth:
        for folder in sorted(p for p in home.iterdir() if p.is_dir() and p.name not in SKIPPED_FOLDERS):
            if not folder.name.endswith(".partial"):
                yield from _find_runs(folder, depth - 1)


def _last_write_time(folder: Path) -> str:
    """When the run last wrote."""
    names = ("summary.json", "metrics.jsonl", "config.yaml")
    times = [(folder / name).stat().st_mtime for name in names if (folder / name).exists()]
    return datetime.fromtimestamp(max(times), UTC).isoformat(timespec="seconds")


def _resume_step(run: Run) -> int:
    """The step that the same command would go on from."""
    newest = atomic_files.find_newest_valid(run.checkpoints_path, lambda _: None)
    return 0 if newest is None else int(newest.name.removeprefix("step-"))


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A tree of settings as dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = json.loads(json.dumps(value))
    return flat
