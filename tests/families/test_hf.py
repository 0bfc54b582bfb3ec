"""Architectures that transformers computes: from folder to folder, and what training on them is."""

from __future__ import annotations

import json
import math
import signal
from pathlib import Path
from typing import Any

import pytest
import small
import torch
import torch.nn.functional as F
import transformers

import pretune
from pretune import registry
from pretune.checkpoint import hub, weights
from pretune.config import build_settings
from pretune.data.order import training_rng
from pretune.errors import CheckpointError, ConfigError, Interrupted, UnsupportedError
from pretune.families import _hf, _hf_stock, find_family
from pretune.generation.sampling import Sampling
from pretune.generation.settings import Decoding
from pretune.model.model import Model
from pretune.objectives import parse_objective
from pretune.types import Batch, Layout

SHAPE: dict[str, Any] = {
    "vocab_size": 300, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 64, "initializer_range": 0.2, "init_std": 0.2, "pad_token_id": 0,
}  # fmt: skip
EXTRA: dict[str, dict[str, Any]] = {
    "electra": {"intermediate_size": 64, "embedding_size": 16},
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": 16},
    "phi": {"intermediate_size": 64},
}
CLASSES = {
    "electra": "ElectraForMaskedLM",
    "opt": "OPTForCausalLM",
    "phi": "PhiForCausalLM",
}
DECODERS = ("opt", "phi")
TEXTS = ["the king sent word", "人民法院 应当", "word to the city, word to the king 依法 审理 案件", "city"]


def stock_folder(folder: Path, model_type: str, name: str | None = None) -> Any:
    """A folder that stock transformers wrote, with a tokenizer; returns its model."""
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(model_type, **(SHAPE | EXTRA[model_type]))
    stock = getattr(transformers, name or CLASSES[model_type])(config).eval()
    stock.save_pretrained(folder)
    small.tokenizer(registry.find("families", f"hf:{model_type}").TRAITS).save(folder, model_max_length=64)
    return stock


@pytest.mark.parametrize("model_type", list(CLASSES))
def test_a_folder_keeps_its_names_and_says_the_same_again(model_type: str, tmp_path: Path) -> None:
    stock = stock_folder(tmp_path / "theirs", model_type)
    model = pretune.load(tmp_path / "theirs")
    assert model.max_length == 64
    saved = model.save(tmp_path / "ours")
    again = getattr(transformers, CLASSES[model_type]).from_pretrained(saved).eval()
    theirs, ours = (hub.read_tensors(tmp_path / name) for name in ("theirs", "ours"))
    assert theirs.keys() == ours.keys()
    assert all(torch.equal(theirs[name], ours[name]) for name in theirs)
    tokens = torch.randint(3, 300, (2, 9))
    with torch.no_grad():
        assert torch.equal(stock(tokens).logits, again(tokens).logits)


@pytest.mark.parametrize("at_once", [_hf.MAX_LOGITS, 10_000], ids=["in one go", "in parts"])
@pytest.mark.parametrize("model_type", list(CLASSES))
def test_a_training_step_has_the_gradients_of_a_plain_loop(
    model_type: str, at_once: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_hf, "MAX_LOGITS", at_once)
    stock = stock_folder(tmp_path, model_type)
    model = pretune.load(tmp_path)
    kind = parse_objective(model.head)
    store = small.features(model.family.TRAITS, 6)
    objective = kind.build_objective(model.family.TRAITS, model.tokenizer.specials, store=store)
    examples = [objective.build(store[i], training_rng(0, 0, i)) for i in range(len(store))]
    batch = objective.collate([[example] for example in examples])
    (loss,) = objective.loss(model.network, batch)
    ((total, weight),) = loss.terms.values()
    ours = total * weight / batch.counts[model.head]
    ours.backward()
    with torch.no_grad():
        (unlearnt,) = objective.loss(model.network, batch)
        torch.testing.assert_close(unlearnt.terms[model.head][0], total)

    width = batch.tokens.shape[1]
    labels = torch.full((batch.tokens.numel(),), -100)
    labels[batch.positions[model.head]] = batch.targets[model.head]
    mask = (torch.arange(width) < batch.layout.lengths[:, None]).long()
    said = stock(input_ids=batch.tokens, attention_mask=mask).logits.flatten(0, 1)
    theirs = F.cross_entropy(said, labels, ignore_index=-100)
    theirs.backward()
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-6)
    wanted = dict(stock.named_parameters())
    for name, parameter in model.network.stock.named_parameters():
        torch.testing.assert_close(parameter.grad, wanted[name].grad, atol=1e-6, rtol=1e-4, msg=name)


