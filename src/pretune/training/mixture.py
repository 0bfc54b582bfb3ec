"""A mixture of objectives: each step is cut into pieces, and each piece is drawn from one part by weight.

What a step holds is decided by seed, weights and its number alone, so a resume is exact, all ranks agree, and
the rows that go through the network at once change nothing. Each part has an order and epochs of its own, of
which its pieces are read one after another. What a part's losses count for in a step is the share of the
step's pieces that are its own: over many steps that share is its weight, whatever number of targets it has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pretune.config import digest
from pretune.data.order import MixtureSampler
from pretune.objectives import Objective
from pretune.runtime.distributed import World
from pretune.training.dataloader import DataLoader, MicroBatch
from pretune.training.settings import TrainingSettings
from pretune.types import FeatureStore, Traits

MAX_PIECES = 16
"""Of a step, at most: with more of them its shares are nearer to the weights, and its batches smaller."""


@dataclass(frozen=True)
class MixtureComponent:
    """What is learnt from what, and how much it weighs beside the others."""

    name: str
    weight: float
    store: FeatureStore
    objective: Objective

    def longest_example(self) -> int:
        """Places of its longest example."""
        return int(self.objective.length_bounds(self.store.lengths).max(initial=1))


class MixtureDataLoader:
    """Answers what `DataLoader` answers, of several parts; of one alone, the same batches."""

    def __init__(
        self,
        components: Sequence[MixtureComponent],
        traits: Traits,
        settings: TrainingSettings,
        max_length: int,
        world: World | None = None,
    ) -> None:
        size = settings.batch_tokens or settings.batch_examples
        assert size is not None, "TrainingSettings gives one of the two"
        unit = "batch_tokens" if settings.batch_tokens else "batch_examples"
        longest_example = max(part.longest_example() for part in components) if settings.batch_tokens else 1
        self.pieces_per_step = count_pieces(size, longest_example)
        piece_settings = settings.model_copy(update={unit: size // self.pieces_per_step})
        self.dataloaders = {
            component.name: DataLoader(
                component.store, component.objective, traits, piece_settings, max_length, world
            )
            for component in components
        }
        weights = [part.weight for part in components]
        self.draw = MixtureSampler(weights, settings.seed)
        shares = [weight / sum(weights) for weight in weights]
        shared_dataloaders = list(zip(shares, self.dataloaders.values(), strict=True))
        self.steps_per_epoch = sum(part.step_plan.units for _, part in shared_dataloaders) / size
        self.tokens_per_step = sum(
            share * (int(part.length_bounds.sum()) / (part.step_plan.units / size))
            for share, part in shared_dataloaders
        )
        description = [
            [part.name, share, dataloader.fingerprint]
            for part, (share, dataloader) in zip(components, shared_dataloaders, strict=True)
        ]
        self.fingerprint = (
            digest(description) if len(components) > 1 else shared_dataloaders[0][1].fingerprint
        )

    @property
    def cost_changes_at(self) -> float | None:
        """Where the cost of the first component to change does."""
        changes = (part.cost_changes_at for part in self.dataloaders.values())
        return min((share for share in changes if share is not None), default=None)

    @property
    def micro_batch(self) -> int:
        """Rows that go through the network at once, of any part."""
        return next(iter(self.dataloaders.values())).micro_batch

    @micro_batch.setter
    def micro_batch(self, rows: int) -> None:
        for part in self.dataloaders.values():
            part.micro_batch = rows

    def __call__(self, step: int, progress: float = 0.0) -> list[MicroBatch]:
        """The micro-batches of ``step``, each of one component; those of a component lie together."""
        draws = self.draw.draw(step * self.pieces_per_step, (step + 1) * self.pieces_per_step)
        found: list[MicroBatch] = []
        for index, (name, dataloader) in enumerate(self.dataloaders.items()):
            piece_numbers = [number for chosen, number in draws if chosen == index]
            if piece_numbers:
                members = [member for number in piece_numbers for member in dataloader.step_plan.step(number)]
                share = len(piece_numbers) / self.pieces_per_step
                found += [
                    replace(micro_batch, component=name, loss_weight=share)
                    for micro_batch in dataloader.build_micro_batches(members, step, progress)
                ]
        return found


def count_pieces(size: int, longest_example: int) -> int:
    """Into how many equal pieces a step is cut: as many as divide it, none shorter than the longest text."""
    max_pieces = max(1, min(MAX_PIECES, size // longest_example))
    return max(count for count in range(1, max_pieces + 1) if size % count == 0)
