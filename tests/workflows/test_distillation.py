"""A run with a teacher: from settings to a student's folder, stopped and resumed, and what is refused."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import pretune
import pretune.errors
from pretune.checkpoint import hub
from pretune.errors import ConfigError, Interrupted, UnsupportedError
from pretune.workflows.pretrain import pretrain as workflow

pytestmark = pytest.mark.slow
TRAINING = {"batch_tokens": 256, "evaluations": 2, "save_every": 3}
SHAPE = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}


def settings(teacher: Path, **given: Any) -> dict[str, Any]:
    return {
        "max_length": 32,
        "model": SHAPE,
        "training": TRAINING,
        "family": "bert",
        "distillation": {"teacher": str(teacher), **given},
    }


def stopped(monkeypatch: pytest.MonkeyPatch, after: int, call: Callable[[], Any]) -> None:
    """Ask the run to stop in its backward pass number ``after``."""
    passes, backward = 0, torch.autograd.backward

    def stopping(*arguments: Any, **options: Any) -> None:
        nonlocal passes
        passes += 1
        backward(*arguments, **options)
        if passes == after:
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(torch.autograd, "backward", stopping)
        with pytest.raises(Interrupted):
            call()


def losses(folder: Path) -> list[float]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows if row["type"] == "step"]


def test_a_student_has_its_teachers_tokenizer_and_nothing_else_of_it(
    bert: Path, texts: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its folder is a plain one; stopped and resumed, it ends bit for bit as the run that was not."""
    given: dict[str, Any] = {"corpus": texts.corpus, "budget": "8 steps"}
    whole = pretune.pretrain(settings(bert), **given, out=tmp_path / "whole")
    assert (whole.model / "tokenizer.json").read_bytes() == (bert / "model" / "tokenizer.json").read_bytes()
    loaded, told = transformers.BertForMaskedLM.from_pretrained(whole.model, output_loading_info=True)
    assert not told["missing_keys"]
    assert not told["unexpected_keys"]
    assert loaded.config.hidden_size == 16

    stopped(monkeypatch, 4, lambda: pretune.pretrain(settings(bert), **given, out=tmp_path / "run"))
    resumed = pretune.pretrain(settings(bert), **given, out=tmp_path / "run")
    ended, expected = (hub.read_tensors(run.model) for run in (resumed, whole))
    assert all(torch.equal(ended[name], expected[name]) for name in expected)
    assert losses(resumed.folder) == losses(whole.folder)

    alone = pretune.pretrain(
        {**settings(bert), "distillation": None, "tokenizer": str(bert / "model")},
        **given,
        out=tmp_path / "alone",
    )
    assert losses(alone.folder)[0] != losses(whole.folder)[0]
    assert alone.summary["unigram_loss"] == pytest.approx(
        whole.summary["unigram_loss"]
    )  # the same held-out targets


@pytest.mark.parametrize(
    ("language", "said", "fact"),
    [
        (
            "en",
            "It learnt beside a teacher, bert (bert, ",
            "- Teacher: bert (bert, {n} parameters; weight 0.3, ",
        ),
        ("zh", "训练时有教师模型 bert（bert，", "- 教师模型: bert（bert，{n} 参数；权重 0.3，"),
    ],
)
def test_page_card_and_summary_name_the_teacher(
    language: str, said: str, fact: str, bert: Path, classifier: Path, texts: Any, tmp_path: Path
) -> None:
    model = pretune.load(bert)
    run = pretune.pretrain(
        {**settings(bert / "model", weight=0.3), "language": language}, corpus=texts.corpus,
        budget="2 steps", out=tmp_path / "run",
    )  # fmt: skip
    for found in (run.summary["teacher"], json.loads((run.folder / "summary.json").read_text())["teacher"]):
        assert found == {
            "name": "bert", "path": str(bert / "model"), "family": "bert", "parameters": model.num_parameters,
            "fingerprint": model.fingerprint, "weight": 0.3, "temperature": 2.0, "hidden_weight": 0.0,
        }  # fmt: skip
    assert said in (run.folder / "report.html").read_text(encoding="utf-8")
    assert fact.format(n=f"{model.num_parameters:,}") in (run.model / "README.md").read_text(encoding="utf-8")

    tuned = pretune.finetune(
        bert, train=texts.train, validation=texts.validation, budget="1 steps", training={"evaluations": 1},
        settings={"distillation": {"teacher": str(classifier)}, "language": language, "baselines": False},
        out=tmp_path / "tuned",
    )  # fmt: skip
    assert tuned.summary["teacher"]["name"] == "classifier"
    assert said.replace("bert", "classifier", 1) in (tuned.folder / "report.html").read_text(encoding="utf-8")
    card = (tuned.model / "README.md").read_text(encoding="utf-8")
    assert fact.split(":")[0] in card


def test_a_run_without_a_teacher_names_none(bert: Path, llama: Path) -> None:
    for run in (bert, llama):
        assert "teacher" not in json.loads((run / "summary.json").read_text())
        page, card = ((run / name).read_text(encoding="utf-8") for name in ("report.html", "model/README.md"))
        assert not any(word in page + card for word in ("Teacher", "teacher,", "教师模型"))


