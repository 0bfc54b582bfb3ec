"""Extractive question answering: cross-entropy of the answer's two ends (Devlin et al. 2019, section 4.2)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch

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

HEAD = "question_answering"


class Options(Settings):
    """Settings of question answering: none."""


class Objective:
    """A distribution over the tokens of a question and its context for each end of the answer."""

    heads = (HEAD,)
    supports_packing = False
    """Each row of the grid is one distribution."""

    def __init__(
        self,
        traits: Traits,
        specials: SpecialTokens,
        options: Options | None = None,
        store: FeatureStore | None = None,
    ) -> None:
        self.builder = TokenBuilder(HEAD, traits, specials)

    def length_bounds(self, lengths: IntArray) -> IntArray:
        """Positions that each feature needs, (n,), of its token counts, (n, 2)."""
        return self.builder.length_bounds(lengths)

    def build(self, feature: Feature, rng: np.random.Generator) -> Example:
        """The targets are one-hot, of the positions in ``labels["span"]``, (first, last), if it is there."""
        span = feature.labels.get("span")
        if span is None:
            return self.builder.build_row(feature, None, None)
        size = int(self.builder.length_bounds(np.array([[len(s) for s in feature.sequences]]))[0])
        targets = np.zeros((size, 2))
        targets[list(span), [0, 1]] = 1
        return self.builder.build_row(feature, None, targets)

    def collate(self, groups: Sequence[Sequence[Example]]) -> Batch:
        """One example a row of the grid; what is counted is examples."""
        batch = self.builder.collate(groups)
        return replace(batch, counts=dict.fromkeys(batch.counts, sum(map(len, groups))))

    def loss(self, network: NetworkLike, batch: Batch) -> Iterator[Loss]:
        """The mean of both ends' cross-entropies in nats, summed over the examples."""
        logits = network(batch, heads=self.heads).logits[HEAD].float()  # (N, 2)
        positions = batch.positions[HEAD]
        assert positions is not None
        rows, width = batch.tokens.shape
        grid = logits.new_full((rows * width, 2), -torch.inf).index_copy(0, positions, logits)  # (B * T, 2)
        normalizer = grid.view(rows, width, 2).logsumexp(1)  # (B, 2)
        nll = ((normalizer[positions // width] - logits) * batch.targets[HEAD]).sum()
        yield Loss({HEAD: (nll / 2, 1.0)})
