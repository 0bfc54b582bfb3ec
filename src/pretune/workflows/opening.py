"""How a run begins, or is found again: the same for pretraining and fine-tuning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pretune.config import Settings
from pretune.data.sources import identities
from pretune.training.changes import replay
from pretune.training.progress import Reporter
from pretune.training.run import Run, default_folder


def open_run(
    verb: str,
    settings: Settings,
    data: Sequence[str],
    *,
    out: str | Path | None,
    changes: str | Path | None,
    reporter: Reporter,
) -> tuple[Run, Mapping[str, Any] | None]:
    """The run in ``out`` (or in the folder that settings and data name), and its summary if it has ended.

    ``changes`` is the ``plan.json`` of a run whose steps and changes in mid-run are to be made again.

    Raises:
        ConfigError: the folder holds a run of other settings, or other files; or ``changes`` is no plan.
    """
    folder = Path(out) if out else default_folder(verb, settings, identities(data))
    run = Run.open(folder, settings)
    if changes is not None:
        with run.starting():
            replay(run, Path(changes))
    finished = run.summary()
    ended = "" if finished is None else ": this run is complete"
    reporter.say(f"{run.folder}{ended}")
    return run, finished
