"""One suite for every encoder-decoder in families/: parity with stock transformers, invariances, cache."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pydantic
import pytest
import torch
import torch.nn.functional as F
import transformers
from test_families import EXACT, PARITY, shaken
from torch import Tensor

from pretune import registry
from pretune.checkpoint import hub, weights
from pretune.errors import CheckpointError, UnsupportedError
from pretune.families import weight_operations
from pretune.nn import attention
from pretune.nn.cache import KVCache
from pretune.objectives import classification
from pretune.types import IGNORE_INDEX, Batch, Feature, Layout, OutputSpec, SpecialTokens, Traits

HEAD = "causal_lm"
SOURCES, TARGETS = (9, 4, 13), (5, 12, 2)
SPECIALS = SpecialTokens(vocabulary_size=96, pad_id=0, bos_id=1, eos_id=2)


@dataclass(frozen=True)
class Case:
    family: ModuleType
    model_type: str
    tied: bool
    head: str = HEAD

    @property
    def config(self) -> Any:
        tiny = self.family.tiny_config()
        told = {"tie_word_embeddings": self.tied, "model_type": self.model_type}
        known = {key: value for key, value in told.items() if key in type(tiny).model_fields}
        return type(tiny)(**{**tiny.model_dump(), **known})

    def network(self, seed: int = 0) -> Any:
        torch.manual_seed(seed)
        return shaken(self.family.Network(self.config, heads=(HEAD,)))

    @property
    def values(self) -> dict[str, Any]:
        found: dict[str, Any] = self.config.to_hugging_face(HEAD, specials=SPECIALS)
        return found

    def stock(self) -> Any:
        torch.manual_seed(1)
        config = transformers.AutoConfig.for_model(**self.values)
        stock = transformers.AutoModelForSeq2SeqLM.from_config(config)
        if not self.tied:  # transformers ties some that were released untied
            stock.lm_head.weight = torch.nn.Parameter(stock.lm_head.weight.clone())
        with torch.no_grad():
            for name, buffer in stock.named_buffers():
                if name == "final_logits_bias":
                    buffer.normal_()
        return shaken_weights(stock)


def shaken_weights(stock: Any) -> Any:
    """Those that are trained: sinusoids are what they are."""
    with torch.no_grad():
        for parameter in stock.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return stock.eval()


def cases() -> Iterator[Any]:
    for name in registry.list_names("families"):
        family = registry.find("families", name)
        if family.TRAITS.architecture == "encoder-decoder":
            for model_type in family.MODEL_TYPES:
                untied = "tie_word_embeddings" in family.Config.model_fields
                for tied in (True, False) if untied else (True,):
                    case = Case(family, model_type, tied)
                    with suppress(pydantic.ValidationError):  # mT5 is never tied
                        case.config  # noqa: B018
                        yield pytest.param(case, id=f"{model_type}{'' if tied else '-untied'}")


each = pytest.mark.parametrize("case", list(cases()))


def sequences(lengths: tuple[int, ...], seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(3, SPECIALS.vocabulary_size, (n,), generator=generator) for n in lengths]


def grid(rows: list[Tensor], width: int = 0, fill: int = 0) -> tuple[Tensor, Layout]:
    lengths = torch.tensor([len(row) for row in rows])
    tokens = torch.full((len(rows), max(width, int(lengths.max()))), fill)
    for number, row in enumerate(rows):
        tokens[number, : len(row)] = row
    return tokens, Layout(lengths=lengths)


def batch_of(
    sources: list[Tensor], targets: list[Tensor], widths: tuple[int, int] = (0, 0), fill: int = 0
) -> Batch:
    source, source_layout = grid(sources, widths[0], fill)
    tokens, layout = grid(targets, widths[1], fill)
    return Batch(tokens, layout, source_tokens=source, source_layout=source_layout)


def random_batch() -> Batch:
    return batch_of(sequences(SOURCES, 7), sequences(TARGETS, 8))


def real(layout: Layout, width: int) -> Tensor:
    return torch.arange(width) < layout.lengths[:, None]


def stock_inputs(batch: Batch) -> dict[str, Tensor]:
    assert batch.source_tokens is not None
    assert batch.source_layout is not None
    return {
        "input_ids": batch.source_tokens,
        "attention_mask": real(batch.source_layout, batch.source_tokens.shape[1]).long(),
        "decoder_input_ids": batch.tokens,
        "decoder_attention_mask": real(batch.layout, batch.tokens.shape[1]).long(),
    }


def assert_same_as_stock(network: Any, stock: Any) -> None:
    batch = random_batch()
    assert batch.source_layout is not None
    target, source = real(batch.layout, 12), real(batch.source_layout, 13)
    with torch.no_grad():
        ours, theirs = network(batch), stock(**stock_inputs(batch), output_hidden_states=True)
        memory = network.encode(batch)
    torch.testing.assert_close(memory[source], theirs.encoder_last_hidden_state[source], **PARITY)
    torch.testing.assert_close(ours.hidden[target], theirs.decoder_hidden_states[-1][target], **PARITY)
    logits = ours.logits[HEAD].view(3, 12, -1)
    torch.testing.assert_close(logits[target], theirs.logits[target], **PARITY)
    assert theirs.logits.std() > 0.1


@each
def test_a_stock_model_says_the_same_in_our_network(case: Case) -> None:
    network, stock = case.network(), case.stock()
    assert weights.load_weights(network, stock.state_dict(), case.family.WEIGHTS) == []
    assert_same_as_stock(network, stock)
    assert case.family.Config.from_hugging_face(
        stock.config.to_dict()
    ) == case.family.Config.from_hugging_face(case.values)


@each
def test_our_network_says_the_same_in_a_stock_model(case: Case, tmp_path: Path) -> None:
    network = case.network()
    hub.write_model(tmp_path, case.values, weights.export_weights(network, case.family.WEIGHTS))
    stock, loaded = transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path, output_loading_info=True)
    assert [type(stock).__name__] == case.values["architectures"]
    assert not loaded["missing_keys"]
    assert not loaded["unexpected_keys"]
    assert_same_as_stock(network, stock.eval())


@each
def test_what_stock_saves_is_read(case: Case, tmp_path: Path) -> None:
    """As stock writes a folder, which may leave out what is tied, and say of it what it will."""
    stock, network = case.stock(), case.network()
    stock.save_pretrained(tmp_path)
    config = case.family.Config.from_hugging_face(hub.read_config(tmp_path))
    assert config == case.family.Config.from_hugging_face(case.values)
    assert weights.load_weights(network, hub.read_tensors(tmp_path), case.family.WEIGHTS) == []
    assert_same_as_stock(network, stock)


@each
def test_attention_weights_are_those_of_stock(case: Case, tmp_path: Path) -> None:
    """Of the source's layers, then of each layer of the target those over itself and over the source."""
    network = case.network()
    hub.write_model(tmp_path, case.values, weights.export_weights(network, case.family.WEIGHTS))
    # The kernels that stock takes by itself keep no weights.
    kind = transformers.AutoModelForSeq2SeqLM
    stock = kind.from_pretrained(tmp_path, attn_implementation="eager").eval()
    batch = batch_of(sequences((9, 9), 7), sequences((6, 6), 8))
    with torch.no_grad(), attention.record_weights() as ours:
        network(batch, heads=())
    with torch.no_grad():
        theirs = stock(**stock_inputs(batch), output_attentions=True)
    pairs = zip(theirs.decoder_attentions, theirs.cross_attentions, strict=True)
    expected = [*theirs.encoder_attentions, *(weight for layer in pairs for weight in layer)]
    for said, told in zip(ours, expected, strict=True):
        torch.testing.assert_close(said, told, **PARITY)


