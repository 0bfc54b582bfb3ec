"""Settings that change in mid-run: asked for at any time, recorded with the step from which they hold.

Recorded changes stand in the ``changes`` of the run's plan, beside the corrections of its length and the
steps that were left out (see `spike_guard`), each as ``{"step", "values": {key: value},
"requested_at"}``. What holds at a step is a function of the plan alone, so a resume and a repeat make each
change again at its step. While a process trains, it alone writes the plan: whoever wants a change leaves a
request in the run's folder, which is taken up between two steps.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from pretune.config import apply_overrides, build_settings
from pretune.errors import CheckpointError, ConfigError, suggestion
from pretune.runtime import state_file
from pretune.runtime.distributed import World
from pretune.runtime.plan_file import RunPlan as RunPlan
from pretune.runtime.run_folder import Run
from pretune.training.callbacks.base import Callback
from pretune.training.optimizers.optimizers import Optimizers
from pretune.training.settings import TrainingSettings
from pretune.training.train_state import TrainState

ADJUSTABLE_KEYS = (
    "training.optimizer.learning_rate",
    "training.optimizer.muon_learning_rate",
    "training.optimizer.weight_decay",
    "training.clip",
)
"""What may change: it enters an update as it stands, and nothing that was decided before depends on it."""
REQUESTS_FOLDER = "requests"

PlanDict = Mapping[str, Any]


class Adjustments(Callback):
    """Accepts requests between two steps, and lets each recorded change hold from its step on."""

    def __init__(
        self,
        run: Run,
        settings: TrainingSettings,
        optimizer: Optimizers,
        world: World,
        say: Callable[[str], None],
    ) -> None:
        self.run, self.optimizer, self.world, self.say = run, optimizer, world, say
        self.settings = settings
        """As they are at the step that is next."""
        self._initial_settings = settings
        self._plan: PlanDict = {}
        self._active: list[Mapping[str, Any]] = []

    def load_plan(self, plan: PlanDict) -> None:
        """Take the changes from the plan of the run, once that is made or read."""
        self._plan = plan

    def on_step_start(self, state: TrainState) -> None:
        """Accept requests, and update the optimizer where the changes that hold are others than before."""
        plan = self.world.on_main(lambda: self._accept(state.step))
        self._plan = self._plan if plan is None else plan
        active = active_changes(self._plan, state.step)
        if active != self._active:
            self._active = active
            self.settings = settings_at(self._initial_settings, self._plan, state.step)
            self.optimizer.update_hyperparameters(self.settings.optimizer)

    def _accept(self, step: int) -> dict[str, Any] | None:
        """The plan with the changes that were asked for since the last step, if there are any."""
        done, refused = accept_requests(self.run, self._initial_settings, step)
        for line in (*done, *refused):
            self.say(line)
        return self.run.read_plan() if done else None


def apply_changes(settings: TrainingSettings, values: Mapping[str, Any]) -> TrainingSettings:
    """The settings with the adjusted ``values`` in their place.

    Raises:
        ConfigError: a key that may not change in mid-run or does nothing here, or a value that cannot be.
    """
    for key in values:
        if key not in ADJUSTABLE_KEYS:
            raise ConfigError(f"{key}: may not change in mid-run; {suggestion(key, ADJUSTABLE_KEYS)}")
        if key.endswith("muon_learning_rate") and settings.optimizer.name != "muon":
            raise ConfigError(
                f"{key}: this run's optimiser is {settings.optimizer.name!r}; it has no such rate"
            )
    tree = {"training": settings.model_dump(mode="json")}
    # JSON of a number is YAML as well, and what is no number is refused as the settings refuse it.
    tree = apply_overrides(tree, [f"{key}={json.dumps(value)}" for key, value in values.items()])
    return build_settings(TrainingSettings, tree["training"], where="training")


def active_changes(plan: PlanDict, step: int) -> list[Mapping[str, Any]]:
    """What was set up to ``step``, in the order in which it holds."""
    return [c["values"] for c in plan.get("changes", ()) if "values" in c and c["step"] <= step]


def settings_at(settings: TrainingSettings, plan: PlanDict, step: int) -> TrainingSettings:
    """The settings that hold at ``step``: as the run began, with every change up to there."""
    for values in active_changes(plan, step):
        settings = apply_changes(settings, values)
    return settings


def request_changes(run: Run, values: Mapping[str, Any]) -> None:
    """Leave a request for the process that trains this run, or for the one that will go on with it."""
    requested_at = time.time_ns()
    state_file.write(
        run.folder / REQUESTS_FOLDER / f"{requested_at}.json",
        {"values": dict(values), "requested_at": requested_at},
    )


def record_change(
    run: Run, values: Mapping[str, Any], step: int, requested_at: int | None = None
) -> dict[str, Any]:
    """Write a change that holds from ``step`` on into the run's plan, once."""
    plan = run.read_plan()
    requested_at = time.time_ns() if requested_at is None else requested_at
    changes = plan.setdefault("changes", [])
    if all(change.get("requested_at") != requested_at for change in changes):
        changes.append({"step": step, "values": dict(values), "requested_at": requested_at})
        run.write_plan(plan)
    return plan


