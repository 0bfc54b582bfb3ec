"""XLNet from text to a folder: learnt in permuted order, read by stock, asked for masks and scores."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

import pretune
from pretune.errors import UsageError
from pretune.types import add_special_tokens

pytestmark = pytest.mark.slow
SETTINGS: dict[str, Any] = {
    "family": "xlnet",
    "vocabulary_size": 350,
    "max_length": 32,
    "validation_fraction": 0.1,
    "model": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2},
    "training": {"batch_tokens": 256, "evaluations": 2},
}


@pytest.fixture(scope="module")
def permuted(texts: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run; its text is read in segments, with a memory."""
    out = tmp_path_factory.mktemp("runs") / "permuted"
    settings = {**SETTINGS, "objective_options": {"segment_length": 16}}
    return pretune.pretrain(settings, corpus=texts.corpus, budget="8 steps", out=out).folder


@torch.inference_mode()
def stock_logs(folder: Path, ids: list[int], asked: list[int]) -> torch.Tensor:
    """Stock's log-probabilities (n, V) at places that see all but each other."""
    stock = transformers.AutoModelForCausalLM.from_pretrained(folder / "model").eval()
    mask = torch.zeros(1, len(ids), len(ids))
    mask[:, :, asked] = 1
    mapping = torch.zeros(1, len(asked), len(ids))
    mapping[0, torch.arange(len(asked)), asked] = 1
    logits: torch.Tensor = stock(torch.tensor([ids]), perm_mask=mask, target_mapping=mapping).logits[0]
    return logits.log_softmax(-1)


def test_a_run_says_what_it_learnt_by(permuted: Path) -> None:
    summary = json.loads((permuted / "summary.json").read_text())
    assert summary["objective"] == "permutation_lm"
    assert math.isfinite(summary["loss"])
    assert "bits_per_byte" not in summary
    read = transformers.AutoTokenizer.from_pretrained(permuted / "model")
    assert read.padding_side == "left"
    assert read.convert_ids_to_tokens(read("A b").input_ids)[-2:] == ["[SEP]", "[CLS]"]


def test_masks_are_filled_as_stock_expects_the_tokens(permuted: Path) -> None:
    model = pretune.load(permuted)
    text = "The captain [MASK] the castle [MASK]."
    ids, _ = add_special_tokens(
        model.tokenizer.specials, (model.tokenizer.encode(text, parse_specials=True).ids,)
    )
    asked = np.flatnonzero(ids == model.tokenizer.specials.mask_id).tolist()
    wanted = stock_logs(permuted, ids.tolist(), asked).clone()
    wanted[:, list(model.tokenizer.specials.all_ids)] = -math.inf
    shares, best = wanted.exp().topk(5, -1)
    filled = model.fill(text)
    assert [[guess.ids[0] for guess in mask] for mask in filled] == best.tolist()
    found = [guess.probability for mask in filled for guess in mask]
    assert found == pytest.approx(shares.flatten().tolist(), abs=1e-5)
    assert [guess.text for guess in model(text)[0]] == [guess.text for guess in filled[0]]


def test_a_text_is_scored_token_by_token(permuted: Path) -> None:
    model = pretune.load(permuted)
    ids, _ = add_special_tokens(model.tokenizer.specials, (model.tokenizer.encode("the castle").ids,))
    count = len(ids) - 2
    wanted = [float(stock_logs(permuted, ids.tolist(), [place])[0, ids[place]]) for place in range(count)]
    found = model.score("the castle")
    assert [log for _, log in found.tokens] == pytest.approx(wanted, abs=1e-4)


def test_what_it_cannot_do_is_refused(permuted: Path) -> None:
    with pytest.raises(UsageError, match="'permutation_lm' head"):
        pretune.load(permuted).generate("The captain")


def test_it_is_compared_with_a_masked_model_on_the_same_tokens(
    permuted: Path, texts: Any, tmp_path: Path
) -> None:
    settings = {**SETTINGS, "family": "bert", "tokenizer": None, "budget": "2 steps"}
    bert = pretune.pretrain(settings, corpus=texts.corpus, out=tmp_path / "bert").folder
    ours = pretune.evaluate(permuted, data=texts.corpus)
    theirs = pretune.evaluate(bert, data=texts.corpus)
    scores = ours["scores"]
    assert scores["as_masked_lm_loss"]["n"] == theirs["scores"]["loss"]["n"]
    assert scores["loss"]["n"] == ours["n"] > scores["as_masked_lm_loss"]["n"]


def test_a_family_that_is_not_named_is_found_by_the_objective(texts: Any) -> None:
    from pretune.workflows.pretrain.pretrain import resolve

    assert resolve({"corpus": [str(texts.corpus)], "objective": "plm"}, {}).family == "xlnet"


def test_the_command_line_trains_it(cli: Callable[..., Any], texts: Any, tmp_path: Path) -> None:
    words = [
        f"{k}={v}" for k, v in (("vocabulary_size", 350), ("max_length", 32), ("validation_fraction", 0.1))
    ]
    shape = [f"model.{k}={v}" for k, v in SETTINGS["model"].items()]
    result = cli("pretrain", texts.corpus, *words, *shape, "--family", "xlnet", "--budget", "3 steps",
                 "--out", tmp_path / "run", "--json")  # fmt: skip
    assert result.code == 0, result.err
    assert json.loads(result.out)["objective"] == "permutation_lm"
