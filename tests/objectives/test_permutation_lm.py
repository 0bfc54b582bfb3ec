"""Permutation language modelling: what is predicted, in which order, and what stock XLNet makes of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers

from pretune.checkpoint import weights
from pretune.config import build_settings
from pretune.data.corpus.windows import EncodedRecords
from pretune.data.order import training_rng
from pretune.errors import ConfigError, UnsupportedError
from pretune.families import bert, xlnet
from pretune.objectives import masked_lm
from pretune.objectives.permutation_lm import HEAD, Objective, Options, slice_segment
from pretune.types import Batch, Feature, Row, SpecialTokens

SPECIALS = SpecialTokens(
    vocabulary_size=96,
    pad_id=0,
    mask_id=3,
    eos_id=4,
    all_ids=(0, 1, 2, 3, 4),
    single=((), (2, 1)),
    pair=((), (2,), (2, 1)),
)
TEXT = np.arange(10, 22)


def feature(tokens: Any = TEXT, starts: Any = None) -> Feature:
    return Feature(7, 0, (tokens,), word_starts=None if starts is None else (starts,))


def row(options: Options | None = None, epoch: int = 0, tokens: Any = TEXT, starts: Any = None) -> Row:
    return (
        Objective(xlnet.TRAITS, SPECIALS, options)
        .build(feature(tokens, starts), training_rng(0, epoch, 0))
        .rows[0]
    )


def test_a_text_is_read_whole_and_one_token_in_six_is_asked_for() -> None:
    said = row()
    assert said.tokens.tolist() == [10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 2, 1]
    assert said.order is not None
    places = said.positions[HEAD]
    assert len(places) == 2
    assert sorted(said.order[places]) == [0, 1]
    assert (np.delete(said.order, places) == -1).all()
    assert said.targets[HEAD].tolist() == said.tokens[places].tolist()
    assert row().order.tolist() == said.order.tolist()  # type: ignore[union-attr]
    assert any(row(epoch=e).order.tolist() != said.order.tolist() for e in range(5))  # type: ignore[union-attr]


def test_contexts_are_the_tokens_before() -> None:
    example = Objective(xlnet.TRAITS, SPECIALS).build(feature(), training_rng(0, 3, 0))
    previous, targets = Objective.ngram_contexts(feature(), example, SPECIALS)
    assert [p if p >= 0 else t - 1 for p, t in zip(previous, targets, strict=True)] == list(targets - 1)
    assert ((previous == -1) == (targets == TEXT[0])).all()


@pytest.mark.parametrize(
    ("length", "tokens_per_target", "expected"), [(12, 6, 2), (64, 6, 11), (1, 6, 1), (40, 2, 20)]
)
def test_the_number_of_targets_is_exact(length: int, tokens_per_target: int, expected: int) -> None:
    for epoch in range(30):
        said = row(Options(tokens_per_target=tokens_per_target), epoch, np.arange(10, 10 + length) % 80 + 10)
        assert len(said.positions[HEAD]) == expected


def test_special_tokens_are_never_asked_for_and_always_seen() -> None:
    text = np.array([10, 4, 11, 4, 12, 13])
    for epoch in range(40):
        said = row(Options(tokens_per_target=2), epoch, text)
        assert said.order is not None
        assert (said.order[np.isin(said.tokens, SPECIALS.all_ids)] == -1).all()
    assert len(row(tokens=np.array([4, 4])).positions[HEAD]) == 0


def test_every_order_of_the_targets_is_equally_likely() -> None:
    seen: Counter[tuple[int, ...]] = Counter()
    for epoch in range(1200):
        said = row(Options(tokens_per_target=4), epoch)
        seen[tuple(said.order[said.positions[HEAD]].tolist())] += 1  # type: ignore[index]
    assert len(seen) == 6
    # Chi-square with 5 degrees of freedom: 20.5 is passed once in a thousand times.
    assert sum((count - 200) ** 2 / 200 for count in seen.values()) < 20.5


def runs_of(said: Row) -> list[int]:
    """Lengths of the stretches of neighbouring targets."""
    places = said.positions[HEAD]
    return [len(run) for run in np.split(places, np.flatnonzero(np.diff(places) > 1) + 1)]


def test_spans_are_as_long_as_the_paper_says() -> None:
    """Of n tokens in proportion to 1 / n, beside those that are drawn one by one."""
    text = np.tile(np.arange(10, 90), 8)
    lengths: Counter[int] = Counter()
    for epoch in range(300):
        lengths.update(runs_of(row(None, epoch, text)))
    total = sum(lengths.values())
    # A span and its context are K + 1 times as long as the span, so 1 / (K + 1) of the text lies in spans.
    spans = 640 / 7 / (5 * 60 / 137)
    singles = 640 / 6 - 640 / 7
    for length in (2, 3, 4, 5):
        expected = spans * (60 / 137) / length / (spans + singles)
        assert lengths[length] / total == pytest.approx(expected, rel=0.25)
    longer = Counter(run for e in range(50) for run in runs_of(row(Options(max_span_length=1), e, text)))
    assert longer[1] / sum(longer.values()) > 0.85


def test_spans_begin_where_words_do() -> None:
    text, starts = np.tile(np.arange(10, 90), 8), np.zeros(640, np.uint8)
    starts[::4] = 1
    at_start = total = 0
    for epoch in range(100):
        said = row(None, epoch, text, starts)
        places = said.positions[HEAD]
        firsts = places[np.insert(np.diff(places) > 1, 0, True)]
        at_start += int((firsts % 4 == 0).sum())
        total += len(firsts)
    assert at_start / total > 0.6  # 0.25 by chance; the rest are drawn one by one


def test_as_masked_lm_asks_for_the_tokens_that_masked_lm_hides() -> None:
    framed = replace(SPECIALS, single=((1,), (2,)))
    for number in range(20):
        text = np.random.default_rng(number).integers(5, 96, 10 + number)
        ours = row(Options(as_masked_lm=True), number, text)
        masked = (
            masked_lm.Objective(bert.TRAITS, framed).build(feature(text), training_rng(0, number, 0)).rows[0]
        )
        assert (ours.positions[HEAD] + 1).tolist() == masked.positions["masked_lm"].tolist()
        assert ours.targets[HEAD].tolist() == masked.targets["masked_lm"].tolist()
        assert ours.order is not None
        assert sorted(set(ours.order.tolist())) == [-1, 0]


def test_what_it_cannot_do_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="xlnet"):
        Objective(bert.TRAITS, SPECIALS)
    for wrong, word in (
        ({"memory_length": 4}, "segment_length"),
        ({"segment_length": 8, "as_masked_lm": True}, "segment_length"),
        ({"tokens_per_target": 1}, "tokens_per_target"),
    ):
        with pytest.raises(ConfigError, match=word):
            build_settings(Options, wrong, where="objective_options")


def test_windows_leave_room_for_the_frame() -> None:
    assert Objective.window_spec(SPECIALS, 32).length == 30
    assert Objective(xlnet.TRAITS, SPECIALS).length_bounds(np.array([[30], [4]])).tolist() == [32, 6]


# -- against stock ----------------------------------------------------------------------------------


def networks() -> tuple[Any, Any]:
    """Ours and stock's, of the same weights."""
    torch.manual_seed(0)
    config = xlnet.tiny_config()
    stock = transformers.XLNetLMHeadModel(transformers.XLNetConfig(**config.to_hugging_face(HEAD))).eval()
    with torch.no_grad():
        for parameter in stock.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    network = xlnet.Network(config, heads=(HEAD,)).eval()
    weights.load_weights(network, stock.state_dict(), xlnet.WEIGHTS)
    return network, stock


