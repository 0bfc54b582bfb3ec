"""A tokenizer is trained, saved, measured and shown, from Python and from the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForMaskedLM, AutoTokenizer

import pretune
from pretune.errors import CheckpointError, DataError
from pretune.text.tokenizer import Tokenizer
from pretune.workflows.tokenizer import inspect_tokenizers, show_tokens, token_lines, train_tokenizer

SETTINGS: dict[str, Any] = {
    "max_length": 32,
    "model": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2},
    "training": {"batch_tokens": 256, "evaluations": 2},
}


@pytest.fixture(scope="module")
def folders(texts: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    out = tmp_path_factory.mktemp("tokenizers")
    for kind in ("bpe", "wordpiece", "unigram"):
        train_tokenizer(texts.corpus, out / kind, algorithm=kind, vocabulary_size=400)
    return {kind: out / kind for kind in ("bpe", "wordpiece", "unigram")}


def test_each_kind_is_measured_in_both_languages(folders: dict[str, Path], tmp_path: Path) -> None:
    text = tmp_path / "text.jsonl"
    lines = ["The soldier saw the castle.", "The  soldier!", "士兵看见城堡，第3年。", "士兵 龘 ok 不"]
    text.write_text("".join(json.dumps({"text": line}) + "\n" for line in lines))
    found = inspect_tokenizers(list(folders.values()), [text])
    parts = {
        kind: {part.language: part for part in found[str(folder)].languages}
        for kind, folder in folders.items()
    }
    for kind, folder in folders.items():
        tokenizer = Tokenizer.load(folder)
        tokens = sum(len(tokenizer.encode(line).ids) for line in lines[:2])
        other = parts[kind]["other"]
        assert (other.texts, other.tokens) == (2, tokens)
        assert other.tokens_per_word == pytest.approx(tokens / 7, abs=1e-4)
        assert other.bytes_per_token == pytest.approx(sum(len(t) for t in lines[:2]) / tokens, abs=1e-4)
        ids = {i for line in lines for i in tokenizer.encode(line).ids.tolist()}
        plain = tokenizer.vocabulary_size - len(tokenizer.specials.all_ids)
        assert found[str(folder)].unused_tokens == plain - len(ids - set(tokenizer.specials.all_ids))
    assert parts["bpe"]["zh"].round_trip_fraction == parts["unigram"]["other"].round_trip_fraction == 1.0
    assert parts["wordpiece"]["other"].round_trip_fraction == 0.5, "two spaces come back as one"
    assert (
        parts["wordpiece"]["zh"].unk_fraction
        > 0
        == parts["bpe"]["zh"].unk_fraction
        == parts["unigram"]["zh"].unk_fraction
    )
    assert "龘" in parts["wordpiece"]["zh"].uncovered_examples
    assert "龘" in parts["unigram"]["zh"].uncovered_examples
    assert not parts["bpe"]["zh"].differences
    assert parts["wordpiece"]["zh"].differences[0]["text"] == "士兵看见城堡，第3年。"


def test_tokens_are_shown_with_their_words(folders: dict[str, Path]) -> None:
    shown = show_tokens([folders["wordpiece"]], "The captains。\n城堡")
    (line,) = [line for line in token_lines(shown) if line.startswith("  |")]
    assert line.startswith("  |The|captain·s|。|城·堡|")
    tokens = shown[str(folders["wordpiece"])]
    assert [t["token"] for t in tokens if t["sentence_start"]] == ["The", "城"]


def test_the_folder_is_whole_or_not_there(texts: Any, folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is there already"):
        train_tokenizer(texts.corpus, folders["bpe"])
    with pytest.raises(DataError, match="no such file"):
        train_tokenizer(tmp_path / "none.txt", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(CheckpointError, match="no tokenizer"):
        inspect_tokenizers([tmp_path], [texts.corpus])
    assert len(AutoTokenizer.from_pretrained(folders["unigram"])) <= 400


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "kind", "size"),
    [("bert", "wordpiece", 400), ("llama", "unigram", 350), ("llama", "bpe", "auto")],
)
def test_a_model_is_pretrained_with_each_kind(
    family: str, kind: str, size: Any, texts: Any, tmp_path: Path
) -> None:
    settings = {**SETTINGS, "tokenizer_algorithm": kind, "vocabulary_size": size}
    run = pretune.pretrain(
        settings, corpus=texts.corpus, family=family, budget="4 steps", out=tmp_path / "run"
    )
    tokenizer = Tokenizer.load(run.model)
    types = {"bpe": "BPE", "wordpiece": "WordPiece", "unigram": "Unigram"}
    assert tokenizer.to_dict()["model"]["type"] == types[kind]
    stock = AutoTokenizer.from_pretrained(run.model)
    text = "The soldier saw 城堡。"
    framed, _ = tokenizer.add_special_tokens(tokenizer.encode(text).ids)
    assert stock(text)["input_ids"] == framed.tolist()
    if family == "bert":
        model = AutoModelForMaskedLM.from_pretrained(run.model)
        assert model(**stock(text, return_tensors="pt")).logits.shape[-1] == tokenizer.vocabulary_size
        assert (run.model / "vocab.txt").is_file()


def test_the_command_line_trains_and_inspects(texts: Any, tmp_path: Path, cli: Callable[..., Any]) -> None:
    out = tmp_path / "unigram"
    said = cli("tokenizer", "train", texts.corpus, "--algorithm", "unigram", "--vocabulary-size", "auto",
               "--sentinels", 7, "--out", out, "--json")  # fmt: skip
    assert said.code == 0, said.err
    found = json.loads(said.out)
    assert found["vocabulary_size"] == Tokenizer.load(out).vocabulary_size <= 1024 + 7
    assert len(Tokenizer.load(out).specials.sentinel_ids) == 7
    assert found["advice"]["vocabulary_size"] == 1024
    assert {part["language"] for part in found["inspection"]["languages"]} == {"zh", "other"}
    said = cli("tokenizer", "inspect", out, out / "tokenizer.json", "--data", texts.corpus)
    assert said.code == 0, said.err
    rows = said.out.splitlines()
    assert rows[0].split()[:2] == ["tokenizer", "vocabulary"]
    assert len({len(row) for row in rows[:5]}) == 1, "the table is aligned"
    said = cli("tokenizer", "inspect", out, "--text", "The siege", "--json")
    assert "".join(t["text"] for t in json.loads(said.out)[str(out)]) == "The siege"


@pytest.mark.parametrize(
    ("words", "code", "reason"),
    [
        (("train", "CORPUS", "--algorithm", "wordpeice", "--out", "OUT"), 2, "did you mean 'wordpiece'?"),
        (("train", "CORPUS", "--vocabulary-size", "many", "--out", "OUT"), 2, "a number of tokens, or auto"),
        (("train", "CORPUS", "--vocabulary-size", "12", "--out", "OUT"), 2, "needs at least 261"),
        (
            ("train", "CORPUS", "--sentinels", "-1", "--out", "OUT"),
            2,
            "sentinels = -1: must be greater than or equal to 0",
        ),
        (("train", "CORPUS"), 2, "--out"),
        (("inspect", "OUT", "--data", "CORPUS"), 1, "no tokenizer"),
        (("inspect", "OUT"), 2, "--text"),
    ],
)
def test_wrong_use_says_why_and_writes_nothing(
    words: tuple[str, ...], code: int, reason: str, texts: Any, tmp_path: Path, cli: Callable[..., Any]
) -> None:
    places = {"CORPUS": texts.corpus, "OUT": tmp_path / "out"}
    said = cli("tokenizer", *(places.get(word, word) for word in words))
    assert said.code == code
    assert reason in said.err
    assert not (tmp_path / "out").exists()
