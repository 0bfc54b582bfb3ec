"""A mixture of objectives and texts in one run: what it learns, says, repeats, and refuses."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import small
import torch
import transformers
import yaml

import pretune
from pretune.checkpoint import hub
from pretune.config import apply_overrides
from pretune.data.corpus.build import TokenizedCorpus
from pretune.errors import ConfigError, Interrupted, UnsupportedError
from pretune.training import trainer as trainer_module
from pretune.training.duration import parse_duration
from pretune.workflows.pretrain.corpora import build_corpora
from pretune.workflows.pretrain.pretrain import dry_run, resolve
from pretune.workflows.runs.runs import show_run

SETTINGS: dict[str, Any] = {
    "vocabulary_size": 350,
    "max_length": 32,
    "validation_fraction": 0.1,
    "model": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2},
    "training": {"batch_tokens": 256, "evaluations": 2},
}


@pytest.fixture(scope="module")
def corpora(texts: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Two files with half of the documents each."""
    folder = tmp_path_factory.mktemp("corpora")
    lines = texts.corpus.read_text(encoding="utf-8").splitlines(keepends=True)
    for name, half in (("first", lines[:30]), ("second", lines[30:])):
        (folder / f"{name}.jsonl").write_text("".join(half), encoding="utf-8")
    return {name: str(folder / f"{name}.jsonl") for name in ("first", "second")}


def settings(corpora: dict[str, str], **others: Any) -> dict[str, Any]:
    parts = [
        {"objective": "causal_lm", "corpus": [corpora["first"]], "weight": 0.6},
        {"objective": "prefix_lm", "corpus": corpora["second"], "weight": 0.4},
    ]
    return {**SETTINGS, "family": "llama", "mixture": parts, "language": "zh", **others}


