"""The batches of a mixture: each step is cut into pieces, and each piece is drawn from one part by weight.

What a step holds is decided by seed, weights and its number alone, so a resume is exact, all ranks agree, and
the rows that go through the network at once change nothing. Each part has an order and epochs of its own, of
which its pieces are read one after another. What a part's losses count for in a step is the share of the
step's pieces that are its own: over many steps that share is its weight, whatever number of targets it has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pretune.config import digest
from pretune.data.order import Draw
from pretune.objectives import term_of
from pretune.runtime.distributed import World
from pretune.training.dataloader import StepBatches
from pretune.training.settings import TrainingSettings
from pretune.types import Batch, FeatureStore, ObjectiveLike, Traits

PIECES = 16
"""Of a step, at most: with more of them its shares are nearer to the weights, and its batches smaller."""


@dataclass(frozen=True)
class Part:
    """What is learnt from what, and how much it weighs beside the others."""

    name: str
    weight: float
    store: FeatureStore
    objective: ObjectiveLike

    def longest(self) -> int:
        """Places of its longest example."""
        return int(self.objective.length_bounds(self.store.lengths).max(initial=1))


class MixedBatches:
    """Answers what `StepBatches` answers, of several parts; of one alone, the same batches."""

    turns_at: float | None = None

    def __init__(
        self,
        parts: Sequence[Part],
        traits: Traits,
        settings: TrainingSettings,
        max_length: int,
        world: World | None = None,
    ) -> None:
        size = settings.batch_tokens or settings.batch_examples
        assert size is not None, "TrainingSettings gives one of the two"
        unit = "batch_tokens" if settings.batch_tokens else "batch_examples"
        longest = max(part.longest() for part in parts) if settings.batch_tokens else 1
        self.pieces = pieces(size, longest)
        cut = settings.model_copy(update={unit: size // self.pieces})
        self.parts = {
            part.name: StepBatches(part.store, part.objective, traits, cut, max_length, world)
            for part in parts
        }
        weights = [part.weight for part in parts]
        self.draw = Draw(weights, settings.seed)
        shares = [weight / sum(weights) for weight in weights]
        of_parts = list(zip(shares, self.parts.values(), strict=True))
        self.steps_per_epoch = sum(part.plan.units for _, part in of_parts) / size
        self.tokens_per_step = sum(
            share * (int(part.bounds.sum()) / (part.plan.units / size)) for share, part in of_parts
        )
        about = [
            [part.name, share, known.fingerprint]
            for part, (share, known) in zip(parts, of_parts, strict=True)
        ]
        self.fingerprint = digest(about) if len(parts) > 1 else of_parts[0][1].fingerprint

    @property
    def micro_batch(self) -> int:
        """Rows that go through the network at once, of any part."""
        return next(iter(self.parts.values())).micro_batch

    @micro_batch.setter
    def micro_batch(self, rows: int) -> None:
        for part in self.parts.values():
            part.micro_batch = rows

    def __call__(self, step: int, progress: float = 0.0) -> list[Batch]:
        """The micro-batches of ``step``, each of one part; those of a part lie together."""
        drawn = self.draw.pieces(step * self.pieces, (step + 1) * self.pieces)
        found: list[Batch] = []
        for place, (name, part) in enumerate(self.parts.items()):
            own = [number for chosen, number in drawn if chosen == place]
            if own:
                members = [member for number in own for member in part.plan.step(number)]
                share = len(own) / self.pieces
                found += [_marked(batch, name, share) for batch in part.of(members, progress)]
        return found


def pieces(size: int, longest: int) -> int:
    """Into how many equal pieces a step is cut: as many as divide it, none shorter than the longest text."""
    most = max(1, min(PIECES, size // longest))
    return max(count for count in range(1, most + 1) if size % count == 0)


def _marked(batch: Batch, part: str, share: float) -> Batch:
    counts = {term_of(part, name): count for name, count in batch.counts.items()}
    return replace(batch, part=part, share=share, counts=counts)
