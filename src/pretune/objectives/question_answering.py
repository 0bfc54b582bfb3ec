"""Extractive question answering: cross-entropy of the answer's two ends (Devlin et al. 2019, section 4.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from pretune.objectives._tokens import TokenObjective
from pretune.types import Batch, Example, Feature, IntArray, LossTerms, Outputs

HEAD = "question_answering"


class Objective(TokenObjective):
    """A distribution over the tokens of a question and its context for each end of the answer."""

    heads = (HEAD,)
    supports_packing = False
    """Each row of the grid is one distribution."""

    @classmethod
    def sample(cls, record: int, tokens: IntArray, label: int) -> Feature:
        """Whose answer is the first token of the row."""
        return replace(super().sample(record, tokens, label), labels={"span": (0, 0)})

    def build(self, feature: Feature, rng: np.random.Generator) -> Example:
        """The targets are one-hot, of the positions in ``labels["span"]``, (first, last), if it is there."""
        span = feature.labels.get("span")
        if span is None:
            return self.build_example(feature, None, None)
        size = int(self.length_bounds(np.array([[len(s) for s in feature.sequences]]))[0])
        targets = np.zeros((size, 2))
        targets[list(span), [0, 1]] = 1
        return self.build_example(feature, None, targets)

    def collate(self, groups: Sequence[Sequence[Example]]) -> Batch:
        """One example a row of the grid; what is counted is examples."""
        batch = super().collate(groups)
        return replace(batch, counts=dict.fromkeys(batch.counts, sum(map(len, groups))))

    def loss_terms(self, outputs: Outputs, batch: Batch) -> LossTerms:
        """The mean of both ends' cross-entropies in nats, summed over the examples."""
        logits, positions = outputs.logits[HEAD].float(), batch.positions[HEAD]  # (N, 2), (N,)
        assert positions is not None
        rows, width = batch.tokens.shape
        grid = logits.new_full((rows * width, 2), -np.inf).index_copy(0, positions, logits)  # (B * T, 2)
        normalizer = grid.view(rows, width, 2).logsumexp(1)  # (B, 2)
        nll = ((normalizer[positions // width] - logits) * batch.targets[HEAD]).sum()
        return {HEAD: (nll / 2, 1.0)}
