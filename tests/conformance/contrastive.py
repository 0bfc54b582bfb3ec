"""An objective whose loss needs the whole step: each text is told from all others by its paraphrase.

In-batch negatives (Henderson et al. 2017, section 4.4), from one side only, cosines over 0.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pretune.data.corpus.windows import EncodedRecords
from pretune.families import bert
from pretune.nn.heads import gather
from pretune.objectives import Objective
from pretune.runtime.distributed import World
from pretune.training.dataloader import DataLoader
from pretune.training.ddp import build_parallel
from pretune.training.gradients import GradientAccumulator, never_stop
from pretune.training.settings import TrainingSettings
from pretune.types import Batch, Example, Feature, Loss, NetworkLike, Row, SpecialTokens, add_special_tokens

SPECIALS = SpecialTokens(96, 0, mask_id=3, all_ids=(0, 1, 2, 3), single=((1,), (2,)))
HEAD, TERM = "masked_lm", "contrastive"
TEMPERATURE = 0.1


class Contrastive(Objective):
    """Two rows an example, read at their first tokens."""

    heads = (HEAD,)
    needs_whole_step = True

    def length_bounds(self, lengths: Any) -> Any:
        return lengths.sum(1) + 2 * lengths.shape[1]

    def build(self, feature: Feature, rng: np.random.Generator) -> Example:
        tokens = [add_special_tokens(self.specials, (text,))[0] for text in feature.sequences]
        return Example(feature.record, tuple(Row(row, {HEAD: np.zeros(1, np.int64)}, {}) for row in tokens))

    def collate(self, groups: Sequence[Sequence[Example]]) -> Batch:
        return replace(super().collate(groups), counts={TERM: sum(map(len, groups))})

    def representations(self, network: NetworkLike, batch: Batch) -> Tensor:
        hidden = network(batch, heads=()).hidden  # (B, T, D)
        assert hidden is not None
        assert batch.example is not None
        assert batch.row is not None
        read = gather(hidden, batch.positions[HEAD])  # (2 E, D)
        return read.new_zeros(len(read) // 2, 2, read.shape[1]).index_put((batch.example, batch.row), read)

    def whole_step_loss(self, representations: Tensor) -> Loss:
        first, second = F.normalize(representations, dim=-1).unbind(1)  # (E, D), (E, D)
        cosines = first @ second.t() / TEMPERATURE  # (E, E)
        total = F.cross_entropy(cosines, torch.arange(len(cosines)), reduction="sum")
        return Loss({TERM: (total, 1.0)})


def parts(micro_batch: int, world: World, dropout: float, packing: bool) -> tuple[Any, DataLoader]:
    """A BERT and its batches, of eight examples a step."""
    draw = np.random.default_rng(0)
    texts = [tuple(draw.integers(4, 96, draw.integers(3, 9)) for _ in range(2)) for _ in range(24)]
    store = EncodedRecords([Feature(i, 0, pair) for i, pair in enumerate(texts)])
    torch.manual_seed(1)
    # Wide first values: else all texts look the same, and their gradients are mostly rounding.
    shape = {
        "vocab_size": 96,
        "initializer_range": 0.3,
        "hidden_dropout_prob": dropout,
        "attention_probs_dropout_prob": dropout,
    }
    network = bert.Network(bert.tiny_config().model_copy(update=shape), heads=(HEAD,))
    settings = TrainingSettings(batch_examples=8, micro_batch=micro_batch, packing=packing)
    objective = Contrastive(bert.TRAITS, SPECIALS)
    return network, DataLoader(store, objective, bert.TRAITS, settings, 64, world)


def gradient(
    micro_batch: int, world: World | None = None, *, dropout: float = 0.0, packing: bool = False
) -> tuple[float, Tensor]:
    """Loss and gradient of a step, on this rank after those of all are added up."""
    world = world or World()
    network, batches = parts(micro_batch, world, dropout, packing)
    parallel = build_parallel(network, world, "ddp")
    loss = GradientAccumulator(network, 0, parallel).accumulate(batches(1), 1, never_stop)
    assert loss is not None
    return loss, flat_gradient(network)


def reference() -> tuple[float, Tensor]:
    """The same by one plain pass of autograd over the whole step."""
    network, batches = parts(64, World(), 0.0, packing=False)
    [whole] = batches(1)
    objective: Any = whole.objective
    total, _ = objective.whole_step_loss(objective.representations(network, whole.batch)).terms[TERM]
    mean = total / 8
    mean.backward()
    return float(mean.detach()), flat_gradient(network)


def flat_gradient(network: Any) -> Tensor:
    return torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])
