"""Runs by their settings: the values in which they differ, and those that differ in their seed alone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pretune.metrics.seeds import seed_std
from pretune.workflows.runs.runs import all_settings, detect_verb, non_default_settings, summary_scores

SEED_KEY = "training.seed"
IGNORED_SETTINGS = (SEED_KEY, "language")
"""Settings that make no other experiment."""
Configs = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class RunGroup:
    """Runs of one setting, each of another seed."""

    runs: tuple[str, ...]
    seeds: tuple[int, ...]

    @property
    def name(self) -> str:
        """The run that the group is named by."""
        return self.runs[0]


def setting_differences(configs: Configs) -> dict[str, dict[str, Any]]:
    """{setting: {run: value}} of those that are not the same in all, the defaults among the values.

    Where runs are of different verbs, settings that only some have are named if they were changed; None: the
    run has no such setting.
    """
    values = {name: all_settings(config) for name, config in configs.items()}
    keys = sorted({key for found in values.values() for key in found})
    if len({detect_verb(config) for config in configs.values()}) > 1:
        changed = {key for config in configs.values() for key in non_default_settings(config)}
        keys = [k for k in keys if k in changed or all(k in found for found in values.values())]
    table = {key: {name: found.get(key) for name, found in values.items()} for key in keys}
    return {key: row for key, row in table.items() if len({json.dumps(v) for v in row.values()}) > 1}


def group_runs(configs: Configs) -> tuple[RunGroup, ...]:
    """The runs of each setting, in the order in which they were named.

    A second run of the same setting and seed, a repeat, is in a group of its own.
    """
    found: dict[tuple[str, int], list[str]] = {}
    seeds = {}
    for name, config in configs.items():
        values = all_settings(config)
        seeds[name] = values.get(SEED_KEY, 0)
        setting = {key: value for key, value in values.items() if key not in IGNORED_SETTINGS}
        text = json.dumps([detect_verb(config), setting], sort_keys=True)
        repeat = 0
        while seeds[name] in {seeds[other] for other in found.get((text, repeat), ())}:
            repeat += 1
        found.setdefault((text, repeat), []).append(name)
    return tuple(RunGroup(tuple(names), tuple(seeds[n] for n in names)) for names in found.values())


def groups_to_dicts(
    groups: Sequence[RunGroup], summaries: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """The groups with the mean and the spread over seeds of every score that their runs share."""
    return [
        {"runs": list(group.runs), "seeds": list(group.seeds), "scores": _scores(group, summaries)}
        for group in groups
    ]


def _scores(group: RunGroup, summaries: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    scores = [summary_scores(summaries[name]) for name in group.runs]
    shared = [name for name in scores[0] if all(name in of_run for of_run in scores)]
    values = {name: [of_run[name]["value"] for of_run in scores] for name in shared}
    return {
        name: {"mean": sum(found) / len(found), "std": seed_std(found), "values": found}
        for name, found in values.items()
    }