@each
def test_gradients_are_those_of_stock(case: Case, tmp_path: Path) -> None:
    network = case.network()
    hub.write_model(tmp_path, case.values, weights.export_weights(network, case.family.WEIGHTS))
    stock = transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path).eval()
    batch = random_batch()
    mask = real(batch.layout, 12)
    network(batch).logits[HEAD].view(3, 12, -1)[mask].log_softmax(-1)[:, 0].sum().backward()
    stock(**stock_inputs(batch)).logits[mask].log_softmax(-1)[:, 0].sum().backward()
    found = {n: p.grad for n, p in network.named_parameters() if p.grad is not None}
    ours = weights.to_hugging_face(found, case.family.WEIGHTS)
    gradients = {n: p.grad for n, p in stock.named_parameters() if p.grad is not None}
    assert gradients.keys() == ours.keys()
    for name, gradient in gradients.items():
        scale = float(gradient.abs().max())
        torch.testing.assert_close(ours[name], gradient, rtol=1e-3, atol=1e-5 * max(scale, 1.0), msg=name)


@each
def test_the_map_of_weights_goes_both_ways(case: Case, tmp_path: Path) -> None:
    network, other = case.network(0), case.network(1)
    hub.write_model(tmp_path, case.values, weights.export_weights(network, case.family.WEIGHTS))
    tensors = hub.read_tensors(tmp_path)
    assert weights.load_weights(other, tensors, case.family.WEIGHTS) == []
    for name, parameter in network.named_parameters():
        assert torch.equal(parameter, other.get_parameter(name)), name
    again = weights.export_weights(other, case.family.WEIGHTS)
    assert again.keys() == tensors.keys()
    assert all(torch.equal(again[name], tensors[name]) for name in tensors)


