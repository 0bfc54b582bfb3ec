"""Sequence to sequence: by eye, and shifted as stock transformers shifts its labels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pairs import SPECIALS, TRAITS, feature, shown
from transformers.models.bart.modeling_bart import shift_tokens_right

from pretune.data.order import training_rng
from pretune.errors import DataError, UnsupportedError
from pretune.families import gpt2
from pretune.objectives import parse_objective
from pretune.objectives.base import LanguageModelOptions, num_special_tokens
from pretune.objectives.sequence_to_sequence import HEAD, Objective
from pretune.types import SpecialTokens, Traits

BARTS = Traits("encoder-decoder", ("causal_lm",), "last", decoder_start_token="eos")
FRAMED = SpecialTokens(vocabulary_size=1000, pad_id=0, eos_id=1, single=((3,), (1,)))


def test_a_pair_by_eye() -> None:
    found = shown(
        Objective(TRAITS, SPECIALS).build(feature("白日 依 山 尽 。", "Thank you ."), training_rng(0, 0, 0))
    )
    assert found == ("白日 依 山 尽 。 </s>", "<pad> Thank you .", "Thank you . </s>")


@pytest.mark.parametrize(
    ("traits", "specials", "start"), [(TRAITS, SPECIALS, 0), (BARTS, FRAMED, 1)], ids=["t5", "bart"]
)
def test_targets_are_shifted_as_in_stock(traits: Traits, specials: SpecialTokens, start: int) -> None:
    objective = Objective(traits, specials, LanguageModelOptions(label_smoothing=0.1))
    texts = [("Thank you .", "白日 依 山"), ("me", "尽 。 黄河 入 海")]
    batch = objective.collate([[objective.build(feature(*pair), training_rng(0, 0, 0))] for pair in texts])
    assert batch.source_tokens is not None
    assert batch.source_layout is not None
    assert batch.source_layout.lengths.tolist() == [
        3 + num_special_tokens(specials, 1),
        1 + num_special_tokens(specials, 1),
    ]
    labels = torch.full(batch.tokens.shape, -100)
    places = batch.positions[HEAD]
    assert places is not None
    labels.view(-1)[places] = batch.targets[HEAD]
    expected = shift_tokens_right(labels, specials.pad_id, start)
    real = torch.arange(batch.tokens.shape[1]) < batch.layout.lengths[:, None]
    assert batch.tokens[real].tolist() == expected[real].tolist()
    assert batch.counts == {HEAD: int((labels != -100).sum())}
    assert objective.loss_options.label_smoothing == 0.1


def test_what_cannot_be_is_refused() -> None:
    objective = Objective(TRAITS, SPECIALS)
    assert objective.length_bounds(np.array([[3, 9], [7, 2]])).tolist() == [10, 8]
    with pytest.raises(DataError, match="a source and a target"):
        objective.build(feature("Thank you"), training_rng(0, 0, 0))
    with pytest.raises(UnsupportedError, match="encoder-decoder"):
        Objective(gpt2.TRAITS, SPECIALS)
    with pytest.raises(UnsupportedError, match="begins with the eos token"):
        Objective(BARTS, SpecialTokens(100, 0))
    assert parse_objective("sequence_to_sequence").columns == ("source", "target")
