"""One suite for every file in families/: parity with stock transformers, invariances, gradients, cache."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import transformers
from torch import Tensor

from pretune import registry
from pretune.checkpoint import hub, weights
from pretune.errors import CheckpointError, UnsupportedError
from pretune.families import weight_operations
from pretune.nn import attention
from pretune.nn.cache import KVCache
from pretune.nn.heads import Head, combined_names
from pretune.nn.heads import stock_class as name_stock_class
from pretune.types import IGNORE_INDEX, Batch, Layout, OutputSpec, SpecialTokens

CLASSES = ("no", "maybe", "yes")
LENGTHS = (9, 4, 12)
# fp32, two layers: the order of summation differs between kernels, no more.
PARITY: Any = {"atol": 1e-4, "rtol": 1e-4}
EXACT: Any = {"atol": 1e-5, "rtol": 1e-4}


@dataclass(frozen=True)
class Case:
    family: ModuleType
    model_type: str
    head: str
    tied: bool
    ordered: bool = False
    """Predict in permuted order, from queries that have not seen their own tokens."""

    @property
    def wrapped(self) -> bool:
        """Is its network transformers' own?"""
        return self.family.__name__.rpartition(".")[2] in WRAPPED

    @property
    def heads(self) -> tuple[str, ...]:
        return tuple(self.head.split("+"))

    def entry(self, head: str) -> Head:
        found: Head = self.family.HEADS[head]
        return found

    def operations(self, heads: tuple[str, ...] | None = None) -> list[weights.Operation]:
        """Of the weights of the body and these heads; None: its own."""
        return weight_operations(self.family, self.config, self.heads if heads is None else heads)

    @property
    def config(self) -> Any:
        tiny = self.family.tiny_config()
        values = {**tiny.to_hugging_face(self.head), "model_type": self.model_type}
        if "tie_word_embeddings" in type(tiny).model_fields:
            values["tie_word_embeddings"] = self.tied
        return self.family.Config.from_hugging_face(values)

    def network(self, seed: int = 0) -> Any:
        torch.manual_seed(seed)
        network = self.family.Network(self.config, heads=self.heads, num_labels=len(CLASSES))
        return shaken(network)

    def values(self, network: Any) -> dict[str, Any]:
        is_labeled = any(self.entry(head).is_labeled for head in self.heads)
        outputs = OutputSpec(CLASSES) if is_labeled else None
        specials = SpecialTokens(vocabulary_size=self.config.vocab_size, pad_id=0, bos_id=1, eos_id=2)
        found: dict[str, Any] = self.config.to_hugging_face(self.head, outputs=outputs, specials=specials)
        return found


WRAPPED = ("hf:electra", "hf:mpnet", "hf:opt", "hf:phi")
"""Of the architectures that transformers computes: heads of several parts, positions of two kinds."""


def cases() -> Iterator[Any]:
    for name in (*registry.list_names("families"), *WRAPPED):
        family = registry.find("families", name)
        if family.TRAITS.architecture == "encoder-decoder":
            continue
        for model_type in family.MODEL_TYPES:
            for head in combined_names(family.HEADS):
                tied = Case(family, model_type, head, tied=True)
                yield pytest.param(tied, id=f"{model_type}-{head}")
                if tied.entry(tied.heads[0]).type == "vocabulary":
                    yield pytest.param(replace(tied, tied=False), id=f"{model_type}-{head}-untied")
                    if family.TRAITS.supports_permutation:
                        yield pytest.param(replace(tied, ordered=True), id=f"{model_type}-{head}-ordered")


