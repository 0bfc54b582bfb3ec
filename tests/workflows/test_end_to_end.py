"""Pretrain, fine-tune, evaluate, predict: what each leaves behind, and that stock transformers reads it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import small
import torch
import transformers

import pretune
from pretune.errors import ConfigError, UnsupportedError, UsageError
from pretune.generation.sampling import Sampling
from pretune.types import Batch, Layout

pytestmark = pytest.mark.slow
TOLERANCE = 1e-4  # fp32, other orders of summation

SENTENCES = ["The captain saw the castle.", "农夫看见牧场。", "Year 7: 士兵 and barn"]


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def everything(folder: Path) -> dict[str, tuple[int, bytes]]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


# -- stock transformers --------------------------------------------------------------------------


def assert_same(run: Path, auto: str, texts: list[str], pair: str | None = None) -> None:
    """The same ids and segments from AutoTokenizer, and the same logits from the stock class."""
    model = pretune.load(run)
    stock = getattr(transformers, auto).from_pretrained(run / "model").eval()
    reader = transformers.AutoTokenizer.from_pretrained(run / "model")
    for text in texts:
        theirs = reader(*([text] if pair is None else [text, pair]), return_tensors="pt")
        ids = [model.tokenizer.encode(part).ids for part in (text, pair) if part is not None]
        tokens, segments = model.tokenizer.add_special_tokens(*ids)
        assert theirs["input_ids"][0].tolist() == tokens.tolist()
        if "token_type_ids" in theirs:
            assert theirs["token_type_ids"][0].tolist() == segments.tolist()
        assert ("token_type_ids" in theirs) == model.family.TRAITS.has_segment_embeddings
        layout = Layout(torch.tensor([len(tokens)]), segments=torch.tensor(segments)[None])
        with torch.inference_mode():
            ours = model.network(Batch(torch.tensor(tokens)[None], layout), heads=(model.head,))
            expected = stock(**theirs).logits.flatten(0, -2)
        torch.testing.assert_close(ours.logits[model.head], expected, atol=TOLERANCE, rtol=0)


def test_a_masked_model_loads_in_transformers(bert: Path) -> None:
    assert_same(bert, "AutoModelForMaskedLM", SENTENCES)


def test_a_causal_model_loads_in_transformers(llama: Path) -> None:
    assert_same(llama, "AutoModelForCausalLM", SENTENCES)


def test_a_classifier_loads_in_transformers(classifier: Path) -> None:
    assert_same(classifier, "AutoModelForSequenceClassification", SENTENCES)
    assert_same(classifier, "AutoModelForSequenceClassification", ["The barn."], pair="士兵看见城堡。")


def test_a_classifier_from_a_causal_model_loads_in_transformers(
    llama: Path, texts: Any, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    pretune.finetune(
        llama, train=texts.train, budget="2 steps", training={"evaluations": 1}, out=out,
        settings={"baselines": False},
    )  # fmt: skip
    assert_same(out, "AutoModelForSequenceClassification", SENTENCES)


# -- what a run leaves behind ---------------------------------------------------------------------


def test_a_run_leaves_its_files(bert: Path, classifier: Path) -> None:
    for run in (bert, classifier):
        kept = {path.name for path in run.iterdir()}
        assert {"config.yaml", "environment.json", "metrics.jsonl", "checkpoints", "model"} <= kept
        assert {"summary.json", "report.html", "tensorboard"} <= kept
        assert not list(run.rglob("*.partial"))
        assert (run / "model" / "README.md").read_text(encoding="utf-8").strip()


def test_reports_are_self_contained_and_in_the_language_asked_for(
    bert: Path, llama: Path, classifier: Path
) -> None:
    for run, chinese in ((bert, False), (llama, True), (classifier, False)):
        page = (run / "report.html").read_text(encoding="utf-8")
        assert not re.search(r"""(src|href)\s*=\s*["']?\s*(https?:)?//""", page)
        assert "<script src" not in page
        assert ("预训练" in page) == chinese
        assert f'lang="{"zh" if chinese else "en"}' in page