@each
def test_another_head_or_none_leaves_the_head_new(case: Case) -> None:
    tensors = weights.export_weights(case.network(0), case.family.WEIGHTS)
    bare = case.family.Network(case.config, heads=())
    assert weights.load_weights(bare, tensors, case.family.WEIGHTS) == []
    missing = weights.load_weights(
        case.network(1), weights.export_weights(bare, case.family.WEIGHTS), case.family.WEIGHTS
    )
    assert {name.split(".")[1] for name in missing} <= {HEAD}


@each
def test_heads_at_some_places_are_heads_on_the_whole_grid_there(case: Case) -> None:
    network, batch, some = case.network(), random_batch(), torch.tensor([1, 2, 13, 2])  # one of them twice
    found = network(replace(batch, positions={HEAD: some})).logits[HEAD]
    torch.testing.assert_close(found, network(batch).logits[HEAD][some], **EXACT)


@each
def test_a_wrong_tensor_is_named_and_nothing_is_loaded(case: Case) -> None:
    network = case.network()
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    tensors = weights.export_weights(case.network(1), case.family.WEIGHTS)
    bare = case.family.Network(case.config, heads=())
    for name in weights.export_weights(bare, case.family.WEIGHTS):
        if case.tied or "shared" not in name:
            missing = {key: tensor for key, tensor in tensors.items() if key != name}
            with pytest.raises(CheckpointError, match=r"\w+\.weight|\w+\.bias"):
                weights.load_weights(network, missing, case.family.WEIGHTS)
    for broken in ({**tensors, "stranger.weight": torch.zeros(1)}, {**tensors, name: torch.zeros(1)}):
        with pytest.raises(CheckpointError, match=r"\w+\.weight|\w+\.bias"):
            weights.load_weights(network, broken, case.family.WEIGHTS)
    assert all(torch.equal(p, before[name]) for name, p in network.named_parameters())


