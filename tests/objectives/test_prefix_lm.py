"""Prefix language modelling: by eye, and what each place of a decoder may see."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pairs import SPECIALS, TRAITS, feature, shown, words

from pretune.data.order import training_rng
from pretune.errors import UnsupportedError
from pretune.families import bert, gpt2, llama
from pretune.objectives.prefix_lm import HEAD, Objective, Options
from pretune.types import Feature, SpecialTokens

TEXT = "白日 依 山 尽"
DECODER = SpecialTokens(vocabulary_size=64, pad_id=0, bos_id=1, eos_id=1, all_ids=(0, 1), single=((1,), ()))


def test_an_encoder_decoder_by_eye() -> None:
    objective = Objective(TRAITS, SPECIALS)
    found = {shown(objective.build(feature(TEXT), training_rng(0, epoch, 0))) for epoch in range(100)}
    assert found == {
        ("白日 </s>", "<pad> 依 山 尽", "依 山 尽 </s>"),
        ("白日 依 </s>", "<pad> 山 尽", "山 尽 </s>"),
        ("白日 依 山 </s>", "<pad> 尽", "尽 </s>"),
    }
    alone = Objective(TRAITS, SPECIALS, Options(masked_only=True)).build(feature(TEXT), training_rng(0, 0, 0))
    assert shown(alone)[2].endswith(" ·")
    previous, target = Objective.ngram_contexts(feature(TEXT), alone, SPECIALS)
    text = words(feature(TEXT).sequences[0]).split()
    assert words(target).split() == text[-len(target) :]
    assert words(previous).split() == text[-len(target) - 1 : -1]


def test_a_decoder_by_eye() -> None:
    objective = Objective(gpt2.TRAITS, DECODER)
    found = set()
    for epoch in range(100):
        row = objective.build(Feature(0, 0, (np.array([10, 20, 30]),)), training_rng(0, epoch, 0)).rows[0]
        assert row.tokens.tolist() == [1, 10, 20, 30]
        said = [
            (int(row.tokens[p]), int(t)) for p, t in zip(row.positions[HEAD], row.targets[HEAD], strict=True)
        ]
        found.add((row.prefix_length, tuple(said)))
    # Start and first token: what follows is said by the last place of the prefix.
    assert found == {(2, ((10, 20), (20, 30), (30, 1))), (3, ((20, 30), (30, 1)))}
    assert Objective.window_spec(DECODER, 16).length == 15


def test_cuts_are_everywhere_with_equal_chances() -> None:
    objective = Objective(llama.TRAITS, DECODER)
    text = Feature(0, 0, (np.arange(10, 21),))
    prefixes = [
        objective.build(text, training_rng(0, epoch, 0)).rows[0].prefix_length or 0 for epoch in range(4000)
    ]
    counts = np.bincount(prefixes)[2:]
    assert len(counts) == 10
    assert np.abs(counts / 4000 - 0.1).max() < 5 * (0.09 / 4000) ** 0.5


@pytest.mark.parametrize("family", [gpt2, llama])
@torch.no_grad()
def test_a_prefix_is_read_both_ways_and_the_rest_one_way(family: object) -> None:
    torch.manual_seed(0)
    config = family.tiny_config().model_copy(update={"vocab_size": 64})  # type: ignore[attr-defined]
    network = family.Network(config, heads=(HEAD,)).eval()  # type: ignore[attr-defined]
    objective = Objective(family.TRAITS, DECODER)  # type: ignore[attr-defined]
    texts = [np.array([10, 20, 30, 40, 50, 60]), np.array([11, 21, 31])]
    examples = [objective.build(Feature(i, 0, (t,)), training_rng(0, 4, i)) for i, t in enumerate(texts)]
    batch = objective.collate([[example] for example in examples])
    assert batch.layout.prefix_lengths is not None
    prefix = int(batch.layout.prefix_lengths[0])
    assert 2 <= prefix <= 6
    hidden = network(batch, heads=()).hidden[0]
    for changed in range(7):
        tokens = batch.tokens.clone()
        tokens[0, changed] = 63
        moved = (network(type(batch)(tokens, batch.layout), heads=()).hidden[0] - hidden).abs().amax(
            -1
        ) > 1e-6
        first = 0 if changed < prefix else changed
        assert moved.tolist() == [place >= first for place in range(7)], changed
    (loss,) = objective.loss(network, batch)
    logits = network(batch, heads=(HEAD,)).logits[HEAD]
    expected = torch.nn.functional.cross_entropy(logits, batch.targets[HEAD], reduction="sum")
    torch.testing.assert_close(loss.terms[HEAD][0], expected)


def test_what_cannot_be_is_refused() -> None:
    assert not Objective(gpt2.TRAITS, DECODER).supports_packing
    with pytest.raises(UnsupportedError, match="prefix_lm needs a decoder"):
        Objective(bert.TRAITS, SPECIALS)