@pytest.mark.parametrize("model_type", DECODERS)
@torch.no_grad()
def test_texts_in_batches_are_as_likely_as_one_by_one(model_type: str, tmp_path: Path) -> None:
    stock = stock_folder(tmp_path, model_type)
    model = pretune.load(tmp_path)
    for text, score in zip(TEXTS, model.score_batch(TEXTS), strict=True):
        specials = model.tokenizer.specials
        ids = [*specials.single[0], *model.tokenizer.encode(text).ids.tolist(), specials.eos_id]
        logs = stock(torch.tensor([ids])).logits[0, :-1].log_softmax(-1)
        nats = -sum(float(logs[place, token]) for place, token in enumerate(ids[1:]))
        ours = -math.fsum(log for _, log in score.tokens)
        assert math.exp(ours / len(score.tokens)) == pytest.approx(math.exp(nats / (len(ids) - 1)), rel=1e-4)


@pytest.mark.parametrize("model_type", DECODERS)
@torch.no_grad()
def test_it_writes_what_stock_writes(model_type: str, tmp_path: Path) -> None:
    stock = stock_folder(tmp_path, model_type)
    model = pretune.load(tmp_path)
    (found,) = model.generate_batch(
        ["the king"], Decoding(max_new_tokens=8, sampling=Sampling(temperature=0))
    )
    ids = [*model.tokenizer.specials.single[0], *model.tokenizer.encode("the king").ids.tolist()]
    tokens = torch.tensor([ids])
    for _ in found[0].tokens:
        tokens = torch.cat([tokens, stock(tokens).logits[:, -1:].argmax(-1)], 1)
    assert found[0].tokens
    assert list(found[0].tokens) == tokens[0, len(ids) :].tolist()


@pytest.mark.parametrize("way", ["cast", "autocast"])
@pytest.mark.parametrize("model_type", list(CLASSES))
@torch.no_grad()
def test_bfloat16_changes_rounding_only(model_type: str, way: str) -> None:
    family = find_family(model_type)
    torch.manual_seed(0)
    head = family.TRAITS.heads[0]
    network = family.Network(family.tiny_config(), heads=(head,)).eval()
    batch = Batch(torch.randint(3, 96, (3, 12)), Layout(torch.tensor([12, 12, 12])))
    exact = network(batch, heads=(head,)).logits[head]
    with torch.autocast("cpu", torch.bfloat16, enabled=way == "autocast"):
        used = network if way == "autocast" else network.bfloat16()
        rough = used(batch, heads=(head,)).logits[head].float()
    assert 0 < (rough - exact).norm() < 8 * 2**-8 * exact.norm()


@pytest.mark.slow
@pytest.mark.parametrize("model_type", ["electra", "opt"])
def test_it_becomes_a_classifier_that_stock_loads(model_type: str, tmp_path: Path) -> None:
    stock_folder(tmp_path / "theirs", model_type)
    rows = [{"text": f"the king sent word {n}" if n % 2 else f"人民法院 审理 {n}", "label": "ab"[n % 2]}
            for n in range(48)]  # fmt: skip
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n", encoding="utf-8")
    training = {"batch_examples": 8, "evaluations": 2, "optimizer": {"learning_rate": 5e-3}}
    run = pretune.finetune(
        tmp_path / "theirs", train=path, budget="30 steps", max_length=32, training=training,
        out=tmp_path / "run",
    )  # fmt: skip
    model = pretune.load(run.folder)
    stock = transformers.AutoModelForSequenceClassification.from_pretrained(run.folder / "model").eval()
    reader = transformers.AutoTokenizer.from_pretrained(run.folder / "model")
    texts = [row["text"] for row in rows[:8]]
    with torch.no_grad():
        chances = stock(**reader(texts, padding=True, return_tensors="pt")).logits.softmax(-1).amax(-1)
    predictions = model.classify(texts)
    assert [p.confidence for p in predictions] == pytest.approx(chances.tolist(), abs=1e-4)
    assert sum(p.value == row["label"] for p, row in zip(predictions, rows, strict=False)) >= 7


