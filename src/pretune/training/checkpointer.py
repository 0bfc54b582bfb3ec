"""The checkpoints of a run: written whole, verified before anything changes, the best and the newest kept.

However many ranks train and whatever each of them holds, rank 0 writes the one folder that a process alone
would write, so that any number of ranks can go on from it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
import zstandard
from safetensors.torch import load_file, save_file

from pretune.errors import CheckpointError
from pretune.runtime import atomic_files
from pretune.runtime.metrics_reader import REPEAT_ADVICE
from pretune.runtime.run_folder import PLAN_FILE, Run
from pretune.runtime.state_file import renamed_error
from pretune.runtime.state_file import write as write_state
from pretune.training.callbacks.ema import EMA
from pretune.training.ddp import Parallel
from pretune.training.optimizers.optimizers import Optimizers
from pretune.training.sharding import full_tensor
from pretune.training.train_state import ModelIO, TrainState

OPTIMIZER_FILE = "optimizer.safetensors"
TRAINED_WEIGHTS_FILE = "training_weights.safetensors"
"""The weights as trained, of a run whose checkpoints show their average as the model."""
TRIAL_FOLDER = ".trial.partial"
"""Written to be timed. What a killed process leaves of it is removed like any other part of a checkpoint."""
LOG_FILE = "metrics.jsonl.zst"
"""The run's log up to here: what a report needs must not hang on one file that lies open for days."""


