"""The checkpoints of a run: written whole, verified before anything changes, the best and the newest kept.

However many ranks train and whatever each of them holds, rank 0 writes the one folder that a process alone
would write, so that any number of ranks can go on from it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import zstandard
from safetensors.torch import load_file, save_file

from pretune.errors import CheckpointError
from pretune.runtime import atomic_files
from pretune.runtime.run_folder import PLAN, Run
from pretune.runtime.state_file import write as write_state
from pretune.training.ddp import Parallel
from pretune.training.ema import WeightAverage
from pretune.training.optimizers.optimizers import Optimizers
from pretune.training.sharding import whole_of
from pretune.training.train_state import Keeper, State

OPTIMIZER = "optimizer.safetensors"
TRAINED = "trained.safetensors"
"""The weights as trained, of a run whose checkpoints show their average as the model."""
TRIAL = ".trial.partial"
"""Written to be timed. What a killed process leaves of it is removed like any other part of a checkpoint."""
LOG = "metrics.jsonl.zst"
"""The run's log up to here: what a report needs must not hang on one file that lies open for days."""


class Saver:
    """Writes what a run needs to go on, and puts it back."""

    def __init__(
        self,
        run: Run,
        keeper: Keeper,
        optimizer: Optimizers,
        average: WeightAverage | None,
        keep: int,
        parallel: Parallel,
    ) -> None:
        self.parallel, self.world = parallel, parallel.world
        self.run, self.folder = run, run.checkpoints
        self.keeper, self.optimizer = keeper, optimizer
        self.average, self.keep = average, keep
        self._newest: int | None = None

    def holds(self, step: int) -> bool:
        """Is ``step`` saved? A resume from there comes to the same point, its evaluation made again."""
        return step == self._newest

    @contextmanager
    def shown(self) -> Iterator[dict[str, torch.Tensor]]:
        """Within, the keeper's network is as it is to be judged and saved; with the weights as trained, if
        others.
        """
        if self.average is None:
            self.parallel.gather()
            yield {}
            return
        with self.average.shown() as trained:
            self.parallel.gather()
            yield {name: whole_of(weight) for name, weight in trained.items()}

    def save(self, state: State, log: Callable[[], bytes]) -> None:
        """Write the checkpoint of ``state``; older ones go, but for the best. ``log`` gives the log so far.

        Raises:
            CheckpointError: the disk refused; what was saved before is untouched.
        """
        tensors = self.optimizer.state_tensors()
        with self.shown() as trained:
            self.world.lead(lambda: self._write(state, tensors, trained, log()))
        self._newest = state.step

    def try_save(self, optimizer: Optimizers) -> None:
        """Write a checkpoint with the state of ``optimizer`` and remove it, to see what that costs."""
        tensors, folder = optimizer.state_tensors(), self.folder / TRIAL

        def write() -> None:
            atomic_files.write_folder(folder, lambda partial: self._fill(partial, tensors, trained))
            atomic_files.remove_folder(folder)

        with self.shown() as trained:
            self.world.lead(write)

    def _fill(self, folder: Path, tensors: dict[str, torch.Tensor], trained: dict[str, torch.Tensor]) -> None:
        self.keeper.write(folder)
        save_file(tensors, folder / OPTIMIZER)
        if trained:
            save_file(trained, folder / TRAINED)

    def _write(
        self, state: State, tensors: dict[str, torch.Tensor], trained: dict[str, torch.Tensor], log: bytes
    ) -> None:
        folder = atomic_files.checkpoint_path(self.folder, state.step)
        plan = self.run.plan()

        def fill(partial: Path) -> None:
            self._fill(partial, tensors, trained)
            (partial / LOG).write_bytes(zstandard.compress(log))
            write_state(partial / PLAN, plan)

        atomic_files.write_folder(folder, fill, about=vars(state))
        for old in atomic_files.checkpoints(self.folder)[self.keep :]:
            if state.best_step is None or old != atomic_files.checkpoint_path(self.folder, state.best_step):
                atomic_files.remove_folder(old)

    def resume(self, say: Callable[[str], None]) -> tuple[State, Path] | None:
        """Put the newest good checkpoint back; where it is and what it says. None: there is none."""
        name = self.world.lead(lambda: self._found(say))
        if name is None:
            return None
        folder = self.folder / name
        return self.restore(folder, say), folder

    def restore(self, folder: Path, say: Callable[[str], None]) -> State:
        """Put a checkpoint back: weights, average, optimiser; what it says.

        Raises:
            CheckpointError: it is damaged; nothing was changed.
        """
        state = State(**self.world.lead(lambda: self._verified(folder, say)))
        self.keeper.restore(folder)
        self.parallel.spread()
        if self.average is not None:
            self.average.restore(load_file(folder / TRAINED))
        self.optimizer.restore(load_file(folder / OPTIMIZER))
        self._newest = state.step
        return state

    def _found(self, say: Callable[[str], None]) -> str | None:
        """The name of the newest good checkpoint."""
        atomic_files.clear_partial(self.folder)
        folder = atomic_files.newest_good(self.folder, say)
        return None if folder is None else folder.name

    def _verified(self, folder: Path, say: Callable[[str], None]) -> dict[str, Any]:
        """What a checkpoint says; without the best so far, where that is damaged."""
        about = atomic_files.verify_folder(folder)
        if about["best_step"] is not None:
            try:
                atomic_files.verify_folder(atomic_files.checkpoint_path(self.folder, about["best_step"]))
            except CheckpointError as error:
                say(f"{error}; it was the best so far, which is now sought from step {about['step']} on")
                about |= {"best_step": None, "best_scores": {}}
        return about

    def log_of(self, folder: Path) -> bytes:
        """The log up to a checkpoint that was verified.

        Raises:
            CheckpointError: it has none.
        """
        try:
            return zstandard.ZstdDecompressor().decompressobj().decompress((folder / LOG).read_bytes())
        except (OSError, zstandard.ZstdError) as error:
            raise CheckpointError(
                f"{folder / LOG}: cannot be read: {error}; it is of another version of pretune, or damaged: "
                "remove the checkpoint to go on from the one before"
            ) from None

    def choose(self, best: int, last: int) -> None:
        """At the end: the keeper's network is the one that was judged best."""
        if best != last:
            folder = atomic_files.checkpoint_path(self.folder, best)
            self.world.lead(lambda: atomic_files.verify_folder(folder))
            self.keeper.restore(folder)
            return
        if self.average is not None:
            self.average.apply()
        self.parallel.gather()
