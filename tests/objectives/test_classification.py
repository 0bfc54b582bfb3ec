"""Classification: the frame of a text and of a pair, and what reaches the network."""

from __future__ import annotations

import numpy as np

from pretune.data.order import training_rng
from pretune.families import bert, llama
from pretune.objectives.classification import HEAD, Objective
from pretune.types import Feature, SpecialTokens

SPECIALS = SpecialTokens(
    vocabulary_size=64, pad_id=0, eos_id=2, all_ids=(0, 1, 2), single=((1,), (2,)), pair=((1,), (2,), (2,))
)
PAIR = Feature(0, 0, (np.array([10, 11]), np.array([20, 21, 22])), {"label": 1})
ONE = Feature(1, 0, (np.array([10]),), {"label": 0})


def test_a_pair_keeps_its_segments() -> None:
    objective = Objective(bert.TRAITS, SPECIALS)
    batch = objective.collate([[objective.build(f, training_rng(0, 0, 0))] for f in (PAIR, ONE)])
    assert batch.tokens.tolist() == [[1, 10, 11, 2, 20, 21, 22, 2], [1, 10, 2, 0, 0, 0, 0, 0]]
    assert batch.layout.segments is not None
    assert batch.layout.segments.tolist() == [[0, 0, 0, 0, 1, 1, 1, 1], [0] * 8]
    assert batch.targets[HEAD].tolist() == [1, 0]
    places = batch.positions[HEAD]
    assert places is not None
    assert places.tolist() == [0, 8]  # [CLS] of each row


def test_a_decoder_reads_the_last_real_token() -> None:
    objective = Objective(llama.TRAITS, SPECIALS)
    batch = objective.collate([[objective.build(f, training_rng(0, 0, 0))] for f in (PAIR, ONE)])
    places = batch.positions[HEAD]
    assert places is not None
    assert places.tolist() == [7, 10]
    assert batch.layout.segments is None