@each
@torch.no_grad()
def test_padding_changes_nothing(case: Case) -> None:
    network, sources, targets = case.network(), sequences(SOURCES, 7), sequences(TARGETS, 8)
    wide = batch_of(sources, targets, widths=(17, 15), fill=5)
    said, memory = network(wide, heads=()).hidden, network.encode(wide)
    assert said.isfinite().all()
    assert memory.isfinite().all()
    for row, (source, target) in enumerate(zip(sources, targets, strict=True)):
        alone = batch_of([source], [target])
        torch.testing.assert_close(memory[row, : len(source)], network.encode(alone)[0], **EXACT)
        torch.testing.assert_close(said[row, : len(target)], network(alone, heads=()).hidden[0], **EXACT)


@each
@torch.no_grad()
def test_every_place_sees_its_source_and_what_came_before(case: Case) -> None:
    network, batch = case.network(), batch_of(sequences((6,), 7), sequences((5,), 8))
    before = network(batch, heads=()).hidden
    assert batch.source_tokens is not None
    for place in range(6):
        source = batch.source_tokens.clone()
        source[0, place] = (source[0, place] + 1) % 96
        changed = network(replace(batch, source_tokens=source), heads=()).hidden
        assert ((changed - before).abs().amax(-1) > 1e-5).all(), place
    for place in range(5):
        tokens = batch.tokens.clone()
        tokens[0, place] = (tokens[0, place] + 1) % 96
        changed = network(replace(batch, tokens=tokens), heads=()).hidden
        assert torch.equal(changed[0, :place], before[0, :place])
        assert ((changed - before)[0, place:].abs().amax(-1) > 1e-5).all()


@each
def test_packing_changes_neither_logits_nor_gradients(case: Case) -> None:
    if not case.family.TRAITS.supports_packing:
        pytest.skip("the family declares that it does not pack")
    network, sources, targets = case.network(), sequences(SOURCES, 7), sequences(TARGETS, 8)
    packed = Batch(
        *packed_grid(targets, width=19), source_tokens=packed_grid(sources, width=16)[0],
        source_layout=packed_grid(sources, width=16)[1],
    )  # fmt: skip
    starts = (0, TARGETS[0], 19)  # two in the first row, one in the second
    places = torch.cat([torch.arange(s, s + n) for s, n in zip(starts, TARGETS, strict=True)])
    packed = replace(packed, positions={HEAD: places})
    alone = batch_of(sources, targets)
    alone = replace(alone, positions={HEAD: real(alone.layout, 12).flatten().nonzero()[:, 0]})
    results = []
    for batch in (packed, alone):
        network.zero_grad()
        logits = network(batch).logits[HEAD]
        logits.square().mean().backward()
        results.append(
            (logits, {n: p.grad.clone() for n, p in network.named_parameters() if p.requires_grad})
        )
    torch.testing.assert_close(results[0][0], results[1][0], **EXACT)
    for name, gradient in results[0][1].items():
        torch.testing.assert_close(gradient, results[1][1][name], **EXACT, msg=name)


def packed_grid(rows: list[Tensor], width: int) -> tuple[Tensor, Layout]:
    """The first two in one row, the third in another."""
    tokens = torch.full((2, width), 5)
    documents, positions = torch.full((2, width), -1), torch.zeros(2, width, dtype=torch.long)
    for number, (row, start) in enumerate(((0, 0), (0, len(rows[0])), (1, 0))):
        places = slice(start, start + len(rows[number]))
        tokens[row, places], documents[row, places] = rows[number], number % 2
        positions[row, places] = torch.arange(len(rows[number]))
    lengths = torch.tensor([len(rows[0]) + len(rows[1]), len(rows[2])])
    return tokens, Layout(lengths=lengths, documents=documents, position_ids=positions)


@each
def test_a_gradient_reaches_every_parameter(case: Case) -> None:
    network = case.network().train()
    network(random_batch()).logits[HEAD].square().mean().backward()
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.any(), name


