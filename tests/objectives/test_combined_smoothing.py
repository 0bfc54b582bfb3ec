"""What is smoothed alone is smoothed in company."""

from __future__ import annotations

import numpy as np

from pretune.data.corpus.windows import EncodedRecords
from pretune.data.order import rng
from pretune.objectives import objective_of
from pretune.registry import find
from pretune.types import Feature, Specials

SPECIALS = Specials(64, 0, mask=3, all=(0, 1, 2, 3), single=((1,), (2,)), pair=((1,), (2,), (2,)))


def test_the_masked_half_of_a_pair_keeps_its_smoothing() -> None:
    features = [Feature(i, 0, (np.arange(5, 15) + i,), starts=(np.full(10, 3, np.uint8),)) for i in range(4)]
    kind = objective_of("masked_lm+next_sentence")
    traits = find("families", "bert").TRAITS
    made = kind.make(traits, SPECIALS, {"label_smoothing": 0.1}, EncodedRecords(features))
    batch = made.collate([[made.build(f, rng(0, 0, f.record))] for f in features])
    assert batch.smoothing == {"masked_lm": 0.1}