def test_a_finished_run_is_left_as_it_is(bert: Path, classifier: Path, texts: Any) -> None:
    for run, verb in ((bert, pretune.pretrain), (classifier, pretune.finetune)):
        before, notes = everything(run), small.Notes()
        import yaml

        settings = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
        result = verb(settings=settings, out=run, reporter=notes)
        assert result.summary == json.loads((run / "summary.json").read_text(encoding="utf-8"))
        assert any("complete" in said for said in notes.said)
        assert everything(run) == before


def test_other_settings_in_the_same_folder_are_refused_by_key(bert: Path) -> None:
    import yaml

    settings = yaml.safe_load((bert / "config.yaml").read_text(encoding="utf-8"))
    settings["training"]["optimizer"]["learning_rate"] = 0.5
    before = everything(bert)
    with pytest.raises(ConfigError, match=r"training\.optimizer\.learning_rate: 0\.002 -> 0\.5.*--out"):
        pretune.pretrain(settings, out=bert)
    assert everything(bert) == before


# -- evaluate and predict -------------------------------------------------------------------------


def test_evaluation_gives_back_the_scores_of_the_run(classifier: Path, texts: Any) -> None:
    summary = json.loads((classifier / "summary.json").read_text(encoding="utf-8"))
    again = pretune.evaluate(classifier, data=texts.test, train=texts.train)
    assert again["scores"] == summary["scores"]
    assert again["baselines"]["tfidf"] == summary["baselines"]["tfidf"]
    assert again["n"] == 16


def test_language_models_are_evaluated_on_text(bert: Path, llama: Path, texts: Any, tmp_path: Path) -> None:
    for run in (bert, llama):
        found = pretune.evaluate(run, data=texts.corpus, out=tmp_path / "scores.json")
        assert 0 < found["scores"]["loss"]["value"] < 10
        assert found["pretraining_overlap"] > 50  # it is what they were trained on
        assert json.loads((tmp_path / "scores.json").read_text(encoding="utf-8")) == found


def test_a_masked_model_is_not_scored_as_a_classifier(bert: Path, texts: Any) -> None:
    with pytest.raises(UnsupportedError, match=r"masked_lm.*classification.*fine-tune"):
        pretune.evaluate(bert, data=texts.test, task="classification")


def test_predictions_keep_the_order_and_count_the_bad(classifier: Path, texts: Any, tmp_path: Path) -> None:
    good = rows(texts.test)
    lines = [json.dumps(row, ensure_ascii=False) for row in good]
    lines[3:3], lines[9:9] = ["{not json"], ['{"text": ""}', '{"other": 1}']
    data = tmp_path / "some.jsonl"
    data.write_text("\n".join(lines) + "\n", encoding="utf-8")
    notes = small.Notes()
    summary = pretune.predict(classifier, data=data, out=tmp_path / "said.jsonl", reporter=notes)
    assert (summary["records"], summary["bad"]) == (16, 3)
    assert any("3 bad" in said and "some.jsonl:4" in said for said in notes.said)
    said = rows(tmp_path / "said.jsonl")
    assert [row["text"] for row in said] == [row["text"] for row in good]
    whole = pretune.predict(classifier, data=texts.test, out=tmp_path / "whole.jsonl")
    assert whole["bad"] == 0
    assert rows(tmp_path / "whole.jsonl") == said
    run = rows(classifier / "predictions.jsonl")
    assert [row["label"] for row in said] == [row["prediction"] for row in run]
    assert all(abs(row["confidence"] + sum(row["alternatives"].values()) - 1) < 1e-5 for row in said)


def test_a_text_without_a_mask_is_a_bad_record_among_others(bert: Path, tmp_path: Path) -> None:
    data = tmp_path / "masks.jsonl"
    data.write_text(
        '{"text": "The [MASK]."}\n{"text": "no gap"}\n{"text": "士兵[MASK]城堡"}\n', encoding="utf-8"
    )
    summary = pretune.predict(bert, data=data, out=tmp_path / "said.jsonl")
    assert (summary["records"], summary["bad"]) == (2, 1)
    assert [row["text"] for row in rows(tmp_path / "said.jsonl")] == ["The [MASK].", "士兵[MASK]城堡"]


