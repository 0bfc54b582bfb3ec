"""Every family, and BERT's pair of objectives, goes from text to a folder that stock transformers reads."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import pretune
from pretune.checkpoint import hub
from pretune.data.order import training_rng
from pretune.errors import UnsupportedError
from pretune.generation.settings import Decoding
from pretune.objectives import parse_objective
from pretune.types import Batch, Feature, Layout

pytestmark = pytest.mark.slow
SHAPE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
SETTINGS: dict[str, Any] = {
    "vocabulary_size": 350,
    "max_length": 32,
    "model": SHAPE,
    "training": {"batch_tokens": 256, "evaluations": 2},
}


@pytest.fixture(scope="module")
def pair(texts: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of BERT's two objectives, with whole words hidden."""
    out = tmp_path_factory.mktemp("runs") / "pair"
    settings = {**SETTINGS, "validation_fraction": 0.1, "objective": "masked_lm+next_sentence"}
    settings["objective_options"] = {"whole_words": True}
    return pretune.pretrain(settings, corpus=texts.corpus, budget="8 steps", out=out).folder


@torch.inference_mode()
def test_a_pair_is_saved_as_stock_reads_it(pair: Path) -> None:
    stock, loaded = transformers.BertForPreTraining.from_pretrained(pair / "model", output_loading_info=True)
    assert not loaded["missing_keys"]
    assert not loaded["unexpected_keys"]
    model = pretune.load(pair)
    assert model.heads == ("masked_lm", "next_sentence")
    read = transformers.AutoTokenizer.from_pretrained(pair / "model")
    inputs = read("The captain saw the castle.", "农夫看见牧场。", return_tensors="pt")
    tokens = inputs["input_ids"]
    layout = Layout(torch.tensor([tokens.shape[1]]), segments=inputs["token_type_ids"])
    ours = model.network(Batch(tokens, layout), heads=model.heads).logits
    theirs = stock.eval()(**inputs)
    torch.testing.assert_close(ours["masked_lm"], theirs.prediction_logits[0], atol=1e-4, rtol=0)
    torch.testing.assert_close(ours["next_sentence"], theirs.seq_relationship_logits, atol=1e-4, rtol=0)


def test_a_pair_reports_the_masked_loss_and_its_accuracy(pair: Path) -> None:
    summary = json.loads((pair / "summary.json").read_text())
    assert summary["loss"] < 2 * summary["unigram_loss"]
    assert 0 <= summary["next_sentence_accuracy"] <= 1
    assert 0.5 <= summary["next_sentence_majority"] <= 1
    rows = [json.loads(line) for line in (pair / "metrics.jsonl").read_text().splitlines()]
    scores = [row["scores"] for row in rows if row["type"] == "evaluation"]
    assert all(next(iter(found)) == "loss" and "next_sentence_accuracy" in found for found in scores)
    assert "next\\_sentence\\_accuracy" in (pair / "model" / "README.md").read_text()


def test_a_pair_fills_masks_and_is_fine_tuned_with_its_pooler(pair: Path, texts: Any, tmp_path: Path) -> None:
    model = pretune.load(pair)
    mask = model.tokenizer.id_to_token(model.tokenizer.specials.mask_id or 0)
    assert len(model.fill(f"The {mask} saw.")[0]) == 5
    classifier = pretune.Model.load(pair, head="classification", labels=("war", "farm"))
    assert classifier.untrained == ("heads.classification.output.weight", "heads.classification.output.bias")
    pooler = hub.read_tensors(pair / "model")["bert.pooler.dense.weight"]
    assert torch.equal(classifier.network.get_parameter("heads.classification.pooler.weight"), pooler)
    run = pretune.finetune(pair, train=texts.train, test=texts.test, budget="1 epoch", out=tmp_path / "run")
    assert hub.read_config(run.model)["architectures"] == ["BertForSequenceClassification"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "family", ["distilbert", "gpt1", "gpt2", "gpt3", "gpt_neox", "modernbert", "roberta", "xlnet"]
)
def test_a_family_goes_from_text_to_a_classifier(family: str, texts: Any, tmp_path: Path) -> None:
    run = pretune.pretrain(
        SETTINGS, corpus=texts.corpus, family=family, budget="8 steps", out=tmp_path / "base"
    )
    model = pretune.load(run.folder)
    masked = model.head == "masked_lm"
    stock = transformers.AutoModelForMaskedLM if masked else transformers.AutoModelForCausalLM
    ids = transformers.AutoTokenizer.from_pretrained(run.model)("The captain.", return_tensors="pt")[
        "input_ids"
    ]
    batch = Batch(ids, Layout(torch.tensor([ids.shape[1]])))
    with torch.inference_mode():
        ours = model.network(batch, heads=model.heads).logits[model.head]
        theirs = stock.from_pretrained(run.model).eval()(ids).logits[0]
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)
    tuned = pretune.finetune(
        run.folder, train=texts.train, test=texts.test, budget="1 epoch", out=tmp_path / "tuned"
    )
    label = pretune.load(tuned.folder).classify(["The soldier saw the castle."])[0].value
    pipeline = transformers.pipeline("text-classification", model=str(tuned.model))
    assert pipeline("The soldier saw the castle.")[0]["label"] == label