@each
def test_the_loss_in_chunks_is_the_plain_cross_entropy(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And that of stock, which shifts its labels to the right behind the token that starts the decoder."""
    monkeypatch.setattr("pretune.nn.vocabulary_loss.MIN_CHUNK_ROWS", 4)
    monkeypatch.setattr("pretune.nn.vocabulary_loss.MAX_CHUNK_LOGITS", 1)
    network = case.network()
    hub.write_model(tmp_path, case.values, weights.export_weights(network, case.family.WEIGHTS))
    stock = transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path).eval()
    sources, targets = sequences(SOURCES, 7), sequences(TARGETS, 8)
    begin = {"pad": SPECIALS.pad_id, "eos": SPECIALS.eos_id, "bos": SPECIALS.bos_id}[
        case.family.TRAITS.decoder_start_token
    ]
    assert begin is not None
    batch = batch_of(sources, [torch.cat([torch.tensor([begin]), target[:-1]]) for target in targets])
    places = real(batch.layout, 12).flatten().nonzero()[:, 0]
    batch = replace(batch, positions={HEAD: places})
    told = {HEAD: torch.cat(targets)}
    found = network(batch, targets=told).sums[HEAD] / sum(TARGETS)
    labels = grid(targets, fill=IGNORE_INDEX)[0]
    inputs = stock_inputs(batch)
    expected = stock(
        input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], labels=labels
    ).loss
    torch.testing.assert_close(found, expected, **EXACT)
    plain = F.cross_entropy(network(batch).logits[HEAD], told[HEAD])
    torch.testing.assert_close(found, plain, **EXACT)


@each
@torch.no_grad()
def test_a_cache_changes_nothing(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the source is encoded once."""
    network, sources, targets = case.network(), sequences(SOURCES, 7), sequences((20, 18, 16), 8)
    expected = network(batch_of(sources, targets), heads=()).hidden
    encode, calls = network.encode, []
    monkeypatch.setattr(network, "encode", lambda batch: (calls.append(batch), encode(batch))[1])
    cache, done = KVCache(), [0, 0, 0]
    source, source_layout = grid(sources)
    # Rows of different lengths, a row that adds nothing, single tokens, and a change of rows between.
    for number, step in enumerate(((5, 7, 3), (3, 1, 2), (2, 0, 1), (1, 1, 1), (1, 1, 1))):
        pieces = [t[at : at + n] for t, at, n in zip(targets, done, step, strict=True)]
        tokens, layout = grid(pieces, fill=5)
        batch = Batch(tokens, replace(layout, cache_lengths=cache.lengths))
        if not number:
            batch = replace(batch, source_tokens=source, source_layout=source_layout)
        outputs = network(batch, heads=(), cache=cache)
        for row, (at, n) in enumerate(zip(done, step, strict=True)):
            torch.testing.assert_close(outputs.hidden[row, :n], expected[row, at : at + n], **EXACT)
        done = [at + n for at, n in zip(done, step, strict=True)]
        order = [2, 0, 1]
        cache.select(torch.tensor(order))
        targets, done, expected = [targets[i] for i in order], [done[i] for i in order], expected[order]
    assert len(calls) == 1


@each
@torch.no_grad()
def test_equal_rows_decode_a_token_at_a_time(case: Case) -> None:
    network, batch = case.network(), batch_of(sequences((6, 9), 7), sequences((10, 10), 8))
    expected = network(batch, heads=()).hidden
    cache = KVCache()
    for place in range(10):
        layout = Layout(lengths=torch.ones(2, dtype=torch.long), cache_lengths=cache.lengths)
        step = replace(batch, tokens=batch.tokens[:, place : place + 1], layout=layout)
        hidden = network(step, heads=(), cache=cache).hidden
        torch.testing.assert_close(hidden[:, 0], expected[:, place], **EXACT)


@each
def test_one_batch_of_pairs_is_learnt_by_heart(case: Case) -> None:
    torch.manual_seed(0)
    network = case.family.Network(case.config)
    sources, targets = sequences((6, 4, 9, 7), 7), sequences((5, 8, 3, 6), 8)
    batch = batch_of(sources, [torch.cat([torch.tensor([1]), target[:-1]]) for target in targets])
    batch = replace(batch, positions={HEAD: real(batch.layout, 8).flatten().nonzero()[:, 0]})
    optimizer = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=5e-3)
    mean = torch.tensor(torch.inf)
    for _ in range(300):
        mean = network(batch, targets={HEAD: torch.cat(targets)}).sums[HEAD] / 22
        mean.backward()
        optimizer.step()
        optimizer.zero_grad()
        if mean < 0.05:
            return
    raise AssertionError(f"{float(mean)} nats a target")