@pytest.mark.slow
@pytest.mark.parametrize(("model_type", "kind"), [("electra", "masked_lm"), ("opt", "causal_lm")])
def test_resumed_equals_uninterrupted(
    model_type: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dropout is on, as the stock config says."""
    small.finish(whole := small.trainer(tmp_path / "whole", kind, family=f"hf:{model_type}"))
    stopped = small.trainer(tmp_path / "run", kind, family=f"hf:{model_type}")
    backward, left = torch.autograd.backward, [7]

    def counted(*arguments: Any, **options: Any) -> None:
        backward(*arguments, **options)
        left[0] -= 1
        if left[0] == 0:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(torch.autograd, "backward", counted)
    with pytest.raises(Interrupted):
        small.finish(stopped)
    resumed = small.trainer(tmp_path / "run", kind, family=f"hf:{model_type}")
    small.finish(resumed)
    expected, found = small.state(whole), small.state(resumed)
    assert [name for name in expected if not torch.equal(expected[name], found[name])] == []


def test_another_programs_head_is_left_out(tmp_path: Path) -> None:
    stock_folder(tmp_path, "electra", "ElectraForPreTraining")
    model = Model.load(tmp_path, head="classification", labels=("a", "b"))
    assert {name.split(".")[1] for name in model.untrained} == {"classification"}


def test_a_key_of_the_folder_is_kept_and_a_wrong_one_is_named(tmp_path: Path) -> None:
    family = find_family("opt")
    config = family.Config.from_hugging_face({**SHAPE, **EXTRA["opt"], "_remove_final_layer_norm": True})
    assert config.to_hugging_face("causal_lm")["_remove_final_layer_norm"] is True
    with pytest.raises(ConfigError, match="'hiden_size'; did you mean 'hidden_size'"):
        build_settings(family.Config, {"hiden_size": 32})
    stock_folder(tmp_path, "electra")
    with pytest.raises(ConfigError, match="attention_heads"):
        Model.load(tmp_path, settings={"attention_heads": 3})


def test_what_it_cannot_do_is_refused(tmp_path: Path) -> None:
    stock_folder(tmp_path, "electra")
    network = pretune.load(tmp_path).network
    tokens, lengths = torch.full((1, 6), 5), torch.tensor([6])
    packed = Layout(lengths, documents=torch.tensor([[0, 0, 0, 1, 1, 1]]))
    with pytest.raises(UnsupportedError, match="one text a row"):
        network(Batch(tokens, packed), heads=("masked_lm",))
    with pytest.raises(UnsupportedError, match="a text holds the padding token"):
        network(Batch(tokens.index_fill(1, torch.tensor([2]), 0), Layout(lengths)), heads=("masked_lm",))
    with pytest.raises(UnsupportedError, match="70 tokens; this model has 64 positions"):
        network(Batch(torch.full((1, 70), 5), Layout(torch.tensor([70]))), heads=("masked_lm",))
    with pytest.raises(UnsupportedError, match="encoder-decoder"):
        find_family("pegasus")
    with pytest.raises(UnsupportedError, match="'telepathy': neither pretune nor the transformers"):
        find_family("telepathy")
    with pytest.raises(UnsupportedError, match="quantization_config"):
        find_family("opt").Config.from_hugging_face({**SHAPE, "quantization_config": {"bits": 4}})


def test_what_sees_later_tokens_predicts_none() -> None:
    """A stock XLNet without a permutation reads both sides, though it is listed as causal."""
    family = registry.find("families", "hf:xlnet")
    with pytest.raises(UnsupportedError, match="its places see later tokens"):
        family.Network(family.tiny_config(), heads=("causal_lm",))


def test_positions_behind_the_padding_are_not_read() -> None:
    """MPNet's begin behind id 1, whatever the config calls its padding."""
    family = find_family("mpnet")
    config = family.Config.from_hugging_face({**SHAPE, "max_position_embeddings": 66})
    assert config.max_position_embeddings == 64
    assert config.to_hugging_face("masked_lm")["max_position_embeddings"] == 66
    network = family.Network(config, heads=("masked_lm",)).eval()
    full = Batch(torch.full((1, 64), 5), Layout(torch.tensor([64])))
    assert network(full, heads=("masked_lm",)).logits["masked_lm"].isfinite().all()
    with pytest.raises(UnsupportedError, match="padding token"):
        network(Batch(torch.ones(1, 9, dtype=torch.long), Layout(torch.tensor([9]))), heads=("masked_lm",))


def test_what_stock_renames_on_its_way_to_a_folder_is_renamed() -> None:
    """A folder of GPT-NeoX says embed_out where its network says lm_head."""
    family = registry.find("families", "hf:gpt_neox")
    network = family.Network(family.tiny_config(), heads=("causal_lm",))
    tensors = weights.export_weights(network, family.WEIGHTS)
    assert "embed_out.weight" in tensors
    assert "lm_head.weight" not in tensors
    assert weights.load_weights(network, tensors, family.WEIGHTS) == []


def test_tensors_that_do_not_fit_are_named(tmp_path: Path) -> None:
    stock_folder(tmp_path, "opt")
    values = hub.read_config(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**values, "ffn_dim": 32}), encoding="utf-8")
    with pytest.raises(CheckpointError, match="fc1"):
        pretune.load(tmp_path)


def test_without_transformers_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    _hf_stock.stock_classes.cache_clear()
    monkeypatch.setattr(_hf_stock, "importlib", type("", (), {"import_module": staticmethod(missing)}))
    with pytest.raises(UnsupportedError, match=r"pip install 'pretune\[hf\]'"):
        _hf_stock.stock_classes("electra")


@pytest.mark.slow
def test_pretraining_goes_on_from_such_a_folder(tmp_path: Path) -> None:
    stock_folder(tmp_path / "theirs", "phi")
    text = tmp_path / "text.jsonl"
    text.write_text("\n".join(json.dumps({"text": f"{t} {n}"}) for n in range(40) for t in TEXTS) + "\n")
    run = pretune.pretrain(
        {"max_length": 32, "training": {"batch_tokens": 256, "evaluations": 2}},
        corpus=text, start_from=tmp_path / "theirs", budget="12 steps", out=tmp_path / "run",
    )  # fmt: skip
    assert run.summary["family"] == "hf:phi"
    assert run.summary["loss"] < run.summary["initial_scores"]["loss"]
    transformers.AutoModelForCausalLM.from_pretrained(run.folder / "model")
    assert run.summary["steps"] == 12