def accept_requests(run: Run, settings: TrainingSettings, step: int) -> tuple[list[str], list[str]]:
    """Record the requests that lie in the run's folder as holding from ``step`` on: (done, refused)."""
    done, refused = [], []
    for path in pending_requests(run.folder):
        try:
            values, requested_at = _read_request(path)
            apply_changes(settings_at(settings, run.read_plan(), step), values)
            record_change(run, values, step, requested_at)
            done += [f"{key} = {value:g} from step {step} on" for key, value in values.items()]
        except (CheckpointError, ConfigError) as error:
            refused.append(str(error) if str(path) in str(error) else f"{path}: {error}")
        path.unlink(missing_ok=True)  # last: a process that dies before this finds the change recorded
    return done, refused


def pending_requests(folder: Path) -> list[Path]:
    """The requests that wait, oldest first."""
    return sorted((folder / REQUESTS_FOLDER).glob("*.json"), key=lambda path: path.name)


def replay_plan(run: Run, path: Path) -> None:
    """Begin a run with the number of steps and the changes of another one's ``plan.json``.

    Raises:
        ConfigError: it is no plan, or the run has begun without it.
    """
    try:
        source = state_file.read_unverified(path, "give RUN/plan.json") or {}
        if state_file.CHECKSUM_KEY in source:  # one that a person wrote has none
            source = state_file.read(path, "give RUN/plan.json") or {}
        state_file.check_schema(path, source, RunPlan, "give RUN/plan.json")
        replayed = {key: source[key] for key in ("steps", "machine", "data", "changes")}
        replayed |= {key: source[key] for key in ("micro_batch_limits",) if key in source}
    except (KeyError, CheckpointError) as error:
        raise ConfigError(f"{path}: no plan of a run ({error}); give RUN/plan.json") from None
    existing = run.read_plan()
    if not existing:
        run.write_plan(replayed | {"is_replay": True})
    elif (
        not existing.get("is_replay")
        or existing["changes"][: len(replayed["changes"])] != replayed["changes"]
    ):
        raise ConfigError(
            f"{run.folder}: has begun without the changes of {path}; give another folder with --out"
        )


class ChangeRequest(state_file.StateSchema):
    """A request for changes, as it waits in a file."""

    old_keys: ClassVar[Mapping[str, str]] = {"set": "values", "asked": "requested_at"}
    values: dict[str, float]
    requested_at: int


def _read_request(path: Path) -> tuple[dict[str, float], int]:
    content = state_file.read(path, "ask for the change again (pretune runs adjust)", ChangeRequest)
    if content is None:
        raise CheckpointError("no request for a change: it is gone")
    return {key: float(value) for key, value in content["values"].items()}, content["requested_at"]


def describe_changes(changes: Iterable[Mapping[str, Any]]) -> list[str]:
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
            loss, norm = change["loss_and_norm"][str(change["step"])]
            lines.append(f"step {change['step']:,} is left out: loss {loss}, gradient norm {norm}")
        else:
            values = ", ".join(f"{key} = {value:g}" for key, value in change.get("values", {}).items())
            lines.append(f"from step {change['step']:,}: {values}")
    return lines
