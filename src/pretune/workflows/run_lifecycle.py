"""How a run begins, or is found again, and what it leaves: the same for pretraining and fine-tuning."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pretune.config import Settings
from pretune.data.sources.records import source_identities
from pretune.runtime import device, run_lock
from pretune.runtime.distributed import World
from pretune.runtime.progress import NullReporter, Reporter
from pretune.runtime.run_folder import Run, default_folder
from pretune.training.adjustments import replay_plan
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


def start_or_resume(
    execute: Callable[[Run, World, Reporter], Mapping[str, Any]],
    verb: str,
    settings: Settings,
    sources: Sequence[str],
    *,
    out: str | Path | None,
    changes: str | Path | None,
    reporter: Reporter | None,
) -> RunResult:
    """What ``execute`` makes of a run, its summary, alone or with the ranks that torchrun started.

    A run that has ended is left as it is, if its model is. Rank 0 opens the run first, it alone holds the
    run's lock from before the first byte to the last, and its reporter alone is heard. ``changes`` is the
    ``plan.json`` of a run whose steps and changes in mid-run are to be made again.

    Raises:
        ConfigError: the folder holds a run of other settings, or other files, or another process works on
            it; or ``changes`` is no plan.
    """
    device.configure()
    with World.init_process_group() as world, ExitStack() as held:
        main_reporter = reporter if reporter and world.is_main else NullReporter()
        with world.main_first():
            folder = Path(out) if out else default_folder(verb, settings, source_identities(sources))
            if world.is_main and not finished_run.is_complete(Run(folder), settings):
                held.enter_context(_lock_run(folder))
            run, finished = _open_run(folder, settings, changes=changes, reporter=main_reporter)
        return RunResult(run.folder, execute(run, world, main_reporter) if finished is None else finished)


@contextmanager
def _lock_run(folder: Path) -> Iterator[None]:
    """The run is this process's own; a folder that was made for it and is empty at the end goes again."""
    created = not folder.exists()
    try:
        with run_lock.lock_run(folder):
            yield
    finally:
        if created:
            with suppress(OSError):  # it holds something
                folder.rmdir()


def _open_run(
    folder: Path, settings: Settings, *, changes: str | Path | None, reporter: Reporter
) -> tuple[Run, Mapping[str, Any] | None]:
    """The run in ``folder``, and its summary if it has ended."""
    run = Run.open(folder, settings)
    if changes is not None:
        with run.discard_on_error():
            replay_plan(run, Path(changes))
    run.restore_plan(reporter.say)
    finished = finished_run.load_summary(run, reporter.say)
    ended = "" if finished is None else ": this run is complete"
    reporter.say(f"{run.folder}{ended}")
    return run, finished
