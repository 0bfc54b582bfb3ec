"""Pretraining goes on from a checkpoint, with its weights and tokenizer; it never becomes another model."""

from __future__ import annotations

import json
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import small
import torch
import transformers

import pretune
from pretune.checkpoint import hub
from pretune.data.cleaning.fingerprints import Fingerprints
from pretune.errors import ConfigError, Interrupted
from pretune.workflows.pretrain import pretrain as workflow

pytestmark = pytest.mark.slow
TRAINING = {"batch_tokens": 256, "evaluations": 2}


def summary_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    return found


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """New text, of another kind, and its documents."""
    draw = random.Random(9)
    words = ("river", "bridge", "mill", "桥", "河水", "磨坊")

    def sentence() -> str:
        return f"Near the {draw.choice(words)} {draw.randint(1, 99)} lies a {draw.choice(words)}."

    documents = [" ".join(sentence() for _ in range(6)) for _ in range(60)]
    path = tmp_path_factory.mktemp("other") / "other.jsonl"
    path.write_text("\n".join(json.dumps({"text": text}) for text in documents) + "\n", encoding="utf-8")
    return path, documents


@pytest.fixture(scope="module")
def further(bert: Path, other: tuple[Path, list[str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that goes on from the masked model, on new text."""
    out = tmp_path_factory.mktemp("runs") / "further"
    settings = {"max_length": 32, "training": TRAINING}
    return pretune.pretrain(settings, corpus=other[0], start_from=bert, budget="20 steps", out=out).folder


def test_it_begins_with_the_loss_that_the_checkpoint_ended_with(
    bert: Path, texts: Any, tmp_path: Path
) -> None:
    settings = {"max_length": 32, "training": TRAINING}
    run = pretune.pretrain(
        settings, corpus=texts.corpus, start_from=bert, budget="2 steps", out=tmp_path / "r"
    )
    assert run.summary["initial_scores"]["loss"] == pytest.approx(summary_of(bert)["loss"], abs=1e-6)
    assert run.summary["unigram_loss"] == pytest.approx(summary_of(bert)["unigram_loss"])


def test_it_learns_the_new_text_and_says_from_where(further: Path, bert: Path) -> None:
    summary = summary_of(further)
    assert summary["loss"] < summary["initial_scores"]["loss"]
    assert summary["new_heads"] == []
    assert summary["start_from"] == str(bert)
    card = (further / "model" / "README.md").read_text(encoding="utf-8")
    assert "base_model: bert" in card
    assert "the model it starts from" in card
    report = (further / "report.html").read_text(encoding="utf-8")
    before = summary["initial_scores"]["loss"]
    assert f"Starting from bert, the held-out loss on this text went from {before:.3f}" in report


def test_the_tokenizer_and_the_shape_are_the_checkpoints(further: Path, bert: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (further / "model" / name).read_bytes() == (bert / "model" / name).read_bytes()
    assert hub.read_config(further / "model") == hub.read_config(bert / "model")
    before, after = (hub.read_tensors(folder / "model") for folder in (bert, further))
    moved = [name for name, tensor in before.items() if not torch.equal(tensor, after[name])]
    assert moved
    # Twenty steps at a low rate: near to where it began, far from where another seed would have.
    name = "bert.embeddings.word_embeddings.weight"
    assert (after[name] - before[name]).norm() < 0.5 * before[name].norm()


def test_the_learning_rate_is_lower_by_default() -> None:
    given = {"corpus": ["x"], "family": "bert"}
    assert workflow.resolve(given, {}).training.optimizer.learning_rate == 2e-3


def test_fingerprints_cover_both_texts(further: Path, other: tuple[Path, list[str]], texts: Any) -> None:
    kept = Fingerprints.load(further / "model")
    assert kept is not None
    first = [json.loads(line)["text"] for line in texts.corpus.read_text(encoding="utf-8").splitlines()]
    for documents in (first, other[1]):
        assert len(kept.find_overlapping(documents)) > 0.9 * len(documents)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"family": "llama"}, "family = 'llama'"),
        ({"model": {"hidden_size": 64}}, r"model\.hidden_size = 64"),
        ({"tokenizer": "tokenizer.json"}, "tokenizer = 'tokenizer.json'"),
        ({"vocabulary_size": 500}, "vocabulary_size = 500"),
        ({"max_length": 64}, "max_length = 64"),
    ],
)
def test_what_would_make_it_another_model_is_refused(
    changed: dict[str, Any], named: str, bert: Path, texts: Any, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=named):
        pretune.pretrain({"start_from": str(bert), **changed}, corpus=texts.corpus, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_what_the_checkpoint_says_may_be_said_again(bert: Path) -> None:
    """So a resolved config.yaml can be given as it is."""
    given = {"start_from": str(bert), "corpus": ["x"], "family": "bert", "model": {"hidden_size": 32}}
    resolved = workflow.resolve(given, {})
    assert (resolved.family, resolved.max_length, resolved.objective) == ("bert", 32, "masked_lm")
    assert resolved.training.optimizer.learning_rate == 2e-4
    assert workflow.resolve(resolved.model_dump(), {}) == resolved
    assert workflow.resolve(resolved, {}) == resolved


def test_a_body_without_a_head_gets_a_new_one(bert: Path, texts: Any, tmp_path: Path) -> None:
    transformers.BertModel.from_pretrained(bert / "model").save_pretrained(tmp_path / "body")
    transformers.AutoTokenizer.from_pretrained(bert / "model").save_pretrained(tmp_path / "body")
    notes = small.Notes()
    settings = {"start_from": str(tmp_path / "body"), "max_length": 24, "training": TRAINING}
    run = pretune.pretrain(
        settings, corpus=texts.corpus, budget="4 steps", out=tmp_path / "run", reporter=notes
    )
    assert any("no (or only a part of a) masked_lm head" in line for line in notes.said)
    assert run.summary["new_heads"] == ["masked_lm"]
    _, loaded = transformers.BertForMaskedLM.from_pretrained(run.model, output_loading_info=True)
    assert not loaded["missing_keys"]
    assert "which has no head for this objective" in run.report.read_text(encoding="utf-8")
    assert pretune.load(run.folder).max_length == 32


def test_a_classifier_goes_on_as_a_language_model(classifier: Path, texts: Any, tmp_path: Path) -> None:
    settings = {"start_from": str(classifier), "training": TRAINING}
    run = pretune.pretrain(settings, corpus=texts.corpus, budget="2 steps", out=tmp_path / "run")
    assert hub.read_config(run.model)["architectures"] == ["BertForMaskedLM"]
    assert "task" not in json.loads((run.model / "pretune.json").read_text())


def test_a_decoder_goes_on_from_the_command_line(
    cli: Callable[..., Any], llama: Path, other: tuple[Path, list[str]], tmp_path: Path
) -> None:
    words = (other[0], "--from", llama, "--budget", "10 steps", "training.batch_tokens=256", "language=zh")
    said = cli("pretrain", *words, "--dry-run", "--json")
    assert said.code == 0, said.err
    assert json.loads(said.out)["parameters"] == summary_of(llama)["parameters"]
    said = cli("pretrain", *words, "--out", tmp_path / "run")
    assert said.code == 0, said.err
    assert "before: loss" in said.err
    assert f"before training: {summary_of(tmp_path / 'run')['initial_scores']['loss']:.3f}" in said.out
    assert "继续训练：在本文本上" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")


def test_a_stopped_run_goes_on_to_the_same_end(
    bert: Path, other: tuple[Path, list[str]], further: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"max_length": 32, "training": TRAINING}
    given: dict[str, Any] = {
        "corpus": other[0],
        "start_from": bert,
        "budget": "20 steps",
        "out": tmp_path / "run",
    }
    passes, backward = 0, torch.autograd.backward

    def stopping(*arguments: Any, **options: Any) -> None:
        nonlocal passes
        passes += 1
        backward(*arguments, **options)
        if passes == 8:
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(torch.autograd, "backward", stopping)
        with pytest.raises(Interrupted):
            pretune.pretrain(settings, **given)
    notes = small.Notes()
    run = pretune.pretrain(settings, **given, reporter=notes)
    assert run.summary["initial_scores"] == summary_of(further)["initial_scores"]
    assert not any("before: loss" in line for line in notes.said)  # measured once, and kept
    ended, expected = (hub.read_tensors(folder / "model") for folder in (run.folder, further))
    assert all(torch.equal(ended[name], expected[name]) for name in expected)


def test_a_folder_that_is_no_model_is_refused(cli: Callable[..., Any], texts: Any, tmp_path: Path) -> None:
    said = cli("pretrain", texts.corpus, "--from", tmp_path / "nowhere")
    assert said.code == 1
    assert "nowhere" in said.err