def texts(*lengths: int) -> EncodedRecords:
    draw = np.random.default_rng(1)
    return EncodedRecords([Feature(i, 0, (draw.integers(5, 96, n),)) for i, n in enumerate(lengths)])


def local_permutation(order: Any) -> Any:
    """The mask of the paper's code (``_local_perm``) of tokens of which those of a rank are predicted."""
    rank, target = np.where(order < 0, -1, order), order >= 0
    own = np.where(target, rank, rank + 1)
    return (own[:, None] <= rank[None, :]) & target[None, :]


def stock_inputs(batch: Batch) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """A batch as stock takes it, and which of its predictions count."""
    rows, width = batch.tokens.shape
    order, places = batch.layout.order, batch.positions[HEAD]
    assert order is not None
    assert places is not None
    columns = [(places[places // width == r] % width).tolist() for r in range(rows)]
    most = max(1, *map(len, columns))
    mapping, counts = torch.zeros(rows, most, width), torch.zeros(rows, most, dtype=torch.bool)
    for r, chosen in enumerate(columns):
        for slot, column in enumerate(chosen):
            mapping[r, slot, column], counts[r, slot] = 1, True
    inputs = {
        "input_ids": batch.tokens,
        "attention_mask": (torch.arange(width) < batch.layout.lengths[:, None]).float(),
        "perm_mask": torch.tensor(np.stack([local_permutation(o.numpy()) for o in order])).float(),
        "target_mapping": mapping,
    }
    return inputs, counts


def stock_loss(stock: Any, batch: Batch, mems: Any = None) -> tuple[torch.Tensor, Any]:
    inputs, counts = stock_inputs(batch)
    outputs = stock(**inputs, mems=mems, use_mems=True)
    return F.cross_entropy(outputs.logits[counts], batch.targets[HEAD], reduction="sum"), outputs.mems


def assert_same_gradients(network: Any, stock: Any) -> None:
    known = {n: p.grad for n, p in network.named_parameters() if p.grad is not None}
    theirs = {n: p.grad for n, p in stock.named_parameters() if p.grad is not None}
    known |= {n: torch.zeros_like(p) for n, p in network.named_parameters() if n not in known}
    ours = weights.to_hugging_face(known, xlnet.WEIGHTS)
    for name, gradient in theirs.items():
        scale = max(1.0, float(gradient.abs().max()))
        torch.testing.assert_close(ours[name], gradient, rtol=1e-3, atol=1e-5 * scale, msg=name)


@pytest.mark.parametrize("lengths", [(11, 11), (12, 12), (13, 6, 9), (14, 5, 1)], ids=str)
def test_the_loss_is_that_of_stock(lengths: tuple[int, ...]) -> None:
    """Odd and even lengths, with padding and without, by the mask of the paper's code."""
    store = texts(*lengths)
    objective = Objective(xlnet.TRAITS, SPECIALS, Options(tokens_per_target=3), store)
    batch = objective.collate(
        [[objective.build(store[i], training_rng(0, 0, i))] for i in range(len(lengths))]
    )
    network, stock = networks()
    [loss] = objective.loss(network, batch)
    total, weight = loss.terms[HEAD]
    expected, _ = stock_loss(stock, batch)
    assert weight == 1.0
    torch.testing.assert_close(total, expected, rtol=1e-5, atol=1e-5)
    total.backward()  # type: ignore[no-untyped-call]
    expected.backward()  # type: ignore[no-untyped-call]
    assert_same_gradients(network, stock)


@pytest.mark.parametrize("memory", [None, 3, 9])
def test_the_losses_of_a_chain_of_segments_are_those_of_stock(memory: int | None) -> None:
    store = texts(18, 18)
    options = Options(tokens_per_target=3, segment_length=5, memory_length=memory)
    objective = Objective(xlnet.TRAITS, SPECIALS, options, store)
    assert not objective.supports_packing
    batch = objective.collate([[objective.build(store[i], training_rng(0, 0, i))] for i in range(2)])
    assert batch.tokens.shape == (2, 20)
    network, stock = networks()
    stock.transformer.mem_len = memory or 5
    mems, found = None, []
    for number, loss in enumerate(objective.loss(network, batch)):
        part = slice_segment(batch, 5 * number, 5 * number + 5)
        assert len(part.targets[HEAD]) == 2 * (2 if number < 3 else 1)
        expected, mems = stock_loss(stock, part, mems)
        total, _ = loss.terms[HEAD]
        torch.testing.assert_close(total, expected, rtol=1e-5, atol=1e-5)
        total.backward()  # type: ignore[no-untyped-call]
        expected.backward()  # type: ignore[no-untyped-call]
        found.append(total.item())
    assert len(found) == 4
    assert_same_gradients(network, stock)
    second = slice_segment(batch, 5, 10)
    [forgetful] = objective.loss(network, second)
    assert forgetful.terms[HEAD][0].item() != pytest.approx(found[1])  # the memory is read


def test_a_memory_ends_with_its_text() -> None:
    """A text that is shorter than its neighbour has the loss that it has alone."""
    store = texts(17, 7)
    objective = Objective(xlnet.TRAITS, SPECIALS, Options(tokens_per_target=3, segment_length=4), store)
    examples = [objective.build(store[i], training_rng(0, 0, i)) for i in range(2)]
    network, _ = networks()

    def total(*chosen: Any) -> float:
        batch = objective.collate([[example] for example in chosen])
        return sum(float(loss.terms[HEAD][0].detach()) for loss in objective.loss(network, batch))

    assert total(*examples) == pytest.approx(total(examples[0]) + total(examples[1]), rel=1e-5)
    assert total(*examples) == pytest.approx(sum(total(e) for e in examples[::-1]), rel=1e-5)