def shaken(module: Any) -> Any:
    """Every parameter away from its first value: zero biases and norms of one would hide a swap."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return module.eval()


def reads_all(case: Case, head: str) -> bool:
    """Has it an output for every token?"""
    return case.entry(head).pooling(case.config) == "all"


def padded(documents: list[Tensor], width: int = 0, fill: int = 0) -> Batch:
    """One document a row."""
    lengths = torch.tensor([len(d) for d in documents])
    tokens = torch.full((len(documents), max(width, int(lengths.max()))), fill)
    for row, document in enumerate(documents):
        tokens[row, : len(document)] = document
    return Batch(tokens=tokens, layout=Layout(lengths=lengths))


def random_documents(case: Case, lengths: tuple[int, ...] = LENGTHS) -> list[Tensor]:
    generator = torch.Generator().manual_seed(7)
    return [torch.randint(3, case.config.vocab_size, (n,), generator=generator) for n in lengths]


def real(batch: Batch) -> Tensor:
    return torch.arange(batch.tokens.shape[1]) < batch.layout.lengths[:, None]


def with_segments(case: Case, batch: Batch) -> Batch:
    if not case.family.TRAITS.has_segment_embeddings:
        return batch
    segments = (torch.arange(batch.tokens.shape[1]) > 2).long().expand(batch.tokens.shape)
    return replace(batch, layout=replace(batch.layout, segments=segments))


def in_order(case: Case, batch: Batch) -> Batch:
    """Ranks that follow from the tokens, so that a text has the same in any grid; all see its first two."""
    if not case.ordered:
        return batch
    places = batch.layout.position_ids
    places = torch.arange(batch.tokens.shape[1]) if places is None else places
    order = (batch.tokens * 7919 % 13 - 1).masked_fill(places < 2, -1)
    return replace(batch, layout=replace(batch.layout, order=order))


def stock_inputs(case: Case, batch: Batch) -> dict[str, Tensor]:
    """The batch as stock takes it: what reads the last place pads to the left there."""

    def moved(values: Tensor) -> Tensor:
        if not case.family.TRAITS.supports_permutation:
            return values
        shifts = (batch.tokens.shape[1] - batch.layout.lengths).tolist()
        return torch.stack([row.roll(shift) for row, shift in zip(values, shifts, strict=True)])

    inputs = {"input_ids": moved(batch.tokens), "attention_mask": moved(real(batch).long())}
    if batch.layout.segments is not None:
        inputs["token_type_ids"] = moved(batch.layout.segments)
    if batch.layout.order is not None:
        order = moved(batch.layout.order)
        seen = (order[:, None, :] == -1) | (order[:, None, :] < order[:, :, None])
        every = torch.eye(order.shape[1])
        inputs["perm_mask"] = ((~seen).float() + every).clamp(max=1)
        inputs["target_mapping"] = every.expand(len(order), -1, -1)
    return inputs


def run_stock(case: Case, stock: Any, inputs: dict[str, Tensor], **options: Any) -> Any:
    """Stock's outputs; the choices of an example are an axis of their own there, of one choice each here."""
    is_choice = case.entry(case.heads[0]).type == "choice"
    return stock(**{key: value[:, None] if is_choice else value for key, value in inputs.items()}, **options)


def stock_hidden(case: Case, stock: Any, inputs: dict[str, Tensor]) -> Tensor:
    """What stands at each place after the last layer, beside the queries, which come last."""
    outputs = stock.base_model(**inputs, output_hidden_states=case.ordered)
    hidden: Tensor = outputs.hidden_states[-2] if case.ordered else outputs.last_hidden_state
    return hidden


def assert_same_as_stock(case: Case, network: Any, stock: Any) -> None:
    batch = in_order(case, with_segments(case, padded(random_documents(case))))
    inputs = stock_inputs(case, batch)
    mask, there = real(batch), inputs["attention_mask"].bool()
    with torch.no_grad():
        ours = network(batch, heads=case.heads)
        theirs = run_stock(case, stock, inputs)
        hidden = stock_hidden(case, stock, inputs)
        told = network(batch, heads=()).hidden
    torch.testing.assert_close(told[mask], hidden[there], **PARITY)
    for said, expected in zip(
        logits_of(case, network, ours, mask), stock_logits(case, network, theirs, there), strict=True
    ):
        torch.testing.assert_close(said, expected, **PARITY)


COMBINED = {"masked_lm": "prediction_logits", "next_sentence": "seq_relationship_logits"}


def stock_logits(case: Case, network: Any, outputs: Any, mask: Tensor) -> list[Tensor]:
    if case.entry(case.heads[0]).type == "span":
        found = [torch.stack([outputs.start_logits, outputs.end_logits], -1)]
    else:
        found = [outputs[COMBINED[h]] for h in case.heads] if len(case.heads) > 1 else [outputs.logits]
    return [x[mask] if reads_all(case, h) else x for h, x in zip(case.heads, found, strict=True)]


