"""What is smoothed alone is smoothed in company."""

from __future__ import annotations

import numpy as np

from pretune.data.corpus.windows import EncodedRecords
from pretune.objectives import parse_objective
from pretune.registry import find
from pretune.types import Feature, SpecialTokens

SPECIALS = SpecialTokens(64, 0, mask_id=3, all_ids=(0, 1, 2, 3), single=((1,), (2,)), pair=((1,), (2,), (2,)))


def test_the_masked_half_of_a_pair_keeps_its_smoothing() -> None:
    features = [
        Feature(i, 0, (np.arange(5, 15) + i,), word_starts=(np.full(10, 3, np.uint8),)) for i in range(4)
    ]
    kind = parse_objective("masked_lm+next_sentence")
    traits = find("families", "bert").TRAITS
    made = kind.build_objective(traits, SPECIALS, {"label_smoothing": 0.1}, EncodedRecords(features))
    assert made.loss_options.label_smoothing == 0.1
