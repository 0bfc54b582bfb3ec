"""What a place sees, checked against a softmax written out, and that nothing is ever undefined."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pretune.errors import UnsupportedError
from pretune.nn import attention
from pretune.types import Layout

LENGTHS = torch.tensor([6, 3])


def seen(layout: Layout, width: int = 6, *, causal: bool, window: int | None = None) -> Tensor:
    """(B, T, S), which values reach which place, read off the output of `attend`."""
    plan = attention.build_mask(layout, width, causal=causal, window=window)
    rows, size = (
        len(layout.lengths),
        width if layout.cache_lengths is None else int(layout.cache_lengths.max()) + width,
    )
    query, key = torch.zeros(rows, 1, width, size), torch.zeros(rows, 1, size, size)
    value = torch.eye(size).expand(rows, 1, size, size)
    mixed = attention.attend(query, key, value, plan)
    assert mixed.isfinite().all()
    return mixed > 0


def expected(rule: object) -> Tensor:
    assert callable(rule)
    return torch.tensor([[bool(rule(q, k)) for k in range(6)] for q in range(6)])


def test_full_rows_need_no_mask() -> None:
    full = Layout(lengths=torch.tensor([6, 6]))
    assert attention.build_mask(full, 6, causal=False).additive_mask is None
    # Padding lies to the right of all that is real, so a causal model needs no mask for it either.
    assert attention.build_mask(Layout(lengths=LENGTHS), 6, causal=True).additive_mask is None
    assert attention.build_mask(Layout(lengths=LENGTHS), 6, causal=False).additive_mask is not None


def test_padding_sees_and_is_seen_by_padding_only() -> None:
    assert torch.equal(seen(Layout(lengths=LENGTHS), causal=False)[0], expected(lambda q, k: True))
    rule = expected(lambda q, k: (q < 3) == (k < 3))
    assert torch.equal(seen(Layout(lengths=LENGTHS), causal=False)[1], rule)


@pytest.mark.parametrize("causal", [False, True])
def test_documents_do_not_see_each_other(causal: bool) -> None:
    row = [0, 0, 1, 1, 1, -1]
    layout = Layout(lengths=torch.tensor([5]), documents=torch.tensor([row]))
    rule = expected(lambda q, k: row[q] == row[k] and (k <= q or not causal))
    assert torch.equal(seen(layout, causal=causal)[0], rule)


def test_a_prefix_sees_itself_both_ways() -> None:
    layout = Layout(lengths=torch.tensor([6]), prefix_lengths=torch.tensor([3]))
    assert torch.equal(seen(layout, causal=True)[0], expected(lambda q, k: k <= q or k < 3))


@pytest.mark.parametrize("causal", [False, True])
def test_a_window_ends(causal: bool) -> None:
    rule = expected(lambda q, k: abs(q - k) < 2 and (k <= q or not causal))
    assert torch.equal(seen(Layout(lengths=torch.tensor([6])), causal=causal, window=2)[0], rule)


def test_new_tokens_see_the_cached() -> None:
    layout = Layout(lengths=torch.tensor([2, 2]), cache_lengths=torch.tensor([3, 1]))
    found = seen(layout, 2, causal=True).int()
    assert found.tolist() == [
        [[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]],
        [[1, 1, 0, 0, 0], [1, 1, 1, 0, 0]],
    ]


def test_a_permuted_order_is_refused() -> None:
    layout = Layout(lengths=LENGTHS, order=torch.zeros(2, 6, dtype=torch.long))
    with pytest.raises(UnsupportedError, match="order"):
        attention.build_mask(layout, 6, causal=False)


@pytest.mark.parametrize("causal", [False, True])
def test_grouped_heads_equal_repeated_ones(causal: bool) -> None:
    torch.manual_seed(0)
    layout = Layout(lengths=LENGTHS)
    plan = attention.build_mask(layout, 6, causal=causal)
    query = torch.randn(2, 4, 6, 8, requires_grad=True)
    key, value = torch.randn(2, 2, 2, 6, 8).unbind(0)
    key.requires_grad_()
    value.requires_grad_()
    results = []
    for keys, values in ((key, value), (key.repeat_interleave(2, 1), value.repeat_interleave(2, 1))):
        mixed = attention.attend(query, keys, values, plan)
        results.append((mixed, *torch.autograd.grad(mixed.square().sum(), (query, key, value))))
    for grouped, repeated in zip(*results, strict=True):
        torch.testing.assert_close(grouped, repeated, atol=1e-5, rtol=1e-5)


def test_a_window_as_wide_as_the_row_needs_no_mask() -> None:
    full = Layout(lengths=torch.tensor([6, 6]))
    assert attention.build_mask(full, 6, causal=False, window=6).additive_mask is None
    assert attention.build_mask(full, 6, causal=False, window=5).additive_mask is not None


def crossed(layout: Layout, source: Layout, width: int = 4) -> Tensor:
    """(B, T, S), which places of a source of 6 reach which place of a target."""
    rows = len(layout.lengths)
    plan = attention.cross_attention_mask(layout, source, 6)
    query, key = torch.zeros(rows, 1, width, 6), torch.zeros(rows, 1, 6, 6)
    mixed = attention.attend(query, key, torch.eye(6).expand(rows, 1, 6, 6), plan)
    assert mixed.isfinite().all()
    return mixed > 0


def test_a_target_sees_the_real_places_of_its_source() -> None:
    target = Layout(lengths=torch.tensor([4, 1]))
    assert (
        attention.cross_attention_mask(target, Layout(lengths=torch.tensor([6, 6])), 6).additive_mask is None
    )
    found = crossed(target, Layout(lengths=LENGTHS))
    assert found[0].all()
    assert torch.equal(found[1], (torch.arange(6) < 3).expand(4, 6))
    assert crossed(target, Layout(lengths=torch.tensor([0, 6]))).all(), "an empty source leaves no row empty"


def test_a_target_sees_the_source_of_its_own_document() -> None:
    mine, theirs = [0, 1, 1, -1], [0, 0, 1, 1, 1, 1]
    target = Layout(lengths=torch.tensor([3]), documents=torch.tensor([mine]))
    source = Layout(lengths=torch.tensor([6]), documents=torch.tensor([theirs]))
    found = crossed(target, source)[0]
    for place, document in enumerate(mine[:3]):
        assert found[place].tolist() == [other == document for other in theirs]
    assert found[3].all(), "padding would see nothing, so it sees all"


@pytest.mark.parametrize("causal", [False, True])
def test_a_bias_is_added_to_what_is_seen(causal: bool) -> None:
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 2, 2, 6, 4).unbind()
    bias, layout = torch.randn(1, 2, 6, 6), Layout(lengths=LENGTHS)
    found = attention.attend(
        query, key, value, attention.add_bias(attention.build_mask(layout, 6, causal=causal), bias)
    )
    for row, length in enumerate(LENGTHS.tolist()):
        scores = query[row] @ key[row].mT / 2 + bias[0]
        hidden = torch.arange(6)[None, :] >= length
        if causal:
            hidden = torch.ones(6, 6, dtype=torch.bool).triu(1)
        expected = scores.masked_fill(hidden, -torch.inf).softmax(-1) @ value[row]
        ours = found[row].unflatten(-1, (2, 4)).transpose(0, 1)
        torch.testing.assert_close(ours[:, :length], expected[:, :length])


ORDERS = ([2, -1, 0, -1, 1, 3], [-1, 1, 0, -1, -1, -1], [0, 0, -1, 0, -1, 1])
"""By rank; what is of one rank sees none of its like."""


def permuted_seen(layout: Layout, stream: attention.Stream, columns: Tensor | None = None) -> Tensor:
    plan = attention.permutation_mask(layout, 6, stream=stream, query_positions=columns)
    rows, width = len(layout.lengths), 6 if columns is None else columns.shape[1]
    query, key = torch.zeros(rows, 1, width, 6), torch.zeros(rows, 1, 6, 6)
    mixed = attention.attend(query, key, torch.eye(6).expand(rows, 1, 6, 6), plan)
    assert mixed.isfinite().all()
    return mixed > 0


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("length", [5, 6])
def test_a_permuted_order_place_by_place(order: list[int], length: int) -> None:
    """Content: those before in the order and itself; query: those before it only; padding sees padding."""
    layout = Layout(lengths=torch.tensor([length]), order=torch.tensor([order]))

    def before(q: int, k: int) -> bool:
        return order[k] == -1 or order[k] < order[q]

    def alike(q: int, k: int) -> bool:
        return (q < length) == (k < length)

    content = expected(lambda q, k: alike(q, k) and (before(q, k) or q == k))
    query = expected(lambda q, k: alike(q, k) and before(q, k) and q != k)
    assert torch.equal(permuted_seen(layout, "content")[0], content)
    assert torch.equal(permuted_seen(layout, "query")[0], query)
    columns = torch.tensor([[4, 0, 0]])
    assert torch.equal(permuted_seen(layout, "query", columns)[0], query[[4, 0, 0]])


def test_without_an_order_all_see_all_and_full_rows_need_no_mask() -> None:
    full = Layout(lengths=torch.tensor([6, 6]))
    assert attention.permutation_mask(full, 6, stream="content").additive_mask is None
    rule = expected(lambda q, k: (q < 3) == (k < 3))
    assert torch.equal(permuted_seen(Layout(lengths=LENGTHS), "content")[1], rule)


def test_documents_keep_apart_in_permuted_order() -> None:
    row, order = [0, 0, 1, 1, 1, -1], [0, -1, 1, 0, -1, -1]
    layout = Layout(torch.tensor([5]), documents=torch.tensor([row]), order=torch.tensor([order]))
    rule = expected(lambda q, k: row[q] == row[k] and q != k and (order[k] == -1 or order[k] < order[q]))
    assert torch.equal(permuted_seen(layout, "query")[0], rule)


def test_a_memory_is_seen_by_every_place() -> None:
    layout = Layout(lengths=torch.tensor([2]), order=torch.tensor([[0, 1]]))
    plan = attention.permutation_mask(layout, 2, stream="query", memory_length=3)
    assert plan.additive_mask is not None
    assert (plan.additive_mask[0, 0] == 0).tolist() == [
        [True, True, True, False, False],
        [True, True, True, True, False],
    ]
    packed = Layout(torch.tensor([2]), documents=torch.zeros(1, 2, dtype=torch.long))
    with pytest.raises(UnsupportedError, match="packed"):
        attention.permutation_mask(packed, 2, stream="content", memory_length=3)


@pytest.mark.parametrize("bias", [False, True])
def test_what_sees_nothing_takes_in_nothing_and_teaches_nothing(bias: bool) -> None:
    """The first of an order without a single visible token."""
    layout = Layout(lengths=torch.tensor([3]), order=torch.tensor([[1, 0, 2]]))
    plan = attention.permutation_mask(layout, 3, stream="query")
    query, key, value = torch.randn(3, 1, 2, 3, 4, requires_grad=True).unbind(0)
    added = torch.randn(1, 2, 3, 3, requires_grad=True)
    mixed = attention.attend(query, key, value, attention.add_bias(plan, added) if bias else plan)
    assert (mixed[0, 1] == 0).all()
    assert (mixed[0, 0] != 0).all()
    gradients = torch.autograd.grad(mixed.square().sum(), [query, key, value, *([added] if bias else [])])
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert (gradients[0][:, :, 1] == 0).all()


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("learnt", [False, True])
def test_a_bias_adds_to_the_products(causal: bool, learnt: bool) -> None:
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 2, 2, 6, 4).unbind(0)
    bias = torch.randn(1, 2, 6, 6, requires_grad=learnt)
    plan = attention.add_bias(attention.build_mask(Layout(lengths=LENGTHS), 6, causal=causal), bias)
    products = query @ key.mT / 2 + bias
    hidden = torch.ones(6, 6, dtype=torch.bool).triu(1) if causal else torch.zeros(6, 6, dtype=torch.bool)
    padding = torch.arange(6) >= LENGTHS[:, None]
    hidden = hidden | (padding[:, :, None] != padding[:, None, :])[:, None] if not causal else hidden
    weights = products.masked_fill(hidden, -torch.inf).softmax(-1)
    wanted = (weights @ value).transpose(1, 2).flatten(2)
    torch.testing.assert_close(attention.attend(query, key, value, plan), wanted, atol=1e-5, rtol=1e-5)