class Checkpointer:
    """Writes what a run needs to go on, and puts it back."""

    def __init__(
        self,
        run: Run,
        model_io: ModelIO,
        optimizer: Optimizers,
        ema: EMA | None,
        max_checkpoints: int,
        parallel: Parallel,
    ) -> None:
        self.parallel, self.world = parallel, parallel.world
        self.run, self.folder = run, run.checkpoints_path
        self.model_io, self.optimizer = model_io, optimizer
        self.ema, self.max_checkpoints = ema, max_checkpoints
        self._last_saved_step: int | None = None
        self.has_unsaved_updates = False
        """Did a step change the weights since they were saved or put back?"""

    def is_saved(self, step: int) -> bool:
        """Is ``step`` saved? A resume from there comes to the same point, its evaluation made again."""
        return step == self._last_saved_step

    @contextmanager
    def swapped_in(self) -> Iterator[dict[str, torch.Tensor]]:
        """Within, the keeper's network is as it is to be judged and saved; with the weights as trained, if
        others.
        """
        if self.ema is None:
            self.parallel.unshard_into()
            yield {}
            return
        with self.ema.swapped_in() as trained:
            self.parallel.unshard_into()
            yield {name: full_tensor(weight) for name, weight in trained.items()}

    def save(self, state: TrainState, log: Callable[[], bytes]) -> None:
        """Write the checkpoint of ``state``; older ones go, but for the best. ``log`` gives the log so far.

        Raises:
            CheckpointError: the disk refused; what was saved before is untouched.
        """
        tensors = self.optimizer.state_tensors()
        with self.swapped_in() as trained:
            self.world.on_main(lambda: self._write_checkpoint(state, tensors, trained, log()))
        self._last_saved_step, self.has_unsaved_updates = state.step, False

    def trial_save(self, optimizer: Optimizers) -> None:
        """Write a checkpoint with the state of ``optimizer`` and remove it, to see what that costs."""
        tensors, folder = optimizer.state_tensors(), self.folder / TRIAL_FOLDER

        def write() -> None:
            atomic_files.write_folder(folder, lambda partial: self._write_files(partial, tensors, trained))
            atomic_files.remove_folder(folder)

        with self.swapped_in() as trained:
            self.world.on_main(write)

    def _write_files(
        self, folder: Path, tensors: dict[str, torch.Tensor], trained: dict[str, torch.Tensor]
    ) -> None:
        self.model_io.write(folder)
        save_file(tensors, folder / OPTIMIZER_FILE)
        if trained:
            save_file(trained, folder / TRAINED_WEIGHTS_FILE)

    def _write_checkpoint(
        self,
        state: TrainState,
        tensors: dict[str, torch.Tensor],
        trained: dict[str, torch.Tensor],
        log: bytes,
    ) -> None:
        folder = atomic_files.checkpoint_path(self.folder, state.step)
        plan = self.run.read_plan()

        def fill(partial: Path) -> None:
            self._write_files(partial, tensors, trained)
            (partial / LOG_FILE).write_bytes(zstandard.compress(log))
            write_state(partial / PLAN_FILE, plan)

        atomic_files.write_folder(folder, fill, metadata=vars(state))
        for old in atomic_files.list_checkpoints(self.folder)[self.max_checkpoints :]:
            if state.best_step is None or old != atomic_files.checkpoint_path(self.folder, state.best_step):
                atomic_files.remove_folder(old)

    def resume(self, say: Callable[[str], None]) -> tuple[TrainState, Path] | None:
        """Put the newest good checkpoint back; where it is and what it says. None: there is none."""
        name = self.world.on_main(lambda: self._find_newest(say))
        if name is None:
            return None
        folder = self.folder / name
        return self.restore(folder, say), folder

    def restore(self, folder: Path, say: Callable[[str], None]) -> TrainState:
        """Put a checkpoint back: weights, average, optimiser; what it says.

        Raises:
            CheckpointError: it is damaged; nothing was changed.
        """
        state = TrainState(**self.world.on_main(lambda: self._verify(folder, say)))
        self.model_io.restore(folder)
        self.parallel.load_from()
        if self.ema is not None:
            self.ema.restore(load_file(folder / TRAINED_WEIGHTS_FILE))
        self.optimizer.load_state_tensors(load_file(folder / OPTIMIZER_FILE))
        self._last_saved_step, self.has_unsaved_updates = state.step, False
        return state

    def _find_newest(self, say: Callable[[str], None]) -> str | None:
        """The name of the newest good checkpoint."""
        atomic_files.clear_partial(self.folder)
        folder = atomic_files.find_newest_valid(self.folder, say)
        return None if folder is None else folder.name

    def _verify(self, folder: Path, say: Callable[[str], None]) -> dict[str, Any]:
        """What a checkpoint says; without the best so far, where that is damaged."""
        state = atomic_files.verify_folder(folder)
        old = sorted(state.keys() - {field.name for field in fields(TrainState)})
        if old:
            raise renamed_error(
                folder / atomic_files.MANIFEST, f"there is no key {', '.join(old)} now", REPEAT_ADVICE
            )
        if state["best_step"] is not None:
            try:
                atomic_files.verify_folder(atomic_files.checkpoint_path(self.folder, state["best_step"]))
            except CheckpointError as error:
                say(f"{error}; it was the best so far, which is now sought from step {state['step']} on")
                state |= {"best_step": None, "best_scores": {}}
        return state

    def read_log(self, folder: Path) -> bytes:
        """The log up to a checkpoint that was verified.

        Raises:
            CheckpointError: it has none.
        """
        try:
            return zstandard.ZstdDecompressor().decompressobj().decompress((folder / LOG_FILE).read_bytes())
        except (OSError, zstandard.ZstdError) as error:
            raise CheckpointError(
                f"{folder / LOG_FILE}: cannot be read: {error}; it is of another version of pretune, or "
                "damaged: "
                "remove the checkpoint to go on from the one before"
            ) from None

    def load_best(self, best: int, last: int) -> None:
        """At the end: the keeper's network is the one that was judged best."""
        if best != last:
            folder = atomic_files.checkpoint_path(self.folder, best)
            self.world.on_main(lambda: atomic_files.verify_folder(folder))
            self.model_io.restore(folder)
            return
        if self.ema is not None:
            self.ema.copy_to_network()
        self.parallel.unshard_into()