def logits_of(case: Case, network: Any, outputs: Any, mask: Tensor) -> list[Tensor]:
    return [
        x.view(*mask.shape, -1)[mask] if reads_all(case, h) else x
        for h, x in ((head, outputs.logits[head]) for head in case.heads)
    ]


def stock_class(case: Case) -> Any:
    prefix = case.family.MODEL_TYPES[case.model_type]
    return getattr(transformers, name_stock_class(case.family.HEADS, prefix, case.head))


each = pytest.mark.parametrize("case", list(cases()))


@each
def test_a_stock_model_says_the_same_in_our_network(case: Case) -> None:
    network = case.network()
    torch.manual_seed(1)
    config = transformers.AutoConfig.for_model(**case.values(network))
    stock = shaken(stock_class(case)(config))
    assert weights.load_weights(network, stock.state_dict(), case.operations()) == []
    assert_same_as_stock(case, network, stock)
    assert case.family.Config.from_hugging_face(config.to_dict()) == case.family.Config.from_hugging_face(
        case.values(network)
    )


@each
def test_our_network_says_the_same_in_a_stock_model(case: Case, tmp_path: Path) -> None:
    network = case.network()
    hub.write_model(tmp_path, case.values(network), weights.export_weights(network, case.operations()))
    config = transformers.AutoConfig.from_pretrained(tmp_path)
    assert config.architectures == [stock_class(case).__name__]
    stock, loaded = stock_class(case).from_pretrained(tmp_path, output_loading_info=True)
    assert not loaded["missing_keys"]
    assert not loaded["unexpected_keys"]
    assert_same_as_stock(case, network, stock.eval())


@each
def test_attention_weights_are_those_of_stock(case: Case, tmp_path: Path) -> None:
    if case.wrapped:
        pytest.skip("transformers computes its attention, where nobody watches")
    network = case.network()
    hub.write_model(tmp_path, case.values(network), weights.export_weights(network, case.operations()))
    # The kernels that stock takes by itself keep no weights.
    stock = stock_class(case).from_pretrained(tmp_path, attn_implementation="eager").eval()
    batch = with_segments(case, padded(random_documents(case, (9, 9))))
    with torch.no_grad(), attention.record_weights() as ours:
        network(batch, heads=())
    with torch.no_grad():
        theirs = run_stock(case, stock, stock_inputs(case, batch), output_attentions=True).attentions
    assert len(ours) == len(theirs) == case.config.num_hidden_layers
    for said, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(said, expected, **PARITY)
        torch.testing.assert_close(said.sum(-1), torch.ones(said.shape[:-1]))


@each
def test_gradients_are_those_of_stock(case: Case, tmp_path: Path) -> None:
    network = case.network()
    hub.write_model(tmp_path, case.values(network), weights.export_weights(network, case.operations()))
    stock = stock_class(case).from_pretrained(tmp_path).eval()
    batch = in_order(case, with_segments(case, padded(random_documents(case))))
    inputs = stock_inputs(case, batch)
    ours_said = logits_of(case, network, network(batch, heads=case.heads), real(batch))
    theirs_said = stock_logits(case, network, run_stock(case, stock, inputs), inputs["attention_mask"].bool())
    for said in (ours_said, theirs_said):
        torch.stack([logits.log_softmax(-1)[:, 0].sum() for logits in said]).sum().backward()
    # Each shared one under all its names: which of them stock keeps depends on the order of its modules.
    named = network.named_parameters(remove_duplicate=False)
    ours = weights.to_hugging_face({n: p.grad for n, p in named}, case.operations())
    if case.wrapped:  # the names of its modules, which those in a folder may differ from
        ours = {n: p.grad for n, p in network.stock.named_parameters(remove_duplicate=False)}
    gradients = {n: p.grad for n, p in stock.named_parameters() if p.grad is not None}
    assert gradients.keys() <= ours.keys()
    for name, gradient in gradients.items():
        scale = float(gradient.abs().max())
        torch.testing.assert_close(ours[name], gradient, rtol=1e-3, atol=1e-5 * max(scale, 1.0), msg=name)


