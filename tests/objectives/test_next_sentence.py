"""Pairs of the paper's second task: by eye on a small text, in statistics, and in loss against stock BERT."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers

from pretune.checkpoint import weights
from pretune.data.corpus.windows import EncodedRecords
from pretune.data.order import training_rng, validation_rng
from pretune.errors import ConfigError, DataError, UnsupportedError
from pretune.families import bert, llama
from pretune.objectives import parse_objective
from pretune.objectives.next_sentence import HEAD, NOT_NEXT, Objective
from pretune.text.segmentation import find_word_starts
from pretune.types import IGNORE_INDEX, Batch, Example, Feature, SpecialTokens

SPECIALS = SpecialTokens(
    vocabulary_size=41_000, pad_id=0, mask_id=3, eos_id=2, all_ids=(0, 1, 2, 3),
    single=((1,), (2,)), pair=((1,), (2,), (2,)),
)  # fmt: skip
NAMES = {0: "·", 1: "[", 2: "]", 3: "?"}
TEXTS = (
    "He came. He saw. He won.",
    "It rains. We stay. Tea is made. The cat sleeps.",
    "白日依山尽。黄河入海流。",
    "欲穷千里目。更上一层楼。登高望远。",
)


def read(text: str, record: int = 0) -> Feature:
    """A token a character: its code point is its id."""
    offsets = np.array([[i, i + 1] for i in range(len(text))], np.int64)
    ids = np.array([ord(c) for c in text], np.int64)
    return Feature(record, 0, (ids,), word_starts=(find_word_starts(text, offsets),))


def store(*texts: str) -> EncodedRecords:
    return EncodedRecords([read(text, record) for record, text in enumerate(texts)])


def shown(example: Example) -> tuple[str, str, int]:
    """The first text, the second, and the class, as a person reads them."""
    row = example.rows[0]
    assert row.segments is not None
    parts = [
        "".join(NAMES.get(t, chr(t)) for t in row.tokens[row.segments == segment].tolist())
        for segment in (0, 1)
    ]
    assert row.positions[HEAD].tolist() == [0]
    return parts[0], parts[1], int(row.targets[HEAD][0])


def test_pairs_by_eye() -> None:
    objective = Objective(bert.TRAITS, SPECIALS, store=store(*TEXTS))
    found = {shown(objective.build(read(TEXTS[0]), training_rng(0, epoch, 0))) for epoch in range(300)}
    assert {pair for pair in found if pair[2] == 0} == {
        ("[He came. ]", "He saw. He won.]", 0),
        ("[He came. He saw. ]", "He won.]", 0),
    }
    wrong = {pair for pair in found if pair[2] == NOT_NEXT}
    # Whole sentences of another text, no longer than "He saw. He won.".
    far = {second for first, second, _ in wrong if first == "[He came. ]"}
    assert far - {"白日依山尽。黄河入海流。]"} == {
        "It rains. ]", "We stay. ]", "Tea is made. ]", "The cat sleeps.]",
        "欲穷千里目。更上一层楼。]", "更上一层楼。登高望远。]", "登高望远。]",
    }  # fmt: skip
    # "He won." has seven tokens: of English no whole sentence is as short, so one is cut.
    assert {second for first, second, _ in wrong if first == "[He came. He saw. ]"} == {
        "It rain]", "We stay]", "Tea is ]", "The cat]",
        "欲穷千里目。]", "更上一层楼。]", "登高望远。]", "白日依山尽。]", "黄河入海流。]",
    }  # fmt: skip


def test_chinese_is_cut_at_its_sentences() -> None:
    objective = Objective(bert.TRAITS, SPECIALS, store=store(*TEXTS))
    firsts = {shown(objective.build(read(TEXTS[3], 3), training_rng(0, epoch, 3)))[0] for epoch in range(100)}
    assert firsts == {"[欲穷千里目。]", "[欲穷千里目。更上一层楼。]"}


def test_without_a_sentence_the_text_is_cut_anywhere() -> None:
    objective = Objective(bert.TRAITS, SPECIALS, store=store("abcdef", "123456"))
    pairs = {shown(objective.build(read("abcdef"), training_rng(0, epoch, 0))) for epoch in range(200)}
    assert {first for first, _, _ in pairs} == {"[" + "abcdef"[:n] + "]" for n in range(1, 6)}
    assert all(len(first + second) == 9 for first, second, _ in pairs)


def test_a_single_token_is_no_pair() -> None:
    objective = Objective(bert.TRAITS, SPECIALS, store=store(*TEXTS))
    row = objective.build(read("a"), training_rng(0, 0, 0)).rows[0]
    assert row.tokens.tolist() == [1, ord("a"), 2]
    assert len(row.positions[HEAD]) == len(row.targets[HEAD]) == 0
    assert objective.collate([[Example(0, (row,))]]).counts == {HEAD: 0}


def long_store(documents: int = 20, windows: int = 5, length: int = 40) -> EncodedRecords:
    """Documents of full windows and a last one that ends with its document; a token is 100 * document."""
    draw = np.random.default_rng(1)
    features = []
    for record in range(documents):
        for part in range(windows):
            size = length if part < windows - 1 else int(draw.integers(10, length))
            flags = np.where(draw.random(size) < 0.2, 3, 1).astype(np.uint8)
            features.append(Feature(record, part, (np.full(size, 100 * (record + 1)),), word_starts=(flags,)))
    return EncodedRecords(features)


def test_half_are_false_and_nothing_but_the_text_tells() -> None:
    windows = long_store()
    objective = Objective(bert.TRAITS, SPECIALS, store=windows)
    labels, sizes, full = [], [], []
    for epoch in range(40):
        for index in range(len(windows)):
            feature = windows[index]
            row = objective.build(feature, training_rng(0, epoch, index)).rows[0]
            assert row.segments is not None
            own = row.tokens[(row.segments == 1) & (row.tokens >= 100)]
            label = int(row.targets[HEAD][0])
            assert (own == 100 * (feature.record + 1)).all() == (label == 0)
            assert len(set(own.tolist())) == 1  # one document only
            labels.append(label)
            sizes.append(len(row.tokens))
            full.append(len(feature.sequences[0]) == 40)
    chosen, size, whole = np.array(labels), np.array(sizes), np.array(full)
    assert chosen.mean() == pytest.approx(0.5, abs=3 * 0.5 / np.sqrt(len(chosen)))
    assert size.max() <= 43
    # Of full windows, nearly all false pairs are as long as the true ones; a length would give them away.
    assert (size[whole & (chosen == 1)] == 43).mean() > 0.9
    assert (size[whole & (chosen == 0)] == 43).all()


def test_the_replacement_comes_from_all_over_the_store() -> None:
    windows = long_store()
    objective = Objective(bert.TRAITS, SPECIALS, store=windows)
    seen: set[int] = set()
    for epoch in range(400):
        row = objective.build(windows[0], training_rng(0, epoch, 0)).rows[0]
        seen |= set(row.tokens[row.tokens >= 100].tolist())
    assert len(seen) == 20


def test_a_validation_example_is_keyed_by_its_feature() -> None:
    windows = long_store()
    objective = Objective(bert.TRAITS, SPECIALS, store=windows)
    first, again = (objective.build(windows[3], validation_rng(3)).rows[0] for _ in range(2))
    assert first.tokens.tolist() == again.tokens.tolist()


def test_a_window_leaves_room_for_the_frame() -> None:
    cut = Objective.window_spec(SPECIALS, 16)
    assert cut.length == 13
    objective = Objective(bert.TRAITS, SPECIALS, store=store(*TEXTS))
    assert objective.length_bounds(np.array([[13]])).tolist() == [16]


@pytest.mark.parametrize("whole_words", [False, True])
def test_masks_and_pairs_cost_what_they_cost_in_stock(whole_words: bool) -> None:
    """The whole way from text to loss, against BertForPreTraining on the same inputs and labels."""
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=41_000, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        initializer_range=0.5, max_position_embeddings=64,
    )  # fmt: skip
    stock = transformers.BertForPreTraining(config).eval()
    kind = parse_objective("masked_lm+next_sentence")
    network = bert.Network(bert.Config.from_hugging_face(config.to_dict()), heads=kind.heads).eval()
    assert weights.load_weights(network, stock.state_dict(), bert.WEIGHTS) == []
    texts = store(*TEXTS)
    objective = kind.build_objective(bert.TRAITS, SPECIALS, {"whole_words": whole_words}, texts)
    examples = [objective.build(texts[i], training_rng(0, 1, i)) for i in range(len(texts))]
    batch = objective.collate([[e] for e in examples])
    assert batch.counts[HEAD] == len(texts)
    expected = stock_loss(stock, batch)
    (loss,) = objective.loss(network, batch)
    total = sum(w * value / batch.counts[term] for term, (value, w) in loss.terms.items())
    torch.testing.assert_close(total, expected, atol=1e-4, rtol=1e-4)
    packed = objective.collate([examples])
    (together,) = objective.loss(network, packed)
    for term, (value, _) in loss.terms.items():
        torch.testing.assert_close(together.terms[term][0], value, atol=1e-3, rtol=1e-4)


@torch.no_grad()
def stock_loss(stock: transformers.BertForPreTraining, batch: Batch) -> torch.Tensor:
    labels = torch.full(batch.tokens.shape, IGNORE_INDEX)
    labels.view(-1)[batch.positions["masked_lm"]] = batch.targets["masked_lm"]
    mask = torch.arange(batch.tokens.shape[1]) < batch.layout.lengths[:, None]
    loss: torch.Tensor = stock(
        batch.tokens, attention_mask=mask.long(), token_type_ids=batch.layout.segments,
        labels=labels, next_sentence_label=batch.targets[HEAD],
    ).loss  # fmt: skip
    return loss


def test_special_tokens_of_a_pair_are_never_hidden() -> None:
    texts = store(*TEXTS)
    kind = parse_objective("masked_lm+next_sentence")
    objective = kind.build_objective(bert.TRAITS, SPECIALS, {"mask_rate": 0.99}, texts)
    for epoch in range(20):
        row = objective.build(texts[1], training_rng(0, epoch, 1)).rows[0]
        assert (row.tokens == 2).sum() == 2
        assert row.tokens[0] == 1
        assert not np.isin(row.targets["masked_lm"], SPECIALS.all_ids).any()
        previous, target = kind.ngram_contexts(texts[1], Example(1, (row,)), SPECIALS)
        assert not np.isin(previous, SPECIALS.all_ids).any()
        assert (target == row.targets["masked_lm"]).all()


def test_refuses_what_cannot_be() -> None:
    with pytest.raises(UnsupportedError, match="next_sentence"):
        Objective(llama.TRAITS, SPECIALS)
    with pytest.raises(DataError, match="one document"):
        Objective(bert.TRAITS, SPECIALS, store=store("one text alone"))
    blind = Feature(0, 0, (np.arange(5, 9),))
    with pytest.raises(DataError, match="sentences start"):
        Objective(bert.TRAITS, SPECIALS, store=store(*TEXTS)).build(blind, training_rng(0, 0, 0))
    with pytest.raises(ConfigError, match=r"masked_lm\+next_sentence"):
        parse_objective("next_sentence+masked_lm")
    with pytest.raises(ConfigError, match="there is no 'next_sentense'"):
        parse_objective("masked_lm+next_sentense")
    with pytest.raises(ConfigError, match="whole_word"):
        parse_objective("masked_lm+next_sentence").check_options({"whole_word": True}, "here")