def test_overlap_with_the_pretraining_text_is_said(bert: Path, texts: Any, tmp_path: Path) -> None:
    known = rows(texts.corpus)[:2]
    data = tmp_path / "test.jsonl"
    tests = [*rows(texts.test), *({"text": row["text"], "label": "war"} for row in known)]
    data.write_text("\n".join(json.dumps(row) for row in tests) + "\n", encoding="utf-8")
    notes = small.Notes()
    result = pretune.finetune(
        bert, train=texts.train, validation=texts.validation, test=data, budget="1 step",
        training={"evaluations": 1}, settings={"baselines": False}, out=tmp_path / "run", reporter=notes,
    )  # fmt: skip
    assert result.summary["pretraining_overlap"] >= 2
    assert any("mind:" in said and "test.jsonl:" in said for said in notes.said)
    assert "pretrained on" in result.report.read_text(encoding="utf-8")


# -- long texts -----------------------------------------------------------------------------------


def test_a_long_text_is_read_in_windows_to_its_end(classifier: Path) -> None:
    model = pretune.load(classifier)
    long = " ".join(SENTENCES * 8)
    other = long + " The shepherd saw the harvest in the meadow by the barn."
    record = model.build_task().encode
    from pretune.types import Record

    windows = record(Record({"text": long}, "text", 1), 0, model.reader, labelled=False)
    assert len(windows) > 1
    assert model(long).alternatives != model(other).alternatives


def test_a_longer_max_length_than_the_models_is_refused(bert: Path, texts: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"max_length = 64.*32 tokens at most"):
        pretune.finetune(bert, train=texts.train, settings={"max_length": 64}, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


# -- fill, generate, score ------------------------------------------------------------------------


def test_masks_are_filled(bert: Path) -> None:
    model = pretune.load(bert)
    found = model.fill("The [MASK] saw 城[MASK]。", top_k=3)
    assert [len(place) for place in found] == [3, 3]
    for place in found:
        assert [g.probability for g in place] == sorted((g.probability for g in place), reverse=True)
    assert found[0][0].text == f"The{found[0][0].token} saw 城[MASK]。"  # the mask takes its space along
    for text, fault in (("no gap", r"holds no \[MASK\]"), ("[MASK] " * 40, "the model reads 32")):
        with pytest.raises(UsageError, match=fault):
            model.fill(text)
    with pytest.raises(UsageError, match="causal_lm"):
        model.generate("The")
    with pytest.raises(UsageError, match="classification"):
        model.classify(["The"])


def test_text_is_continued(llama: Path) -> None:
    model = pretune.load(llama)
    assert model.generate("The", max_new_tokens=8, seed=1) == model.generate("The", max_new_tokens=8, seed=1)
    greedy = Sampling(temperature=0)
    short, long = (model.generate("士兵", max_new_tokens=n, sampling=greedy) for n in (4, 60))
    assert long.startswith(short.rstrip("\ufffd"))  # the text outgrows what the model reads at once
    assert model.generate("The", max_new_tokens=0) == ""
    assert isinstance(model(""), str)
    with pytest.raises(UsageError, match="masked_lm"):
        model.fill("The [MASK]")


def test_a_score_is_the_loss_of_transformers(llama: Path) -> None:
    model = pretune.load(llama)
    stock = transformers.AutoModelForCausalLM.from_pretrained(llama / "model").eval()
    reader = transformers.AutoTokenizer.from_pretrained(llama / "model")
    for text in SENTENCES:
        ids = torch.tensor([[*reader(text)["input_ids"], reader.eos_token_id]])
        with torch.inference_mode():
            loss = stock(ids, labels=ids).loss.item()
        score = model.score(text)
        assert score.nll == pytest.approx(loss * (ids.shape[1] - 1), abs=1e-3)
        assert -sum(value for _, value in score.tokens) == pytest.approx(score.nll)
        assert len(score.tokens) == ids.shape[1] - 1
    assert model.score(" ".join(SENTENCES * 8)).nll > score.nll