@each
def test_the_map_of_weights_goes_both_ways(case: Case, tmp_path: Path) -> None:
    network, other = case.network(0), case.network(1)
    hub.write_model(tmp_path, case.values(network), weights.export_weights(network, case.operations()))
    tensors = hub.read_tensors(tmp_path)
    assert weights.load_weights(other, tensors, case.operations()) == []
    for name, parameter in network.named_parameters():
        assert torch.equal(parameter, other.get_parameter(name)), name
    again = weights.export_weights(other, case.operations())
    assert again.keys() == tensors.keys()
    assert all(torch.equal(again[name], tensors[name]) for name in tensors)


@each
def test_another_head_or_none_leaves_the_head_new(case: Case) -> None:
    tensors = weights.export_weights(case.network(0), case.operations())
    bare = case.family.Network(case.config, heads=())
    assert weights.load_weights(bare, tensors, case.operations()) == []
    tensors = weights.export_weights(bare, case.operations())
    missing = weights.load_weights(case.network(1), tensors, case.operations())
    assert {name.split(".")[1] for name in missing} <= set(case.heads)


@each
def test_a_wrong_tensor_is_named_and_nothing_is_loaded(case: Case) -> None:
    network = case.network()
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    tensors = weights.export_weights(case.network(1), case.operations())
    name = next(iter(weights.export_weights(case.family.Network(case.config, heads=()), case.operations())))
    for broken in (
        {**tensors, "stranger.weight": torch.zeros(1)},
        {**tensors, name: torch.zeros(1)},
        {key: tensor for key, tensor in tensors.items() if key != name},
    ):
        with pytest.raises(CheckpointError, match=r"\w+\.weight|\w+\.bias"):
            weights.load_weights(network, broken, case.operations())
    assert all(torch.equal(p, before[name]) for name, p in network.named_parameters())


@each
def test_heads_at_some_places_are_heads_on_the_whole_grid_there(case: Case) -> None:
    """The last layer is computed where heads read; its weights' gradients are those of the whole grid."""
    network, batch = case.network(), in_order(case, with_segments(case, padded(random_documents(case))))
    some = torch.tensor([1, 2, len(batch.tokens[0]) + 1, 2])  # one of them twice
    places = {head: some if reads_all(case, head) else None for head in case.heads}
    found = network(replace(batch, positions=places), heads=case.heads)
    if found.hidden is not None:  # it averages over all places
        assert not any(reads_all(case, head) for head in case.heads)
        return
    whole = network(batch, heads=case.heads).logits
    expected = {head: whole[head] if places[head] is None else whole[head][some] for head in case.heads}
    results = []
    for logits in (found.logits, expected):
        total = torch.stack([logits[head].square().sum() for head in case.heads]).sum()
        results.append(torch.autograd.grad(total, list(network.parameters()), allow_unused=True))
    for head in case.heads:
        torch.testing.assert_close(found.logits[head], expected[head], **EXACT)
    for ours, whole in zip(*results, strict=True):
        assert (ours is None) == (whole is None)
        if ours is not None:
            torch.testing.assert_close(ours, whole, atol=1e-4 * float(whole.abs().max()) + 1e-7, rtol=1e-3)


@each
def test_padding_changes_nothing(case: Case) -> None:
    network, documents = case.network(), random_documents(case)
    for row, document in enumerate(documents):
        narrow, wide = in_order(case, padded([document])), in_order(case, padded(documents, 16, fill=5))
        alone, beside = (network(batch, heads=case.heads) for batch in (narrow, wide))
        hidden, expected = (network(batch, heads=()).hidden for batch in (wide, narrow))
        torch.testing.assert_close(hidden[row, : len(document)], expected[0], **EXACT)
        for head in case.heads:
            if not reads_all(case, head):
                torch.testing.assert_close(beside.logits[head][row], alone.logits[head][0], **EXACT)
            else:
                said = beside.logits[head].view(len(documents), 16, -1)[row, : len(document)]
                torch.testing.assert_close(said, alone.logits[head], **EXACT)
        assert hidden.isfinite().all()


