"""A model gets more tokens for a text, says of the old ones what it said, and can be trained with the new."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import pretune
from pretune import registry
from pretune.errors import DataError
from pretune.model.model import Model
from pretune.model.resize_embeddings import find_vocabulary_tensors, resize_token_embeddings
from pretune.nn.heads import combined_names
from pretune.text.training import train_tokenizer
from pretune.text.vocabulary_extension import extend_tokenizer

TEXT = ["人民法院应当保护当事人的合法权益。The court shall protect the lawful rights of the parties."] * 8
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


def heads() -> list[Any]:
    found = []
    for name in registry.list_names("families"):
        family = registry.find("families", name)
        if family.TRAITS.architecture != "encoder-decoder":
            found += [pytest.param(name, head, id=f"{name}-{head}") for head in combined_names(family.HEADS)]
    return found


@pytest.mark.parametrize(("family", "head"), heads())
def test_every_family_keeps_what_it_knows(family: str, head: str) -> None:
    tokenizer = train_tokenizer(TEXT, 270)
    labels = ("a", "b")
    model = Model.create(family, {}, tokenizer, head, max_length=64, seed=0, labels=labels)
    found = extend_tokenizer(tokenizer, TEXT, 20)
    larger = resize_token_embeddings(model, found)
    assert larger.config.vocab_size == 270 + len(found.pieces)
    old, new = model.network.state_dict(), larger.network.state_dict()
    by_token = find_vocabulary_tensors(model.family, model.config, head, model.outputs)
    assert by_token
    for name, tensor in new.items():
        torch.testing.assert_close(tensor[: len(old[name])], old[name], rtol=0, atol=0)
        if name in by_token:
            for id, pieces in found.pieces.items():
                torch.testing.assert_close(tensor[id], old[name][list(pieces)].mean(0))
        else:
            assert tensor.shape == old[name].shape


def test_spare_rows_of_the_network_are_used_first() -> None:
    tokenizer = train_tokenizer(TEXT, 270)
    model = Model.create("llama", {"vocab_size": 320}, tokenizer, "causal_lm", max_length=64, seed=0)
    found = extend_tokenizer(tokenizer, TEXT, 20)
    larger = resize_token_embeddings(model, found)
    assert larger.config.vocab_size == 320
    row = larger.network.state_dict()["embedding.weight"][270]
    pieces = list(found.pieces[270])
    torch.testing.assert_close(row, model.network.state_dict()["embedding.weight"][pieces].mean(0))


def test_stock_transformers_says_the_same(llama: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "law.txt"
    corpus.write_text("\n".join(TEXT), encoding="utf-8")
    found = pretune.extend_vocabulary(llama, corpus, out=tmp_path / "more", tokens=25)
    assert len(found.new_tokens) == 25
    assert found.rate_after < 0.8 * found.rate_before
    before, after = (
        transformers.AutoModelForCausalLM.from_pretrained(p) for p in (_model(llama), found.folder)
    )
    size = before.config.vocab_size
    assert after.config.vocab_size == size + 25
    ids = torch.tensor([[5, 9, 200, 31]])
    with torch.no_grad():
        torch.testing.assert_close(after(ids).logits[..., :size], before(ids).logits)
    reader = transformers.AutoTokenizer.from_pretrained(found.folder)
    assert reader.decode(reader(TEXT[0], add_special_tokens=False)["input_ids"]) == TEXT[0]
    assert len(reader(TEXT[0])["input_ids"]) < len(
        transformers.AutoTokenizer.from_pretrained(_model(llama))(TEXT[0])["input_ids"]
    )
    with pytest.raises(DataError, match="is there already"):
        pretune.extend_vocabulary(llama, corpus, out=tmp_path / "more")


@pytest.mark.slow
def test_the_command_line_extends_and_pretraining_goes_on(
    bert: Path, tmp_path: Path, cli: Callable[..., Any]
) -> None:
    corpus = tmp_path / "law.txt"
    corpus.write_text("\n".join(TEXT * 30), encoding="utf-8")
    said = cli("tokenizer", "extend", bert, corpus, "--tokens", 12, "--out", tmp_path / "more", "--json")
    assert said.code == 0
    told = json.loads(said.out)
    assert told["new_tokens"] == 12
    rates = told["tokens_per_100_characters"]
    assert rates["after"] < rates["before"]
    said = cli(
        "pretrain", corpus, "--from", tmp_path / "more", "--budget", "4 steps", "--out", tmp_path / "run"
    )
    assert said.code == 0
    trained = pretune.load(tmp_path / "run")
    assert trained.tokenizer.vocabulary_size == told["vocabulary_size"]


def _model(run: Path) -> Path:
    return run / "model" if (run / "model").is_dir() else run
