"""ALBERT's second task: by eye, in statistics, and in loss against a stock class with two heads."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers

from pretune.checkpoint import weights
from pretune.data.corpus.windows import EncodedRecords
from pretune.data.order import training_rng
from pretune.errors import DataError, UnsupportedError
from pretune.families import bert, gpt2
from pretune.objectives import objectives_for_heads, parse_objective
from pretune.objectives.sentence_order import HEAD, SWAPPED, Objective
from pretune.text.segmentation import find_word_starts
from pretune.types import IGNORE_INDEX, Example, Feature, SpecialTokens

SPECIALS = SpecialTokens(
    vocabulary_size=41_000, pad_id=0, mask_id=3, eos_id=2, all_ids=(0, 1, 2, 3),
    single=((1,), (2,)), pair=((1,), (2,), (2,)),
)  # fmt: skip
NAMES = {1: "[", 2: "]", 3: "?"}
TEXTS = ("He came. He saw. He won.", "白日依山尽。黄河入海流。", "It rains. We stay.")


def read(text: str, record: int = 0) -> Feature:
    """A token a character: its code point is its id."""
    offsets = np.array([[i, i + 1] for i in range(len(text))], np.int64)
    return Feature(
        record,
        0,
        (np.array([ord(c) for c in text], np.int64),),
        word_starts=(find_word_starts(text, offsets),),
    )


def shown(example: Example) -> tuple[str, str, int]:
    """The first text, the second, and the class, as a person reads them."""
    row = example.rows[0]
    assert row.segments is not None
    assert row.positions[HEAD].tolist() == [0]
    first, second = (
        "".join(NAMES.get(t, chr(t)) for t in row.tokens[row.segments == segment].tolist())
        for segment in (0, 1)
    )
    return first, second, int(row.targets[HEAD][0])


def test_pairs_by_eye() -> None:
    objective = Objective(bert.TRAITS, SPECIALS)
    found = {shown(objective.build(read(TEXTS[0]), training_rng(0, epoch, 0))) for epoch in range(100)}
    assert found == {
        ("[He came. ]", "He saw. He won.]", 0),
        ("[He came. He saw. ]", "He won.]", 0),
        ("[He saw. He won.]", "He came. ]", 1),
        ("[He won.]", "He came. He saw. ]", 1),
    }
    found = {shown(objective.build(read(TEXTS[1]), training_rng(0, epoch, 0))) for epoch in range(20)}
    assert found == {("[白日依山尽。]", "黄河入海流。]", 0), ("[黄河入海流。]", "白日依山尽。]", 1)}


def test_half_are_swapped() -> None:
    objective = Objective(bert.TRAITS, SPECIALS)
    classes = [shown(objective.build(read(TEXTS[0]), training_rng(0, epoch, 0)))[2] for epoch in range(4000)]
    assert np.mean(np.array(classes) == SWAPPED) == pytest.approx(0.5, abs=4 * 0.5 / 4000**0.5)


def test_words_go_with_their_tokens() -> None:
    """What says where words start is swapped along, so that whole words are hidden rightly."""
    objective = Objective(bert.TRAITS, SPECIALS)
    for epoch in range(20):
        row = objective.build(read(TEXTS[0]), training_rng(0, epoch, 0)).rows[0]
        assert row.word_starts is not None
        assert {chr(t) for t in row.tokens[row.word_starts & 2 > 0].tolist() if t > 3} == {"H"}


def test_orders_and_masks_cost_what_they_cost_in_stock() -> None:
    """Against BertForPreTraining, whose second head has two classes, too, on the same inputs and labels."""
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=41_000, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        initializer_range=0.5, max_position_embeddings=64,
    )  # fmt: skip
    stock = transformers.BertForPreTraining(config).eval()
    kind = parse_objective("masked_lm+sentence_order")
    network = bert.Network(bert.Config.from_hugging_face(config.to_dict()), heads=kind.heads).eval()
    assert weights.load_weights(network, stock.state_dict(), bert.WEIGHTS) == []
    store = EncodedRecords([read(text, record) for record, text in enumerate(TEXTS)])
    objective = kind.build_objective(bert.TRAITS, SPECIALS, {"whole_words": True, "max_ngram": 2}, store)
    batch = objective.collate([[objective.build(store[i], training_rng(0, 1, i))] for i in range(len(TEXTS))])
    labels = torch.full(batch.tokens.shape, IGNORE_INDEX)
    labels.view(-1)[batch.positions["masked_lm"]] = batch.targets["masked_lm"]
    mask = torch.arange(batch.tokens.shape[1]) < batch.layout.lengths[:, None]
    with torch.no_grad():
        expected = stock(
            batch.tokens, attention_mask=mask.long(), token_type_ids=batch.layout.segments,
            labels=labels, next_sentence_label=batch.targets[HEAD],
        ).loss  # fmt: skip
    (loss,) = objective.loss(network, batch)
    total = sum(w * value / batch.counts[term] for term, (value, w) in loss.terms.items())
    torch.testing.assert_close(total, expected, atol=1e-4, rtol=1e-4)


def test_it_is_found_beside_masks() -> None:
    assert objectives_for_heads("masked_lm+next_sentence") == [
        "masked_lm+next_sentence", "masked_lm+sentence_order"
    ]  # fmt: skip
    assert Objective.window_spec(SPECIALS, 16).length == 13


def test_refuses_what_cannot_be() -> None:
    with pytest.raises(UnsupportedError, match="sentence_order needs a family"):
        Objective(gpt2.TRAITS, SPECIALS)
    with pytest.raises(DataError, match="sentence_order needs to know where sentences start"):
        Objective(bert.TRAITS, SPECIALS).build(Feature(0, 0, (np.arange(5, 9),)), training_rng(0, 0, 0))
