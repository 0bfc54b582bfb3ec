"""A classifier on an encoder-decoder: fine-tuned, read by stock transformers, and asked as any other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import pretune
from pretune.errors import UnsupportedError

pytestmark = pytest.mark.slow
SHAPE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
SETTINGS: dict[str, Any] = {
    "vocabulary_size": 350, "max_length": 32, "model": SHAPE,
    "training": {"batch_tokens": 256, "evaluations": 2},
}  # fmt: skip


@pytest.fixture(scope="module")
def t5(texts: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "t5"
    return pretune.pretrain(SETTINGS, corpus=texts.corpus, family="t5", budget="4 steps", out=out).folder


def test_a_t5_learns_the_classes_and_stock_says_the_same(t5: Path, texts: Any, tmp_path: Path) -> None:
    run = pretune.finetune(
        t5, train=texts.train, validation=texts.validation, test=texts.test, budget="8 epochs",
        training={"evaluations": 1, "optimizer": {"learning_rate": 3e-3}}, out=tmp_path / "run",
    )  # fmt: skip
    model = pretune.load(run.folder)
    stock, told = transformers.AutoModelForSequenceClassification.from_pretrained(
        run.model, output_loading_info=True
    )
    assert type(stock).__name__ == "T5ForSequenceClassification"
    assert not told["missing_keys"]
    assert not told["unexpected_keys"]
    reader = transformers.AutoTokenizer.from_pretrained(run.model)
    asked = ["The soldier saw the castle in year 12.", "农夫看见牧场，第3年。", "The barn."]
    for text, said in zip(asked, model.classify(asked), strict=True):
        with torch.inference_mode():
            chances = stock.eval()(**reader(text, return_tensors="pt")).logits[0].softmax(-1)
        assert said.value == stock.config.id2label[int(chances.argmax())]
        assert said.confidence == pytest.approx(float(chances.max()), abs=1e-4)
    pair = model.classify(["The barn."], ["士兵看见城堡。"])[0]
    with torch.inference_mode():
        chances = stock(**reader("The barn.", "士兵看见城堡。", return_tensors="pt")).logits[0].softmax(-1)
    assert pair.confidence == pytest.approx(float(chances.max()), abs=1e-4)
    scores = pretune.evaluate(run.folder, data=texts.test)["scores"]
    assert scores["accuracy"]["value"] > 0.9


def test_several_labels_are_learnt_too(t5: Path, texts: Any, tmp_path: Path) -> None:
    lines = [
        '{"text": "The soldier saw the barn.", "labels": ["war", "farm"]}',
        '{"text": "雨", "labels": []}',
    ]
    data = tmp_path / "train.jsonl"
    data.write_text("\n".join(lines * 8) + "\n", encoding="utf-8")
    run = pretune.finetune(
        t5, train=data, budget="2 steps", out=tmp_path / "run",
        settings={"task": "multi_label_classification", "baselines": False},
    )  # fmt: skip
    assert pretune.load(run.folder).labels == ("farm", "war")
    assert transformers.AutoConfig.from_pretrained(run.model).problem_type == "multi_label_classification"


def test_what_stock_cannot_hold_is_refused(texts: Any, tmp_path: Path) -> None:
    """Marian has no classifier in stock transformers, so ``transformer`` has none."""
    base = pretune.pretrain(
        {**SETTINGS, "objective": "prefix_lm"}, corpus=texts.corpus, family="transformer", budget="1 steps",
        out=tmp_path / "base",
    )  # fmt: skip
    with pytest.raises(UnsupportedError, match="transformer has no head 'classification'"):
        pretune.finetune(base.folder, train=texts.train, budget="1 epoch", out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
