"""The batches of a step: which features, in which rows, in which micro-batches of which rank.

What is in a step, and which of it share a row, is decided for all ranks together; row r then goes to rank
r modulo their number, and each rank builds its own rows only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from pretune.data.order import StepPlan, training_rng
from pretune.data.packing import pack_tight
from pretune.errors import ConfigError
from pretune.objectives import Objective
from pretune.runtime.distributed import World
from pretune.training.settings import TrainingSettings
from pretune.types import Batch, Example, FeatureStore, IntArray, Traits

MICRO_BATCH_TOKENS = 4096


@dataclass(frozen=True)
class MicroBatch:
    """A part of a step: rows that go through the network together, and what is learnt from them."""

    objective: Objective
    """As it is in this step."""
    batch: Batch
    features: tuple[int, ...]
    """Which features of the store the batch holds."""
    component: str = ""
    """Of a mixture: its targets are counted apart from those of the others."""
    loss_weight: float = 1.0
    """What the losses of the component count for in the step."""

    @property
    def has_targets(self) -> bool:
        """Does it count? One without counts only keeps this rank in step with those that have more."""
        return bool(self.batch.counts)

    @property
    def num_tokens(self) -> int:
        """Tokens without padding, of sources and targets alike."""
        layouts = (self.batch.layout, self.batch.source_layout)
        return sum(int(layout.lengths.sum()) for layout in layouts if layout is not None)

    def term(self, name: str) -> str:
        """What a term of its loss is called beside those of the other components."""
        return f"{self.component}/{name}" if self.component else name

    def counts(self) -> dict[str, int]:
        """Loss term to number of targets."""
        return {self.term(name): count for name, count in self.batch.counts.items()}


class DataLoaderLike(Protocol):
    """What the trainer asks of its data."""

    steps_per_epoch: float
    tokens_per_step: float
    fingerprint: str
    """Of the data, the tokenizer and the cutting."""
    micro_batch: int
    """Rows that go through the network at once; may change between two calls, where memory runs out."""

    @property
    def cost_changes_at(self) -> float | None:
        """Share of the run from which on a step costs something else than before; None: all cost the same."""

    def __call__(self, step: int, progress: float = 0.0) -> list[MicroBatch]:
        """The micro-batches of ``step`` on this rank, as many as on any other.

        ``progress`` is the share of the run that is done before it, as the run's plan tells it.
        """


class DataLoader:
    """Builds the micro-batches of any step from nothing but its number."""

    def __init__(
        self,
        store: FeatureStore,
        objective: Objective,
        traits: Traits,
        settings: TrainingSettings,
        max_length: int,
        world: World | None = None,
    ) -> None:
        self.world = world or World()
        self.store, self.objective, self.settings = store, objective, settings
        self.length_bounds = objective.length_bounds(store.lengths)  # (n,)
        if len(self.length_bounds) and int(self.length_bounds.max()) > max_length:
            raise ConfigError(
                f"a feature of {int(self.length_bounds.max())} tokens does not fit max_length {max_length}"
            )
        self.max_length, self.fingerprint = max_length, store.fingerprint
        self.packing = settings.packing and objective.supports_packing and traits.supports_packing
        self.micro_batch = settings.micro_batch or max(1, MICRO_BATCH_TOKENS // max_length)
        units = self.length_bounds if settings.batch_tokens else np.ones_like(self.length_bounds)
        size = settings.batch_tokens or settings.batch_examples
        assert size is not None, "TrainingSettings gives one of the two"
        self.step_plan = StepPlan(units, size, settings.seed, store.fingerprint)
        self.steps_per_epoch = int(units.sum()) / size
        self.tokens_per_step = int(self.length_bounds.sum()) / self.steps_per_epoch

    @property
    def cost_changes_at(self) -> float | None:
        """As the objective says."""
        return self.objective.cost_changes_at

    def __call__(self, step: int, progress: float = 0.0) -> list[MicroBatch]:
        """The micro-batches of ``step``: its features, built with randomness keyed by feature and epoch."""
        return self.build_micro_batches(self.step_plan.step(step), step, progress)

    def build_micro_batches(
        self, members: Sequence[tuple[int, int]], step: int, progress: float
    ) -> list[MicroBatch]:
        """Micro-batches of these (epoch, feature), which are one step, or one component's share of it."""
        objective = self.objective.at_step(step, progress)
        bounds = self.length_bounds[[i for _, i in members]]
        rows = assign_rows(bounds, self.max_length, packing=self.packing)
        max_rows = -(-len(rows) // self.world.world_size)  # rows of the rank that has the most
        rank_rows = rows[self.world.rank :: self.world.world_size]
        row_members = [[members[k] for k in row] for row in rank_rows]
        starts = range(0, max_rows, self.micro_batch)
        found = [
            self._build_micro_batch(objective, row_members[k : k + self.micro_batch])
            for k in starts
            if k < len(row_members)
        ]
        if len(found) < len(starts):
            filler_row = row_members[0] if row_members else [members[k] for k in rows[0]]
            filler = self._build_micro_batch(objective, [filler_row])
            filler = replace(filler, batch=replace(filler.batch, counts={}))
            found += [filler] * (len(starts) - len(found))
        return found

    def _build_micro_batch(
        self, objective: Objective, rows: Sequence[Sequence[tuple[int, int]]]
    ) -> MicroBatch:
        """The rows of the grid, each of its (epoch, feature)."""
        batch = objective.collate([self._build_row(objective, members) for members in rows])
        return MicroBatch(objective, batch, tuple(i for members in rows for _, i in members))

    def _build_row(self, objective: Objective, members: Sequence[tuple[int, int]]) -> list[Example]:
        """The examples of one row, of its (epoch, feature)."""
        seed = self.settings.seed
        return [objective.build(self.store[i], training_rng(seed, epoch, i)) for epoch, i in members]


def assign_rows(bounds: IntArray, capacity: int, *, packing: bool) -> list[list[int]]:
    """Which examples share a row: packed up to ``capacity``, or one each, similar lengths together."""
    if packing:
        return pack_tight(bounds, capacity)
    return [[int(i)] for i in np.argsort(-bounds, kind="stable")]
