"""How a run begins, or is found again, and what it leaves: the same for pretraining and fine-tuning."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pretune.config import Settings
from pretune.data.sources import identities
from pretune.training import machine
from pretune.training.changes import replay
from pretune.training.progress import Reporter, Silent
from pretune.training.run import Run, default_folder
from pretune.training.world import World


@dataclass(frozen=True)
class RunResult:
    """What a run leaves behind."""

    folder: Path
    summary: Mapping[str, Any]

    @property
    def model(self) -> Path:
        """The model folder, in Hugging Face layout."""
        return self.folder / "model"

    @property
    def report(self) -> Path:
        """The page that shows the run."""
        return self.folder / "report.html"


def carried_out(
    work: Callable[[Run, World, Reporter], Mapping[str, Any]],
    verb: str,
    settings: Settings,
    data: Sequence[str],
    *,
    out: str | Path | None,
    changes: str | Path | None,
    reporter: Reporter | None,
) -> RunResult:
    """What ``work`` makes of a run, its summary, alone or with the ranks that torchrun started.

    A run that has ended is left as it is. Rank 0 opens the run first, and its reporter alone is heard.
    ``changes`` is the ``plan.json`` of a run whose steps and changes in mid-run are to be made again.

    Raises:
        ConfigError: the folder holds a run of other settings, or other files; or ``changes`` is no plan.
    """
    machine.prepare()
    with World.opened() as world:
        heard = reporter if reporter and world.main else Silent()
        with world.in_turn():
            run, finished = _opened(verb, settings, data, out=out, changes=changes, reporter=heard)
        return RunResult(run.folder, work(run, world, heard) if finished is None else finished)


def _opened(
    verb: str,
    settings: Settings,
    data: Sequence[str],
    *,
    out: str | Path | None,
    changes: str | Path | None,
    reporter: Reporter,
) -> tuple[Run, Mapping[str, Any] | None]:
    """The run in ``out`` (or in the folder that settings and data name), and its summary if it has ended."""
    folder = Path(out) if out else default_folder(verb, settings, identities(data))
    run = Run.open(folder, settings)
    if changes is not None:
        with run.starting():
            replay(run, Path(changes))
    finished = run.summary()
    ended = "" if finished is None else ": this run is complete"
    reporter.say(f"{run.folder}{ended}")
    return run, finished
