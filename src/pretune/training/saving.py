"""The checkpoints of a run: written whole, verified before anything changes, the best and the newest kept."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from pretune.checkpoint import store
from pretune.errors import CheckpointError
from pretune.training.average import WeightAverage
from pretune.training.optimizers import Optimizers
from pretune.training.outcome import Keeper, State

OPTIMIZER = "optimizer.safetensors"
TRAINED = "trained.safetensors"
"""The weights as trained, of a run whose checkpoints show their average as the model."""


class Saver:
    """Writes what a run needs to go on, and puts it back."""

    def __init__(
        self, folder: Path, keeper: Keeper, optimizer: Optimizers, average: WeightAverage | None, keep: int
    ) -> None:
        self.folder, self.keeper, self.optimizer = folder, keeper, optimizer
        self.average, self.keep = average, keep
        self._newest: int | None = None

    def holds(self, step: int) -> bool:
        """Is ``step`` saved? A resume from there comes to the same point, its evaluation made again."""
        return step == self._newest

    def averaged(self) -> AbstractContextManager[dict[str, torch.Tensor]]:
        """Within, the network is as it is to be judged and saved; with the weights as trained, if others."""
        return nullcontext({}) if self.average is None else self.average.shown()

    def save(self, state: State) -> None:
        """Write the checkpoint of ``state``; older ones go, but for the best.

        Raises:
            CheckpointError: the disk refused; what was saved before is untouched.
        """

        def fill(partial: Path) -> None:
            with self.averaged() as trained:
                self.keeper.write(partial)
            save_file(self.optimizer.state_tensors(), partial / OPTIMIZER)
            if trained:
                save_file(trained, partial / TRAINED)

        store.write_folder(store.checkpoint_path(self.folder, state.step), fill, about=vars(state))
        self._newest = state.step
        for old in store.checkpoints(self.folder)[self.keep :]:
            if state.best_step is None or old != store.checkpoint_path(self.folder, state.best_step):
                store.remove_folder(old)

    def resume(self, say: Callable[[str], None]) -> tuple[State, Path] | None:
        """Put the newest good checkpoint back; where it is and what it says. None: there is none."""
        store.clear_partial(self.folder)
        folder = store.newest_good(self.folder, say)
        return None if folder is None else (self.restore(folder, say), folder)

    def restore(self, folder: Path, say: Callable[[str], None]) -> State:
        """Put a checkpoint back: weights, average, optimiser; what it says.

        Raises:
            CheckpointError: it is damaged; nothing was changed.
        """
        state = State(**store.verify_folder(folder))
        self.keeper.restore(folder)
        if self.average is not None:
            self.average.restore(load_file(folder / TRAINED))
        self.optimizer.restore(load_file(folder / OPTIMIZER))
        self._newest = state.step
        if state.best_step is not None:
            try:
                store.verify_folder(store.checkpoint_path(self.folder, state.best_step))
            except CheckpointError as error:
                say(f"{error}; it was the best so far, which is now sought from step {state.step} on")
                state.best_step, state.best_scores = None, {}
        return state

    def choose(self, best: int, last: int) -> None:
        """At the end: the network is the one that was judged best."""
        if best != last:
            folder = store.checkpoint_path(self.folder, best)
            store.verify_folder(folder)
            self.keeper.restore(folder)
        elif self.average is not None:
            self.average.apply()