def log_of(run: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


@pytest.fixture(scope="module")
def mixture(corpora: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "mixture"
    return pretune.pretrain(settings(corpora), budget="60 steps", out=out).folder


@pytest.mark.slow
def test_every_part_passes_its_unigram(mixture: Path) -> None:
    summary = json.loads((mixture / "summary.json").read_text())
    assert list(summary["mixture"]) == ["causal_lm", "prefix_lm"]
    for name, share in (("causal_lm", 0.6), ("prefix_lm", 0.4)):
        part = summary["mixture"][name]
        assert part["loss"] < part["unigram_loss"] - 1.0
        assert part["share"] == share
        assert f"n={part['num_targets']}|" in part["signature"]
    assert summary["loss"] == summary["mixture"]["causal_lm"]["loss"]
    assert summary["held_out_fingerprint"] == summary["mixture"]["causal_lm"]["held_out_fingerprint"]
    assert summary["held_out_fingerprint"] != summary["mixture"]["prefix_lm"]["held_out_fingerprint"]
    checks = [row["scores"] for row in log_of(mixture) if row["type"] == "evaluation"]
    assert all(next(iter(scores)) == "loss/causal_lm" and "loss/prefix_lm" in scores for scores in checks)
    best = min(scores["loss/causal_lm"] for scores in checks)
    assert summary["loss"] == pytest.approx(best)


@pytest.mark.slow
def test_what_it_leaves_knows_all_texts(mixture: Path, corpora: dict[str, str]) -> None:
    model = pretune.load(mixture)
    assert model.fingerprints is not None
    for path in corpora.values():
        texts = [json.loads(line)["text"] for line in Path(path).read_text(encoding="utf-8").splitlines()]
        assert len(model.fingerprints.find_overlapping(texts)) > 0.8 * len(texts)  # all but the held-out ones
    card, page = (mixture / "model" / "README.md").read_text(), (mixture / "report.html").read_text()
    for name in ("first.jsonl", "second.jsonl"):
        assert name in card
        assert name in page
    assert "60 %" in page
    assert "causal_lm, prefix_lm" in page
    shown = show_run(mixture)
    assert list(shown["scores"])[:1] == ["loss"]
    for name in ("causal_lm", "prefix_lm"):
        assert shown["scores"][f"loss/{name}"]["value"] < shown["baselines"][f"unigram/{name}"]
    stock = transformers.AutoModelForCausalLM.from_pretrained(mixture / "model")
    assert type(stock).__name__ in hub.read_config(mixture / "model")["architectures"]


@pytest.mark.slow
def test_a_mixture_resumes_exactly(
    mixture: Path, corpora: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    enter, requests, passes = trainer_module.StopRequest.__enter__, [], [0]
    backward = torch.autograd.backward

    def entered(request: Any) -> Any:
        requests.append(request)
        return enter(request)

    def counted(*arguments: Any, **options: Any) -> None:
        backward(*arguments, **options)
        passes[0] += 1
        requests[-1].should_stop |= passes[0] == 41

    with monkeypatch.context() as patch:
        patch.setattr(trainer_module.StopRequest, "__enter__", entered)
        patch.setattr(torch.autograd, "backward", counted)
        with pytest.raises(Interrupted):
            pretune.pretrain(settings(corpora), budget="60 steps", out=tmp_path / "run")
    assert 0 < sum(row["type"] == "step" for row in log_of(tmp_path / "run")) < 41
    pretune.pretrain(settings(corpora), budget="60 steps", out=tmp_path / "run")
    assert log_of(tmp_path / "run") == log_of(mixture)
    for name in ("model", "checkpoints/step-00000060"):
        ours, theirs = (hub.read_tensors(run / name) for run in (tmp_path / "run", mixture))
        assert [key for key in theirs if not torch.equal(ours[key], theirs[key])] == []


@pytest.mark.slow
def test_a_mixture_of_one_is_a_run_without_one(corpora: dict[str, str], tmp_path: Path) -> None:
    common = {**SETTINGS, "family": "bert"}
    options = {"mask_rate": 0.3, "final_mask_rate": 0.15}
    plain = {**common, "corpus": corpora["first"], "objective": "masked_lm", "objective_options": options}
    [only] = [
        {"objective": "masked_lm", "objective_options": options, "corpus": corpora["first"], "weight": 7}
    ]
    runs = [
        pretune.pretrain(given, budget="6 steps", out=tmp_path / name).folder
        for name, given in (("plain", plain), ("mixed", {**common, "mixture": [only]}))
    ]
    for name in ("model/model.safetensors", "config.yaml", "plan.json"):
        assert (runs[0] / name).read_bytes() == (runs[1] / name).read_bytes()
    assert log_of(runs[0]) == log_of(runs[1])


@pytest.mark.slow
def test_heads_of_all_parts_are_trained_and_saved_together(corpora: dict[str, str], tmp_path: Path) -> None:
    parts = [
        {"objective": "masked_lm", "corpus": corpora["first"], "objective_options": {"whole_words": True}},
        {"objective": "masked_lm+sentence_order", "corpus": corpora["second"], "name": "order"},
    ]
    given = {**SETTINGS, "family": "bert", "mixture": parts}
    run = pretune.pretrain(given, budget="12 steps", out=tmp_path / "run").folder
    assert hub.read_config(run / "model")["architectures"] == ["BertForPreTraining"]
    summary = json.loads((run / "summary.json").read_text())
    assert 0 <= summary["mixture"]["order"]["next_sentence_accuracy"] <= 1
    assert "next_sentence_accuracy" not in summary["mixture"]["masked_lm"]
    onward = {**SETTINGS, "mixture": parts, "start_from": str(run)}
    del onward["vocabulary_size"], onward["model"]
    further = pretune.pretrain(onward, budget="2 steps", out=tmp_path / "on").summary
    assert set(further["initial_scores"]) >= {"loss"}
    assert further["new_heads"] == []


@pytest.mark.slow
def test_denoisers_of_an_encoder_decoder_are_mixed(corpora: dict[str, str], tmp_path: Path) -> None:
    """As Tay et al. 2023 (UL2) mix short spans, long spans and prefixes: the sentinels are there for all."""
    parts = [
        {"objective": "span_corruption", "corpus": corpora["first"]},
        {"objective": "span_corruption", "corpus": corpora["first"], "name": "extreme",
         "objective_options": {"noise_density": 0.5, "mean_span_length": 8}},
        {"objective": "prefix_lm", "corpus": corpora["second"]},
    ]  # fmt: skip
    run = pretune.pretrain({**SETTINGS, "mixture": parts}, budget="6 steps", out=tmp_path / "run")
    assert run.summary["family"] == "t5"
    assert list(run.summary["mixture"]) == ["span_corruption", "extreme", "prefix_lm"]
    # Both are scored by default settings, on the same text.
    first, second, _ = run.summary["mixture"].values()
    assert (first["held_out_fingerprint"], first["loss"]) == (second["held_out_fingerprint"], second["loss"])
    assert len(pretune.load(run.folder).tokenizer.specials.sentinel_ids) == 100
    assert hub.read_config(run.model)["architectures"] == ["T5ForConditionalGeneration"]


@pytest.mark.slow
def test_the_command_line_takes_a_mixture(
    corpora: dict[str, str], cli: Callable[..., Any], tmp_path: Path
) -> None:
    path = tmp_path / "mixture.yaml"
    path.write_text(yaml.safe_dump(settings(corpora)), encoding="utf-8")
    said = cli("pretrain", "--config", path, "--dry-run", "mixture.1.weight=0.5")
    assert said.code == 0, said.err
    assert f"causal_lm: corpus {corpora['first']}, documents 30" in said.out
    said = cli("pretrain", "--config", path, "--out", tmp_path / "run", "--budget", "2 steps",
               "mixture.1.weight=0.6")  # fmt: skip
    assert said.code == 0, said.err
    assert "prefix_lm: " in said.out
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert [part["share"] for part in summary["mixture"].values()] == [0.5, 0.5]
    assert pretune.evaluate(tmp_path / "run", data=corpora["second"])["scores"]["loss"]["value"] > 0


def prepared(given: dict[str, Any], folder: Path) -> tuple[tuple[TokenizedCorpus, ...], list[str]]:
    notes = small.Notes()
    made = build_corpora(resolve(given, {}), folder, tokenizer=None, max_vocabulary_size=None, reporter=notes)
    return made, notes.said


def test_all_parts_have_one_tokenizer_which_is_trained_once(corpora: dict[str, str], tmp_path: Path) -> None:
    texts, said = prepared(settings(corpora), tmp_path / "data")
    assert len({text.tokenizer.fingerprint for text in texts}) == 1
    assert sum("training a tokenizer" in line for line in said) == 1
    assert not any("mind:" in line for line in said)
    assert not list(tmp_path.rglob("*.partial"))
    again, said = prepared(settings(corpora), tmp_path / "data")
    assert not any("training a tokenizer" in line for line in said)
    assert [text.train.fingerprint for text in again] == [text.train.fingerprint for text in texts]
    # A part that was prepared is taken as it is, and its tokenizer for the others.
    parts = [{"corpus": str(tmp_path / "data" / "components" / "prefix_lm")}, {"corpus": corpora["first"]}]
    further, said = prepared({**settings(corpora), "mixture": parts}, tmp_path / "further")
    assert further[0].train.fingerprint == texts[1].train.fingerprint
    assert {text.tokenizer.fingerprint for text in further} == {texts[0].tokenizer.fingerprint}


def test_held_out_text_that_another_part_trains_on_is_named(corpora: dict[str, str], tmp_path: Path) -> None:
    given = settings(corpora)
    given["mixture"][1]["validation"] = [corpora["first"]]
    _, said = prepared(given, tmp_path / "data")
    [mind] = [line for line in said if "mind:" in line]
    assert re.search(
        r"of the 30 held-out documents of prefix_lm stand in the text that causal_lm trains", mind
    )


# -- settings -------------------------------------------------------------------------------------


def part(objective: str | None = None, **others: Any) -> dict[str, Any]:
    return {"corpus": ["x.jsonl"], **({} if objective is None else {"objective": objective}), **others}


def test_parts_have_names_of_their_own_and_the_family_is_found() -> None:
    resolved = resolve(
        {"mixture": [part("clm"), part("prefix_lm"), part("causal_lm"), part("clm", name="x")]}, {}
    )
    assert resolved.family == "llama"
    assert [p.name for p in resolved.mixture] == ["causal_lm", "prefix_lm", "causal_lm_2", "x"]
    assert resolve(resolved, {}) == resolved
    assert [p.objective for p in resolve({"mixture": [part(), part()]}, {}).components] == ["masked_lm"] * 2
    denoisers = resolve({"mixture": [part("span_corruption"), part("prefix_lm"), part("denoising")]}, {})
    assert denoisers.family == "t5"


REFUSED: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"mixture": [part(), part("classification")]}, UnsupportedError,
     r"mixture\.1\.objective = 'classification'.*learnt from labelled records: pretune finetune"),
    ({"family": "llama", "mixture": [part("causal_lm"), part("masked_lm")]}, UnsupportedError,
     r"mixture\.1\.objective = 'masked_lm': family 'llama' pretrains by .*by this bert, "),
    ({"mixture": [part(), part()], "corpus": ["y"]}, ConfigError, "corpus = .*stands with each part"),
    ({"mixture": [part(), part()], "objective": "causal_lm"}, ConfigError, "objective = 'causal_lm'"),
    ({"mixture": [part(), part(objective_options={"rte": 0.3})]}, ConfigError,
     r"mixture\.1\.objective_options.*no key 'rte'"),
    ({"mixture": [part(name="a"), part(name="a")]}, ConfigError, "2 parts have name = 'a'"),
    ({"mixture": [part(), part(name="../a")]}, ConfigError, r"mixture\.1\.name"),
    ({"mixture": [part(), part(weight=0)]}, ConfigError, r"mixture\.1\.weight = 0"),
    ({"mixture": [part(), {"corpus": []}]}, ConfigError, r"mixture\.1\.corpus = \[\]: is empty"),
    ({"mixture": [part(), part(wieght=1)]}, ConfigError, "no key 'mixture.1.wieght'.*weight"),
    ({"mixture": [part(), part()], "training": {"parallel": "fsdp"}}, UnsupportedError, "parallel=ddp"),
    ({"mixture": [part(), part()], "distillation": {"teacher": "t"}}, UnsupportedError, "beside a mixture"),
    ({"mixture": []}, ConfigError, "corpus is empty"),
]  # fmt: skip


@pytest.mark.parametrize(("given", "error", "words"), REFUSED)
def test_what_a_mixture_cannot_be_is_refused(
    given: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        resolve(given, {})


def test_a_key_reaches_into_a_list() -> None:
    given = {"mixture": [part(weight=1.0), part(weight=2.0)]}
    assert apply_overrides(given, ["mixture.1.weight=0.5"])["mixture"][1]["weight"] == 0.5
    assert given["mixture"][1]["weight"] == 2.0
    for key in ("mixture.2.weight=1", "mixture.one.weight=1", "mixture.2=1"):
        with pytest.raises(ConfigError, match="has 2 items"):
            apply_overrides(given, [key])


def test_a_rehearsal_counts_the_text_of_each_part(corpora: dict[str, str]) -> None:
    check = dry_run(resolve(settings(corpora, budget="3 epochs"), {}))
    assert [part["documents"] for part in check["mixture"].values()] == [30, 30]
    assert check["length"] == str(parse_duration("3 epochs"))