@each
def test_packing_changes_neither_logits_nor_gradients(case: Case) -> None:
    if not case.family.TRAITS.supports_packing:
        pytest.skip("the family declares that it does not pack")
    network = case.network()
    first, second, third = random_documents(case)
    tokens = torch.full((2, 15), 5)
    documents, positions = torch.full((2, 15), -1), torch.zeros(2, 15, dtype=torch.long)
    spans = [(0, 0, first), (0, len(first), second), (1, 0, third)]
    for number, (row, start, document) in enumerate(spans):
        places = slice(start, start + len(document))
        tokens[row, places] = document
        documents[row, places] = number
        positions[row, places] = torch.arange(len(document))
    layout = Layout(lengths=torch.tensor([13, 12]), documents=documents, position_ids=positions)
    starts = [(row * 15 + start, len(d)) for row, start, d in spans]
    packed = Batch(tokens, layout, positions=read_places(case, network, starts))

    alone = padded([first, second, third])
    starts = [(row * 12, n) for row, n in enumerate(LENGTHS)]
    alone = replace(alone, positions=read_places(case, network, starts))

    logits, gradients = [], []
    for batch in (packed, alone):
        network.zero_grad()
        said = network(in_order(case, batch), heads=case.heads).logits
        logits.append(said)
        torch.stack([x.square().mean() for x in said.values()]).sum().backward()
        reached = [(name, p.grad) for name, p in network.named_parameters() if p.grad is not None]
        gradients.append({name: gradient.clone() for name, gradient in reached})
    assert gradients[0].keys() == gradients[1].keys()
    for head in case.heads:
        torch.testing.assert_close(logits[0][head], logits[1][head], **EXACT)
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], **EXACT, msg=name)


def read_places(case: Case, network: Any, texts: list[tuple[int, int]]) -> dict[str, Tensor]:
    """Where each head reads texts, given as (flat index of the first token, number of tokens)."""
    first = case.family.TRAITS.pooling == "first"
    sentence = torch.tensor([start if first else start + length - 1 for start, length in texts])
    every = torch.cat([torch.arange(start, start + length) for start, length in texts])
    return {head: every if reads_all(case, head) else sentence for head in case.heads}


@each
def test_a_gradient_reaches_every_parameter(case: Case) -> None:
    network = case.network().train()
    batch = in_order(case, with_segments(case, padded(random_documents(case))))
    said = network(batch, heads=case.heads).logits
    torch.stack([x.square().mean() for x in said.values()]).sum().backward()
    for name, parameter in network.named_parameters():
        if name == "query" and case.family.TRAITS.supports_permutation and not case.ordered:
            assert parameter.grad is None  # only what predicts in permuted order begins with it
            continue
        if case.model_type == "mpnet" and not case.tied and name == "heads.masked_lm.lm_head.bias":
            assert parameter.grad is None  # stock computes with decoder.bias, which it is not tied to
            continue
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        # The bias of keys shifts all scores of a query alike: its gradient is 0 but for rounding.
        assert parameter.grad.any(), name


