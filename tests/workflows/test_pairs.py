"""Sources and targets as text to pretrain on: alone, and as a part of a mixture."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import small
import torch
import transformers

import pretune
from pretune.data.corpus.build import open_corpus
from pretune.data.corpus.pairs import CorpusPairs
from pretune.errors import DataError
from pretune.model.model import Model

pytestmark = pytest.mark.slow
ENGLISH = ("one", "two", "three", "four", "five", "six")
CHINESE = "一二三四五六"
SMALL: dict[str, Any] = {
    "family": "transformer", "vocabulary_size": 320, "max_length": 32,
    "model": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2},
    "training": {"batch_tokens": 512, "evaluations": 2, "optimizer": {"muon_learning_rate": 0.02}},
}  # fmt: skip


def numbers(path: Path, count: int, seed: int) -> Path:
    """Numbers in English and in Chinese, figure by figure."""
    draw = random.Random(seed)
    rows = []
    for _ in range(count):
        figures = [draw.randrange(6) for _ in range(draw.randint(2, 6))]
        source, target = " ".join(ENGLISH[k] for k in figures), "".join(CHINESE[k] for k in figures)
        rows.append(json.dumps({"source": source, "target": target}, ensure_ascii=False))
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def translated(tmp_path_factory: pytest.TempPathFactory) -> pretune.RunResult:
    folder = tmp_path_factory.mktemp("pairs")
    return pretune.pretrain(
        {**SMALL, "objective": "sequence_to_sequence"}, corpus=numbers(folder / "train.jsonl", 600, 1),
        budget="150 steps", out=folder / "run",
    )  # fmt: skip


def test_pairs_alone_teach_a_translation(translated: pretune.RunResult) -> None:
    summary = translated.summary
    assert summary["objective"] == "sequence_to_sequence"
    assert summary["loss"] < summary["bigram_loss"] < summary["unigram_loss"]
    report = translated.report.read_text(encoding="utf-8")
    held = open_corpus(translated.folder / "data")
    pairs = CorpusPairs(held.validation, 32, held.tokenizer.specials.pad_id)
    shown = [held.tokenizer.decode(sequence.tolist()).strip() for sequence in pairs[0].sequences]
    assert all(text in report for text in shown), "a held-out source, and its target"
    assert f"The target: {shown[1]}" in report
    assert "hidden word" not in report


def test_the_held_out_loss_is_that_of_stock(translated: pretune.RunResult) -> None:
    """In a plain loop over the same pairs; and `evaluate` says the same of a file of them."""
    held = open_corpus(translated.folder / "data")
    pairs = CorpusPairs(held.validation, 30, held.tokenizer.specials.pad_id)
    stock = transformers.AutoModelForSeq2SeqLM.from_pretrained(translated.model).eval()
    reader = transformers.AutoTokenizer.from_pretrained(translated.model)
    nats, targets, rows = 0.0, 0, []
    for i in range(len(pairs)):
        source, target = (held.tokenizer.decode(s.tolist()) for s in pairs[i].sequences)
        rows.append(json.dumps({"source": source, "target": target}))
        labels = reader(target, return_tensors="pt").input_ids
        with torch.no_grad():
            loss = stock(
                **reader(source, return_tensors="pt", return_token_type_ids=False), labels=labels
            ).loss
        nats, targets = nats + float(loss) * labels.numel(), targets + labels.numel()
    assert translated.summary["num_targets"] == targets
    assert translated.summary["loss"] == pytest.approx(nats / targets, rel=1e-4)
    path = translated.folder.parent / "held.jsonl"
    path.write_text("\n".join(rows), encoding="utf-8")
    found = pretune.evaluate(translated.model, data=path)
    assert found["documents"] == len(pairs)
    assert found["scores"]["loss"]["value"] == pytest.approx(nats / targets, rel=1e-4)


def test_pairs_are_a_part_of_a_mixture(texts: Any, tmp_path: Path) -> None:
    """Text and pairs in one run, by the weights asked for; a long target is cut, and that is said."""
    pairs = numbers(tmp_path / "pairs.jsonl", 300, 2)
    with pairs.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"source": "six " * 60, "target": "六" * 60}) + "\n")
    notes = small.Notes()
    run = pretune.pretrain(
        {
            **SMALL, "family": "t5",
            "mixture": [
                {"objective": "span_corruption", "corpus": [str(texts.corpus)], "weight": 0.25},
                {
                    "objective": "sequence_to_sequence",
                    "corpus": [str(pairs)],
                    "weight": 0.75,
                    "name": "figures",
                },
            ],
        },
        budget="16 steps", out=tmp_path / "run", reporter=notes,
    )  # fmt: skip
    parts = run.summary["mixture"]
    assert {name: part["share"] for name, part in parts.items()} == {"span_corruption": 0.25, "figures": 0.75}
    assert parts["figures"]["objective"] == "sequence_to_sequence"
    assert parts["figures"]["loss"] < parts["figures"]["unigram_loss"] + 1
    assert any("1 of" in line and "are cut there" in line for line in notes.said)
    assert Model.load(run.model).generate("one two", max_new_tokens=2) is not None


def test_what_holds_no_pairs_is_refused(texts: Any, tmp_path: Path) -> None:
    """Records without the fields, and text that was prepared as such; and the other way round."""
    alone = {**SMALL, "objective": "sequence_to_sequence", "budget": "2 steps"}
    with pytest.raises(DataError, match="no column 'target'"):
        pretune.pretrain(alone, corpus=texts.corpus, out=tmp_path / "fields")
    text = pretune.pretrain(
        {**SMALL, "family": "t5"}, corpus=texts.corpus, budget="2 steps", out=tmp_path / "text"
    )
    with pytest.raises(DataError, match="from the fields text, not source, target"):
        pretune.pretrain(alone, corpus=text.folder / "data", out=tmp_path / "prepared")
    pairs = numbers(tmp_path / "pairs.jsonl", 100, 3)
    prepared = pretune.pretrain(alone, corpus=pairs, out=tmp_path / "pairs")
    with pytest.raises(DataError, match="from the fields source, target, not text"):
        pretune.pretrain(
            {**SMALL, "family": "t5"}, corpus=prepared.folder / "data", budget="2 steps", out=tmp_path / "t5"
        )
    again = pretune.pretrain(alone, corpus=prepared.folder / "data", out=tmp_path / "again")
    assert again.summary["held_out_fingerprint"] == prepared.summary["held_out_fingerprint"]