def test_from_the_command_line(cli: Callable[..., Any], llama: Path, texts: Any, tmp_path: Path) -> None:
    words = (
        texts.corpus, "--family", "llama", "--budget", "4 steps", "max_length=32",
        "training.batch_tokens=256",
        "model.hidden_size=32", "model.num_hidden_layers=1", "model.num_attention_heads=2",
        f"distillation.teacher={llama}", "distillation.weight=0.7", "distillation.temperature=4",
        "distillation.hidden_weight=0.1",
    )  # fmt: skip
    said = cli("pretrain", *words, "--out", tmp_path / "run")
    assert said.code == 0, said.err
    assert f"teacher: {llama}" in said.err
    said = cli("pretrain", *words, "distillation.wieght=0.7", "--out", tmp_path / "other")
    assert said.code == 2
    assert "distillation.weight" in said.err


def test_a_teacher_that_changed_is_not_mixed_in(
    bert: Path, texts: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = pretune.load(bert).save(tmp_path / "teacher")
    given: dict[str, Any] = {"corpus": texts.corpus, "budget": "8 steps", "out": tmp_path / "run"}
    stopped(monkeypatch, 4, lambda: pretune.pretrain(settings(teacher), **given))
    other = pretune.load(bert)
    with torch.no_grad():
        next(other.network.parameters())[0, 0] += 1
    other.save(teacher)
    with pytest.raises(ConfigError, match="no longer the one that this run"):
        pretune.pretrain(settings(teacher), **given)


def test_a_classifier_learns_from_a_classifier(
    bert: Path, classifier: Path, texts: Any, tmp_path: Path
) -> None:
    given: dict[str, Any] = {
        "train": texts.train, "validation": texts.validation, "budget": "1 epoch",
        "training": {"evaluations": 1},
    }  # fmt: skip
    teaching = {"distillation": {"teacher": str(classifier), "weight": 1.0, "hidden_weight": 1.0}}
    run = pretune.finetune(bert, settings=teaching, **given, out=tmp_path / "run")
    alone = pretune.finetune(bert, **given, out=tmp_path / "alone")
    assert losses(run.folder)[0] != losses(alone.folder)[0]
    with pytest.raises(UnsupportedError, match="no trained classification head"):
        pretune.finetune(
            bert, settings={"distillation": {"teacher": str(bert)}}, **given, out=tmp_path / "refused"
        )
    assert not (tmp_path / "refused").exists()
    lines = [json.loads(line) for line in texts.train.read_text(encoding="utf-8").splitlines()]
    others = tmp_path / "others.jsonl"
    others.write_text("".join(json.dumps({**row, "label": f"{row['label']}s"}) + "\n" for row in lines))
    with pytest.raises(ConfigError, match="knows the labels farm, war, the records have farms, wars"):
        pretune.finetune(
            bert, settings=teaching, **{**given, "train": others, "validation": None}, out=tmp_path / "labels"
        )


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"tokenizer": "{llama}"}, r"its tokenizer is not the student's.*tokenizer=TEACHER"),
        ({"distillation": {"weight": 0.5}}, r"distillation\.teacher.* is needed"),
        ({"distillation": {"teacher": "{bert}", "weight": 1.5}}, r"distillation\.weight = 1\.5"),
        ({"distillation": {"teacher": "nowhere"}}, "nowhere: no such file or folder"),
        (
            {"distillation": {"teacher": "{bert}", "hidden_weight": 1.0}},
            "student has 16 a place, the teacher 32",
        ),
        ({"family": "llama", "objective": "causal_lm"}, "no trained causal_lm head, but masked_lm"),
        ({"training": {"parallel": "fsdp"}}, r"training\.parallel=ddp"),
    ],
)
def test_what_does_not_fit_is_refused(
    changed: dict[str, Any], said: str, bert: Path, llama: Path, texts: Any, tmp_path: Path
) -> None:
    def placed(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: placed(item) for key, item in value.items()}
        named = {"{bert}": str(bert), "{llama}": str(llama / "model")}
        return named.get(value, value) if isinstance(value, str) else value

    with pytest.raises(pretune.errors.PretuneError, match=said):
        pretune.pretrain(
            {**settings(bert), **placed(changed)}, corpus=texts.corpus, budget="2 steps", out=tmp_path / "run"
        )
    assert not (tmp_path / "run").exists()


def test_resolved_settings_can_be_given_again(bert: Path) -> None:
    resolved = workflow.resolve({**settings(bert), "corpus": ["x"], "budget": "2 steps"}, {})
    assert resolved.tokenizer == str(bert / "model")
    assert workflow.resolve(resolved.model_dump(), {}) == resolved
    with pytest.raises(ConfigError, match=r"its size was left to the time; set model\.hidden_size=32"):
        workflow.resolve(
            {**settings(bert, hidden_weight=1.0), "corpus": ["x"], "budget": "2 min", "model": {}}, {}
        )