@each
def test_the_loss_in_chunks_is_the_plain_cross_entropy(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    network = case.network()
    if len(case.heads) > 1 or case.entry(case.head).type != "vocabulary":
        pytest.skip("there is no one head over a vocabulary whose loss could be cut into chunks")
    monkeypatch.setattr("pretune.nn.vocabulary_loss.MIN_CHUNK_ROWS", 4)
    monkeypatch.setattr("pretune.nn.vocabulary_loss.MAX_CHUNK_LOGITS", 1)
    batch = in_order(case, padded(random_documents(case)))
    places = torch.tensor([0, 3, 14, 25, 30, 31, 8, 2, 33])
    targets = torch.tensor([5, 90, IGNORE_INDEX, 1, 17, 17, IGNORE_INDEX, 3, 95])
    batch = replace(batch, positions={case.head: places})
    plain = network(batch, heads=(case.head,))
    expected = F.cross_entropy(plain.logits[case.head], targets, reduction="sum", ignore_index=IGNORE_INDEX)
    parameters = dict(network.named_parameters())
    gradients = torch.autograd.grad(expected, list(parameters.values()), allow_unused=True)
    outputs = network(batch, heads=(case.head,), targets={case.head: targets})
    assert not outputs.logits
    torch.testing.assert_close(outputs.sums[case.head], expected, **EXACT)
    chunked = torch.autograd.grad(outputs.sums[case.head], list(parameters.values()), allow_unused=True)
    for name, ours, reference in zip(parameters, chunked, gradients, strict=True):
        assert (ours is None) == (reference is None), name
        if ours is not None:
            torch.testing.assert_close(ours, reference, **EXACT, msg=name)
    with torch.no_grad():
        outputs = network(batch, heads=(case.head,), targets={case.head: targets})
    torch.testing.assert_close(outputs.sums[case.head], expected, **EXACT)


@each
@torch.no_grad()
def test_a_cache_changes_nothing(case: Case) -> None:
    network = case.network()
    if not case.family.TRAITS.supports_cache:
        with pytest.raises(UnsupportedError):
            network(padded(random_documents(case)), heads=(), cache=KVCache())
        return
    documents = random_documents(case, (20, 18, 16))
    expected = network(padded(documents), heads=()).hidden
    cache, done = KVCache(), [0, 0, 0]
    # Rows of different lengths, a row that adds nothing, single tokens, and a change of rows between.
    for step in ((5, 7, 3), (3, 1, 2), (2, 0, 1), (1, 1, 1), (1, 1, 1)):
        pieces = [d[at : at + n] for d, at, n in zip(documents, done, step, strict=True)]
        batch = padded(pieces, fill=5)
        batch = replace(batch, layout=replace(batch.layout, cache_lengths=cache.lengths))
        outputs = network(batch, heads=(), cache=cache)
        for row, (at, n) in enumerate(zip(done, step, strict=True)):
            torch.testing.assert_close(outputs.hidden[row, :n], expected[row, at : at + n], **EXACT)
        done = [at + n for at, n in zip(done, step, strict=True)]
        order = [2, 0, 1]
        cache.select(torch.tensor(order))
        documents, done, expected = [documents[i] for i in order], [done[i] for i in order], expected[order]


@each
@torch.no_grad()
def test_equal_rows_decode_a_token_at_a_time(case: Case) -> None:
    if not case.family.TRAITS.supports_cache:
        pytest.skip("the family declares that it has no cache")
    network = case.network()
    tokens = torch.stack(random_documents(case, (10, 10)))
    expected = network(padded(list(tokens)), heads=()).hidden
    cache = KVCache()
    for place in range(10):
        layout = Layout(lengths=torch.ones(2, dtype=torch.long), cache_lengths=cache.lengths)
        hidden = network(Batch(tokens[:, place : place + 1], layout), heads=(), cache=cache).hidden
        torch.testing.assert_close(hidden[:, 0], expected[:, place], **EXACT)


@each
def test_first_values_follow_from_the_seed(case: Case) -> None:
    one, other = case.network(0), case.network(1)
    for network in (one, other):
        network.reset_parameters(torch.Generator().manual_seed(3))
    for name, parameter in one.named_parameters():
        assert torch.equal(parameter, other.get_parameter(name)), name


@each
def test_a_head_that_is_not_there_is_refused(case: Case) -> None:
    with pytest.raises(UnsupportedError, match="telepathy"):
        case.family.Network(case.config, heads=("telepathy",))
    with pytest.raises(UnsupportedError, match="telepathy"):
        case.network()(padded(random_documents(case)), heads=("telepathy",))


@pytest.mark.parametrize("name", [*registry.list_names("families"), *WRAPPED])
def test_a_family_exports_what_the_house_expects(name: str) -> None:
    family = registry.find("families", name)
    for export in ("Config", "Network", "TRAITS", "HEADS", "MODEL_TYPES", "WEIGHTS", "tiny_config"):
        assert hasattr(family, export), export
    assert tuple(family.HEADS) == family.TRAITS.heads
    for prefix in family.MODEL_TYPES.values():
        for head in combined_names(family.HEADS):
            assert hasattr(transformers, name_stock_class(family.HEADS, prefix, head))
