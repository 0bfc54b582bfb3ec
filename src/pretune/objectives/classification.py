"""Classification of a text or a pair: cross-entropy of the right class at the sentence place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pydantic
from torch.nn import functional as F

from pretune.config import Settings
from pretune.data.packing import collate
from pretune.errors import UnsupportedError
from pretune.types import (
    Batch,
    Example,
    Feature,
    FeatureStore,
    IntArray,
    Loss,
    NetworkLike,
    Row,
    Specials,
    Traits,
    framed,
)

HEAD = "classification"


class Options(Settings):
    """Settings of classification."""

    label_smoothing: float = pydantic.Field(default=0.0, ge=0, lt=1)


class Objective:
    """One class a text; the head reads the place that the family's traits name."""

    heads = (HEAD,)
    packs = False
    """The reference implementations pool one place a row, so an example keeps a row of its own."""

    def __init__(
        self,
        traits: Traits,
        specials: Specials,
        options: Options | None = None,
        store: FeatureStore | None = None,
    ) -> None:
        if HEAD not in traits.heads:
            raise UnsupportedError(
                f"classification needs a family with that head; this one has {traits.heads}"
            )
        self.traits, self.specials = traits, specials
        self.options = options or Options()

    def length_bounds(self, lengths: IntArray) -> IntArray:
        """Places that each feature needs, (n,), of its token counts, (n, 1 or 2)."""
        return np.asarray(lengths.sum(1) + self.frame_length(lengths.shape[1]))

    def frame_length(self, sequences: int) -> int:
        """Special tokens around one text or a pair."""
        return len(framed(self.specials, (np.zeros(0, np.int64),) * sequences)[0])

    def build(self, feature: Feature, rng: np.random.Generator) -> Example:
        """Frame the text or the pair; the target is the class id in ``labels["label"]``, if there is one."""
        tokens, segments = framed(self.specials, feature.sequences)  # (T,), (T,)
        place = 0 if self.traits.sentence == "first" else len(tokens) - 1
        label = feature.labels.get("label")
        targets = {} if label is None else {HEAD: np.array([label], np.int64)}
        row = Row(
            tokens, {HEAD: np.array([place], np.int64)}, targets, segments if self.traits.segments else None
        )
        return Example(feature.record, (row,))

    def collate(self, groups: Sequence[Sequence[Example]]) -> Batch:
        """One example a row of the grid."""
        return collate(groups, pad=self.specials.pad, heads=self.heads, segments=self.traits.segments)

    def loss(self, network: NetworkLike, batch: Batch) -> Iterator[Loss]:
        """Cross-entropy in nats, summed over the texts."""
        outputs = network(batch, heads=self.heads)
        total = F.cross_entropy(
            outputs.logits[HEAD].float(),
            batch.targets[HEAD],
            reduction="sum",
            label_smoothing=self.options.label_smoothing,
        )
        yield Loss({HEAD: (total, 1.0)})