@each
@torch.no_grad()
def test_half_precision_says_about_the_same(case: Case) -> None:
    """bfloat16 keeps 8 bits: a hundredth of a logit's spread, and none that is not finite."""
    network, batch = case.network(), random_batch()
    mask = real(batch.layout, 12).flatten()
    expected = network(batch).logits[HEAD][mask]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = network(batch).logits[HEAD][mask].float()
    cast = network.to(torch.bfloat16)(batch).logits[HEAD][mask].float()
    for found in (mixed, cast):
        assert found.isfinite().all()
        assert (found - expected).square().mean().sqrt() < 0.03 * expected.std()


@each
def test_first_values_follow_from_the_seed(case: Case) -> None:
    one, other = case.network(0), case.network(1)
    for network in (one, other):
        network.reset_parameters(torch.Generator().manual_seed(3))
    for name, parameter in one.named_parameters():
        assert torch.equal(parameter, other.get_parameter(name)), name


@each
@torch.no_grad()
def test_a_first_loss_is_that_of_guessing(case: Case) -> None:
    torch.manual_seed(0)
    logits = case.family.Network(case.config)(random_batch()).logits[HEAD]
    loss = F.cross_entropy(logits, torch.arange(len(logits)) % 96)
    assert 4.4 < float(loss) < 5.5  # ln 96 = 4.56


@each
def test_what_is_not_there_is_refused(case: Case) -> None:
    with pytest.raises(UnsupportedError, match="telepathy"):
        case.family.Network(case.config, heads=("telepathy",))
    with pytest.raises(UnsupportedError, match="telepathy"):
        case.network()(random_batch(), heads=("telepathy",))
    with pytest.raises(UnsupportedError, match="has no source"):
        case.network()(replace(random_batch(), source_tokens=None, source_layout=None))


def classifiers() -> list[Any]:
    found = [registry.find("families", name) for name in registry.list_names("families")]
    return [
        pytest.param(Case(family, model_type, tied=False, head="classification"), id=model_type)
        for family in found
        if family.TRAITS.architecture == "encoder-decoder" and "classification" in family.TRAITS.heads
        for model_type in family.MODEL_TYPES
    ]