@pytest.mark.parametrize(
    ("family", "objective"),
    [("bert", "masked_lm+sentence_order"), ("gpt2", "prefix_lm"), ("t5", "prefix_lm"), ("bart", "denoising")],
)
def test_a_model_remembers_what_it_was_pretrained_by(
    family: str, objective: str, texts: Any, tmp_path: Path
) -> None:
    settings = {**SETTINGS, "validation_fraction": 0.1, "family": family, "objective": objective}
    run = pretune.pretrain(settings, corpus=texts.corpus, budget="4 steps", out=tmp_path / "base")
    model = pretune.load(run.folder)
    assert model.metadata["objective"] == objective
    if family == "gpt2":  # which reads its prompt as it learnt to
        assert model._build_decoder().build_prompt("The soldier saw").bidirectional
        way, other = Decoding(max_new_tokens=8), Decoding(max_new_tokens=8, bidirectional_prompt=True)
        assert model.generate_batch(["The soldier"], way) == model.generate_batch(["The soldier"], other)
        assert "reads a prompt from left to right" in (run.model / "README.md").read_text()
    summary = json.loads((run.folder / "summary.json").read_text())
    assert summary["loss"] < 2 * summary["unigram_loss"]
    scores = pretune.evaluate(run.folder, data=texts.corpus)["scores"]
    assert next(iter(scores)) == "loss"
    if objective == "denoising":  # what it makes of a sentence with a gap stands beside the sentence
        assert "[MASK]" in (run.folder / "report.html").read_text()
        assert summary["tokens"] > 1.5 * 4 * 256  # sources and targets are both read
    onward = pretune.pretrain(
        {"training": {"batch_tokens": 256}, "validation_fraction": 0.1}, corpus=texts.corpus,
        start_from=run.folder, budget="2 steps", out=tmp_path / "on",
    )  # fmt: skip
    assert json.loads((onward.folder / "summary.json").read_text())["objective"] == objective


@pytest.mark.parametrize(
    ("family", "objective"),
    [("llama", "masked_lm+next_sentence"), ("modernbert", "masked_lm+next_sentence"),
     ("bert", "next_sentence"), ("gpt2", "masked_lm"), ("bert", "classification"), ("bert", "sentence_order"),
     ("gpt2", "span_corruption"), ("bert", "denoising"), ("llama", "sequence_to_sequence")],
)  # fmt: skip
def test_an_objective_that_a_family_has_not_is_refused(
    family: str, objective: str, texts: Any, tmp_path: Path
) -> None:
    with pytest.raises(UnsupportedError, match="pretrains by"):
        pretune.pretrain({"objective": objective}, corpus=texts.corpus, family=family, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("language", ["en", "zh"])
def test_spans_are_learnt_from_text_alone(language: str, texts: Any, tmp_path: Path) -> None:
    """What a family of its kind does where no objective is named: sentinels are made, and stock reads all."""
    run = pretune.pretrain(
        SETTINGS, corpus=texts.corpus, family="t5", budget="8 steps", language=language, out=tmp_path / "run"
    )
    model = pretune.load(run.folder)
    assert (model.metadata["objective"], len(model.tokenizer.specials.sentinel_ids)) == (
        "span_corruption",
        100,
    )
    stock = transformers.AutoModelForSeq2SeqLM.from_pretrained(run.model).eval()
    read = transformers.AutoTokenizer.from_pretrained(run.model)
    inputs = read("The captain <extra_id_0> the castle.", return_tensors="pt")
    assert inputs["input_ids"][0, -1] == model.tokenizer.specials.eos_id
    kind = parse_objective("span_corruption")
    objective = kind.build_objective(model.family.TRAITS, model.tokenizer.specials)
    tokens = inputs["input_ids"][0, :-1].numpy()
    batch = objective.collate([[objective.build(Feature(0, 0, (tokens,)), training_rng(0, 0, 0))]])
    with torch.inference_mode():
        (loss,) = objective.loss(model.network, batch)
        expected = stock(batch.source_tokens, labels=batch.targets["causal_lm"][None]).loss
    torch.testing.assert_close(loss.terms["causal_lm"][0] / batch.counts["causal_lm"], expected)
    assert ("easy" if language == "en" else "容易") in (run.folder / "report.html").read_text()
    assert "AutoModelForSeq2SeqLM" in (run.model / "README.md").read_text()


def test_a_tokenizer_without_sentinels_is_refused_before_any_work(texts: Any, tmp_path: Path) -> None:
    pretune.train_tokenizer(texts.corpus, tmp_path / "tokenizer", vocabulary_size=350)
    settings = {"family": "t5", "tokenizer": str(tmp_path / "tokenizer")}
    with pytest.raises(UnsupportedError, match="tokenizer train --sentinels 100"):
        pretune.pretrain(settings, corpus=texts.corpus, out=tmp_path / "run")
    assert not (tmp_path / "run" / "data").exists()


def test_an_alias_is_kept_by_its_full_name() -> None:
    assert parse_objective("mlm + next_sentence").name == "masked_lm+next_sentence"


def test_the_command_line_says_both_scores(cli: Callable[..., Any], texts: Any, tmp_path: Path) -> None:
    said = cli(
        "pretrain", texts.corpus, "--out", tmp_path / "run", "--budget", "2 steps",
        "objective=masked_lm+next_sentence", "vocabulary_size=350", "max_length=32", "model.hidden_size=32",
        "model.num_hidden_layers=1", "model.num_attention_heads=2", "training.batch_tokens=256",
        "validation_fraction=0.1",
    )  # fmt: skip
    assert said.code == 0, said.err
    assert "held-out loss" in said.out
    assert "next_sentence_accuracy" in said.out
    assert "(majority " in said.out
