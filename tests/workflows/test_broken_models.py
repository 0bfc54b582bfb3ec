"""A model whose weights are NaN or infinite says so; it gives no answer that looks like one."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import pretune
from pretune.errors import CheckpointError
from pretune.generation.settings import Decoding
from pretune.model.model import Model
from pretune.text.training import train_tokenizer
from pretune.workflows.evaluate import evaluate
from pretune.workflows.predict.predict import predict
from pretune.workflows.score import score_file

TEXT = ["The captain saw the harbour, and the fishermen were home. 渔夫看见港口，船长回家了。\n" * 20]
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
USES: dict[tuple[str, str], tuple[Callable[[Model], object], ...]] = {
    ("llama", "causal_lm"): (
        lambda model: model.generate("The captain"),
        lambda model: model.generate("The captain", num_beams=3),
        lambda model: list(model.stream("The captain")),
        lambda model: model.generate_batch(["The", "a"], Decoding(num_return_sequences=2)),
        lambda model: model.score("The captain"),
    ),
    ("t5", "causal_lm"): (lambda model: model.generate("The captain"),),
    ("bert", "masked_lm"): (
        lambda model: model.fill("The [MASK] saw"),
        lambda model: model.fill("The [MASK] saw", targets=["captain", "harbour"]),
        lambda model: model.fill("The [MASK] [MASK]", joint=True),
        lambda model: model.fill("The [MASK] saw", whole_words=True),
        lambda model: model.score("The captain"),
        lambda model: model("The [MASK] saw"),
    ),
    ("xlnet", "permutation_lm"): (
        lambda model: model.fill("The [MASK] saw"),
        lambda model: model.score("The captain"),
    ),
    ("bert", "classification"): (
        lambda model: model.classify(["The captain"]),
        lambda model: model("The captain"),
    ),
    ("gpt2", "classification"): (lambda model: model.classify(["The captain"]),),
}


def made(family: str, head: str) -> Model:
    frames = {"bert": "cls_sep", "xlnet": "sep_cls", "t5": "end"}
    encoder = family in ("bert", "xlnet")
    tokenizer = train_tokenizer(TEXT, 350, algorithm="wordpiece" if encoder else "bpe")
    tokenizer = tokenizer.with_template(frames.get(family, "start"))  # type: ignore[arg-type]
    labels = ("no", "yes", "perhaps") if head == "classification" else ()
    model = Model.create(family, SIZES, tokenizer, head, max_length=32, seed=0, labels=labels)
    model.metadata["task"] = "classification" if labels else None
    return model


@pytest.mark.parametrize(("family", "head"), USES)
@pytest.mark.parametrize("value", [math.nan, math.inf, 3e38])
def test_every_use_of_a_broken_model_names_it(family: str, head: str, value: float, tmp_path: Path) -> None:
    model = made(family, head)
    for use in USES[family, head]:
        assert use(model), "it has an answer while its weights are sound"
    with torch.no_grad():
        for name, weight in model.network.named_parameters():
            if weight.ndim == 2 and ("layers" in name or "decoder" in name or "output" in name):
                weight.fill_(value)
    broken = pretune.load(model.save(tmp_path / "broken"))
    for use in USES[family, head]:
        with pytest.raises(CheckpointError, match=r"broken: the model is broken: its logits are NaN or inf"):
            use(broken)


def test_the_weight_to_blame_is_named_and_no_file_is_left(tmp_path: Path) -> None:
    model = made("bert", "classification")
    bias = dict(model.network.named_parameters())["heads.classification.output.bias"]
    with torch.no_grad():
        bias[1] = math.inf
    folder = model.save(tmp_path / "broken")
    data = tmp_path / "texts.jsonl"
    data.write_text('{"text": "The captain"}\n' * 3)
    blame = r"heads.classification.output.bias holds NaN or infinity.*take an earlier checkpoint"
    with pytest.raises(CheckpointError, match=blame):
        predict(folder, data=data, out=tmp_path / "said.jsonl", on_bad="keep")
    assert not (tmp_path / "said.jsonl").exists()
    causal = made("llama", "causal_lm")
    with torch.no_grad():
        next(causal.network.parameters()).fill_(math.nan)
    with pytest.raises(CheckpointError, match="model is broken"):
        score_file(causal.save(tmp_path / "causal"), data=data, out=tmp_path / "scores.jsonl")
    assert not (tmp_path / "scores.jsonl").exists()


@pytest.mark.parametrize(("family", "head"), [("llama", "causal_lm"), ("bert", "masked_lm")])
def test_evaluate_gives_no_loss_that_is_no_number(family: str, head: str, tmp_path: Path) -> None:
    data = tmp_path / "texts.jsonl"
    data.write_text('{"text": "The captain saw the harbour and the fishermen."}\n' * 20)
    model = made(family, head)
    with torch.no_grad():
        next(iter(model.network.parameters())).fill_(math.nan)
    with pytest.raises(CheckpointError, match="broken: the model is broken: its loss is NaN or infinite"):
        evaluate(model.save(tmp_path / "broken"), data=data)


def test_one_token_of_probability_zero_breaks_nothing() -> None:
    """Some makers forbid a token by a bias of -inf: what is left is a distribution."""
    model = made("bert", "masked_lm")
    bias = dict(model.network.named_parameters())["heads.masked_lm.decoder.bias"]
    with torch.no_grad():
        bias[7] = -math.inf
    assert all(guess.probability > 0 for guess in model.fill("The [MASK] saw")[0])
