"""Sequence to sequence: by eye, and shifted as stock transformers shifts its labels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pairs import SPECIALS, TRAITS, feature, shown
from transformers.models.bart.modeling_bart import shift_tokens_right

from pretune.data.order import rng
from pretune.errors import DataError, UnsupportedError
from pretune.families import gpt2
from pretune.objectives import objective_of
from pretune.objectives.sequence_to_sequence import HEAD, Objective, Options
from pretune.types import Specials, Traits

BARTS = Traits("encoder-decoder", ("causal_lm",), "last", decoder_start="end")
FRAMED = Specials(vocabulary_size=1000, pad=0, end=1, single=((3,), (1,)))


def test_a_pair_by_eye() -> None:
    found = shown(Objective(TRAITS, SPECIALS).build(feature("白日 依 山 尽 。", "Thank you ."), rng(0, 0, 0)))
    assert found == ("白日 依 山 尽 。 </s>", "<pad> Thank you .", "Thank you . </s>")


@pytest.mark.parametrize(
    ("traits", "specials", "start"), [(TRAITS, SPECIALS, 0), (BARTS, FRAMED, 1)], ids=["t5", "bart"]
)
def test_targets_are_shifted_as_in_stock(traits: Traits, specials: Specials, start: int) -> None:
    objective = Objective(traits, specials, Options(label_smoothing=0.1))
    texts = [("Thank you .", "白日 依 山"), ("me", "尽 。 黄河 入 海")]
    batch = objective.collate([[objective.build(feature(*pair), rng(0, 0, 0))] for pair in texts])
    assert batch.source_tokens is not None
    assert batch.source_layout is not None
    assert batch.source_layout.lengths.tolist() == [3 + objective.pairs.frame, 1 + objective.pairs.frame]
    labels = torch.full(batch.tokens.shape, -100)
    places = batch.places[HEAD]
    assert places is not None
    labels.view(-1)[places] = batch.targets[HEAD]
    expected = shift_tokens_right(labels, specials.pad, start)
    real = torch.arange(batch.tokens.shape[1]) < batch.layout.lengths[:, None]
    assert batch.tokens[real].tolist() == expected[real].tolist()
    assert batch.counts == {HEAD: int((labels != -100).sum())}
    assert batch.smoothing == {HEAD: 0.1}


def test_what_cannot_be_is_refused() -> None:
    objective = Objective(TRAITS, SPECIALS)
    assert objective.length_bounds(np.array([[3, 9], [7, 2]])).tolist() == [10, 8]
    with pytest.raises(DataError, match="a source and a target"):
        objective.build(feature("Thank you"), rng(0, 0, 0))
    with pytest.raises(UnsupportedError, match="encoder-decoder"):
        Objective(gpt2.TRAITS, SPECIALS)
    with pytest.raises(UnsupportedError, match="begins with the end token"):
        Objective(BARTS, Specials(100, 0))
    assert objective_of("sequence_to_sequence").columns == ("source", "target")
