"""Token classification: cross-entropy of the right class at the first token of each word."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pydantic
from torch.nn import functional as F

from pretune.config import Settings
from pretune.objectives._tokens import TokenBuilder
from pretune.types import (
    Batch,
    Example,
    Feature,
    FeatureStore,
    IntArray,
    Loss,
    NetworkLike,
    SpecialTokens,
    Traits,
)

HEAD = "token_classification"


class Options(Settings):
    """Settings of token classification."""

    label_smoothing: float = pydantic.Field(default=0.0, ge=0, lt=1)


class Objective:
    """A class a word, read at its first token: where bit 1 of the feature's ``word_starts`` is set."""

    heads = (HEAD,)
    distillable = True
    supports_packing = True

    def __init__(
        self,
        traits: Traits,
        specials: SpecialTokens,
        options: Options | None = None,
        store: FeatureStore | None = None,
    ) -> None:
        self.builder = TokenBuilder(HEAD, traits, specials)
        self.options = options or Options()

    def length_bounds(self, lengths: IntArray) -> IntArray:
        """Positions that each feature needs, (n,), of its token counts, (n, 1)."""
        return self.builder.length_bounds(lengths)

    def build(self, feature: Feature, rng: np.random.Generator) -> Example:
        """The targets are the class ids in ``labels["tags"]``, (n,), one a word start, if they are there."""
        assert feature.word_starts is not None, "who encodes for this objective says where words start"
        positions = np.flatnonzero(feature.word_starts[0] & 1) + len(self.builder.specials.single[0])
        tags = feature.labels.get("tags")
        return self.builder.build_row(
            feature, positions, None if tags is None else np.asarray(tags, np.int64)
        )

    def collate(self, groups: Sequence[Sequence[Example]]) -> Batch:
        """A group of examples a row of the grid."""
        return self.builder.collate(groups)

    def loss(self, network: NetworkLike, batch: Batch) -> Iterator[Loss]:
        """Cross-entropy in nats, summed over the words."""
        logits = network(batch, heads=self.heads).logits[HEAD].float()  # (N, C)
        smoothing = self.options.label_smoothing
        total = F.cross_entropy(logits, batch.targets[HEAD], reduction="sum", label_smoothing=smoothing)
        yield Loss({HEAD: (total, 1.0)})