@pytest.mark.parametrize("case", classifiers())
def test_a_classifier_says_and_learns_what_stock_does(case: Case, tmp_path: Path) -> None:
    """On examples of the objective; stock shifts the source itself, and finds the place by its token."""
    family = case.family
    specials = replace(SPECIALS, single=((1,), (2,)))
    traits: Traits = family.TRAITS
    objective = classification.Objective(traits, specials)
    texts = [row.numpy() for row in sequences((6, 11, 3), 7)]
    features = [Feature(n, 0, (text,), {"label": n}) for n, text in enumerate(texts)]
    built = [objective.build(feature, np.random.default_rng(0)) for feature in features]
    batch = objective.collate([[example] for example in built])
    torch.manual_seed(0)
    network = shaken(family.Network(case.config, heads=("classification",), num_labels=3))
    operations = weight_operations(family, network.config, ("classification",))
    values = network.config.to_hugging_face(
        "classification", outputs=OutputSpec(("a", "b", "c")), specials=specials
    )
    hub.write_model(tmp_path, values, weights.export_weights(network, operations))
    stock, told = transformers.AutoModelForSequenceClassification.from_pretrained(
        tmp_path, output_loading_info=True
    )
    assert [type(stock).__name__] == values["architectures"]
    assert not told["missing_keys"]
    assert not told["unexpected_keys"]
    inputs = stock_inputs(batch)
    inputs = {"input_ids": inputs["input_ids"], "attention_mask": inputs["attention_mask"]}
    expected = stock.eval()(**inputs, labels=torch.arange(3))
    torch.testing.assert_close(
        network(batch, heads=("classification",)).logits["classification"], expected.logits, **PARITY
    )
    (loss,) = objective.loss(network, batch)
    total = loss.terms["classification"][0] / 3
    torch.testing.assert_close(total, expected.loss, **EXACT)
    total.backward()
    expected.loss.backward()
    ours = weights.to_hugging_face(
        {n: p.grad for n, p in network.named_parameters() if p.grad is not None}, operations
    )
    for name, parameter in stock.named_parameters():
        torch.testing.assert_close(ours[name], parameter.grad, rtol=1e-3, atol=1e-5, msg=name)
    again = family.Network(network.config, heads=("classification",), num_labels=3)
    assert weights.load_weights(again, stock.state_dict(), operations) == []
    for name, parameter in network.named_parameters():
        assert torch.equal(parameter, again.get_parameter(name)), name


def span_cases() -> list[Any]:
    families = [registry.find("families", name) for name in registry.list_names("families")]
    return [
        pytest.param(Case(family, model_type, tied=model_type != "mt5", head=head), id=f"{model_type}-{head}")
        for family in families
        if family.TRAITS.architecture == "encoder-decoder"
        for head in family.HEADS
        if family.HEADS[head].type == "span"
        for model_type in family.MODEL_TYPES
    ]


@pytest.mark.parametrize("case", span_cases())
def test_a_span_head_says_and_learns_what_stock_does(case: Case, tmp_path: Path) -> None:
    """At each position of the decoder; padding of source and target changes nothing."""
    operations = weight_operations(case.family, case.config, (case.head,))
    torch.manual_seed(0)
    network = shaken(case.family.Network(case.config, heads=(case.head,)))
    values = network.config.to_hugging_face(case.head, specials=SPECIALS)
    hub.write_model(tmp_path, values, weights.export_weights(network, operations))
    stock, told = transformers.AutoModelForQuestionAnswering.from_pretrained(
        tmp_path, output_loading_info=True
    )
    assert [type(stock).__name__] == values["architectures"]
    assert not told["missing_keys"]
    assert not told["unexpected_keys"]
    batch = random_batch()
    mask = real(batch.layout, 12)
    theirs = stock.eval()(**stock_inputs(batch))
    expected = torch.stack([theirs.start_logits, theirs.end_logits], -1)[mask]  # (N, 2)
    ours = network(batch, heads=(case.head,)).logits[case.head].view(3, 12, 2)[mask]
    torch.testing.assert_close(ours, expected, **PARITY)
    for logits in (ours, expected):
        logits.log_softmax(0)[3].sum().backward()
    gradients = weights.to_hugging_face(
        {n: p.grad for n, p in network.named_parameters() if p.grad is not None}, operations
    )
    for name, parameter in stock.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-3, atol=1e-5, msg=name)
    again = case.family.Network(network.config, heads=(case.head,))
    assert weights.load_weights(again, stock.state_dict(), operations) == []
    for name, parameter in network.named_parameters():
        assert torch.equal(parameter, again.get_parameter(name)), name
    some = torch.tensor([1, 14, 2])
    read = network(replace(batch, positions={case.head: some}), heads=(case.head,)).logits[case.head]
    whole = network(batch, heads=(case.head,)).logits[case.head]
    torch.testing.assert_close(read, whole[some], **EXACT)
