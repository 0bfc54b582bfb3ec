"""Settings that change in mid-run: asked for at any time, recorded with the step from which they hold.

Recorded changes stand in the ``changes`` of the run's plan, beside the corrections of its length and the
steps that were left out (see `recovery`), each as ``{"step", "set": {key: value}, "asked"}``. What holds at a
step is a function of the plan alone, so a resume and a repeat make each change again at its step. While a
process trains, it alone writes the plan: whoever wants a change leaves a request in the run's folder, which
is taken up between two steps.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pretune.config import build, override
from pretune.errors import CheckpointError, ConfigError, suggestion
from pretune.runtime import state_file
from pretune.runtime.plan_file import Plan as PlanForm
from pretune.runtime.run_folder import Run
from pretune.training.settings import TrainingSettings

ADJUSTABLE = (
    "training.optimizer.learning_rate",
    "training.optimizer.muon_learning_rate",
    "training.optimizer.weight_decay",
    "training.clip",
)
"""What may change: it enters an update as it stands, and nothing that was decided before depends on it."""
REQUESTS = "requests"

Plan = Mapping[str, Any]


def checked(settings: TrainingSettings, values: Mapping[str, Any]) -> TrainingSettings:
    """The settings with the adjusted ``values`` in their place.

    Raises:
        ConfigError: a key that may not change in mid-run or does nothing here, or a value that cannot be.
    """
    for key in values:
        if key not in ADJUSTABLE:
            raise ConfigError(f"{key}: may not change in mid-run; {suggestion(key, ADJUSTABLE)}")
        if key.endswith("muon_learning_rate") and settings.optimizer.name != "muon":
            raise ConfigError(
                f"{key}: this run's optimiser is {settings.optimizer.name!r}; it has no such rate"
            )
    tree = {"training": settings.model_dump(mode="json")}
    # JSON of a number is YAML as well, and what is no number is refused as the settings refuse it.
    tree = override(tree, [f"{key}={json.dumps(value)}" for key, value in values.items()])
    return build(TrainingSettings, tree["training"], where="training")


def made(plan: Plan, step: int) -> list[Mapping[str, Any]]:
    """What was set up to ``step``, in the order in which it holds."""
    return [c["set"] for c in plan.get("changes", ()) if "set" in c and c["step"] <= step]


def in_effect(settings: TrainingSettings, plan: Plan, step: int) -> TrainingSettings:
    """The settings that hold at ``step``: as the run began, with every change up to there."""
    for values in made(plan, step):
        settings = checked(settings, values)
    return settings


def request(run: Run, values: Mapping[str, Any]) -> None:
    """Leave a request for the process that trains this run, or for the one that will go on with it."""
    asked = time.time_ns()
    state_file.write(run.folder / REQUESTS / f"{asked}.json", {"set": dict(values), "asked": asked})


def record(run: Run, values: Mapping[str, Any], step: int, asked: int | None = None) -> dict[str, Any]:
    """Write a change that holds from ``step`` on into the run's plan, once."""
    plan = run.plan()
    asked = time.time_ns() if asked is None else asked
    changes = plan.setdefault("changes", [])
    if all(change.get("asked") != asked for change in changes):
        changes.append({"step": step, "set": dict(values), "asked": asked})
        run.write_plan(plan)
    return plan


def take_up(run: Run, settings: TrainingSettings, step: int) -> tuple[list[str], list[str]]:
    """Record the requests that lie in the run's folder as holding from ``step`` on: (done, refused)."""
    done, refused = [], []
    for path in requests(run.folder):
        try:
            values, asked = _read_request(path)
            checked(in_effect(settings, run.plan(), step), values)
            record(run, values, step, asked)
            done += [f"{key} = {value:g} from step {step} on" for key, value in values.items()]
        except (CheckpointError, ConfigError) as error:
            refused.append(str(error) if str(path) in str(error) else f"{path}: {error}")
        path.unlink(missing_ok=True)  # last: a process that dies before this finds the change recorded
    return done, refused


def requests(folder: Path) -> list[Path]:
    """The requests that wait, oldest first."""
    return sorted((folder / REQUESTS).glob("*.json"), key=lambda path: path.name)


def replay(run: Run, path: Path) -> None:
    """Begin a run with the number of steps and the changes of another one's ``plan.json``.

    Raises:
        ConfigError: it is no plan, or the run has begun without it.
    """
    try:
        source = state_file.read_any(path, "give RUN/plan.json") or {}
        if state_file.CHECKSUM in source:  # one that a person wrote has none
            source = state_file.read(path, "give RUN/plan.json") or {}
        state_file.check(path, source, PlanForm, "give RUN/plan.json")
        kept = {key: source[key] for key in ("steps", "machine", "data", "changes")}
        kept |= {key: source[key] for key in ("memory",) if key in source}
    except (KeyError, CheckpointError) as error:
        raise ConfigError(f"{path}: no plan of a run ({error}); give RUN/plan.json") from None
    there = run.plan()
    if not there:
        run.write_plan(kept | {"replayed": True})
    elif not there.get("replayed") or there["changes"][: len(kept["changes"])] != kept["changes"]:
        raise ConfigError(
            f"{run.folder}: has begun without the changes of {path}; give another folder with --out"
        )


class Request(state_file.Form):
    """A request for changes, as it waits in a file."""

    set: dict[str, float]
    asked: int


def _read_request(path: Path) -> tuple[dict[str, float], int]:
    content = state_file.read(path, "ask for the change again (pretune runs adjust)", Request)
    if content is None:
        raise CheckpointError("no request for a change: it is gone")
    return {key: float(value) for key, value in content["set"].items()}, content["asked"]


def described(changes: Iterable[Mapping[str, Any]]) -> list[str]:
    """Each change as a line, as ``runs show`` prints them."""
    lines = []
    for change in changes:
        if "steps" in change:
            old, new = change["steps"]
            lines.append(f"from step {change['step']:,}: {old:,} steps became {new:,}")
        elif "rolled_back_at" in change:
            lines.append(
                f"from step {change['step']:,}: {len(change['skip'])} steps are left out, for the last of "
                f"them were bad (at step {change['rolled_back_at']:,} the run went back)"
            )
        elif "skip" in change:
            loss, norm = change["found"][str(change["step"])]
            lines.append(f"step {change['step']:,} is left out: loss {loss}, gradient norm {norm}")
        else:
            values = ", ".join(f"{key} = {value:g}" for key, value in change.get("set", {}).items())
            lines.append(f"from step {change['step']:,}: {values}")
    return lines
