"""How a run begins, or is found again, and what it leaves: the same for pretraining and fine-tuning."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pretune.config import Settings
from pretune.data.sources.records import identities
from pretune.runtime import device, run_lock
from pretune.runtime.distributed import World
from pretune.runtime.progress import Reporter, Silent
from pretune.runtime.run_folder import Run, default_folder
from pretune.training.adjustments import replay
from pretune.workflows import finished_run


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

    A run that has ended is left as it is, if its model is. Rank 0 opens the run first, it alone holds the
    run's lock from before the first byte to the last, and its reporter alone is heard. ``changes`` is the
    ``plan.json`` of a run whose steps and changes in mid-run are to be made again.

    Raises:
        ConfigError: the folder holds a run of other settings, or other files, or another process works on
            it; or ``changes`` is no plan.
    """
    device.prepare()
    with World.opened() as world, ExitStack() as held:
        heard = reporter if reporter and world.main else Silent()
        with world.in_turn():
            folder = Path(out) if out else default_folder(verb, settings, identities(data))
            if world.main and not finished_run.is_whole(Run(folder), settings):
                held.enter_context(_held(folder))
            run, finished = _opened(folder, settings, changes=changes, reporter=heard)
        return RunResult(run.folder, work(run, world, heard) if finished is None else finished)


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """The run is this process's own; a folder that was made for it and is empty at the end goes again."""
    made = not folder.exists()
    try:
        with run_lock.held(folder):
            yield
    finally:
        if made:
            with suppress(OSError):  # it holds something
                folder.rmdir()


def _opened(
    folder: Path, settings: Settings, *, changes: str | Path | None, reporter: Reporter
) -> tuple[Run, Mapping[str, Any] | None]:
    """The run in ``folder``, and its summary if it has ended."""
    run = Run.open(folder, settings)
    if changes is not None:
        with run.starting():
            replay(run, Path(changes))
    run.mend_plan(reporter.say)
    finished = finished_run.summary(run, reporter.say)
    ended = "" if finished is None else ": this run is complete"
    reporter.say(f"{run.folder}{ended}")
    return run, finished
