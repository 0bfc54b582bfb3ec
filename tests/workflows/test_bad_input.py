"""Bad input is a clear error that leaves nothing behind; the mended input then works by the same call."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

import pretune
from pretune.errors import CheckpointError, ConfigError, DataError, PretuneError, UnsupportedError
from pretune.runtime import atomic_files
from pretune.text.training import train_byte_bpe

SETTINGS: dict[str, Any] = {
    "vocabulary_size": 320,
    "max_length": 32,
    "model": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2},
    "training": {"batch_tokens": 256, "evaluations": 1},
}
OPTIONS = (
    "vocabulary_size=320", "max_length=32", "model.hidden_size=32", "model.num_hidden_layers=2",
    "model.num_attention_heads=2", "training.batch_tokens=256", "training.evaluations=1",
)  # fmt: skip
Cli = Callable[..., Any]


def lines(path: Path, *rows: Any) -> Path:
    written = (row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows)
    path.write_text("".join(f"{row}\n" for row in written), encoding="utf-8")
    return path


def label(text: str, label: Any) -> dict[str, Any]:
    return {"text": text, "label": label}


def pretrain(corpus: Path | str, out: Path, **settings: Any) -> Any:
    return pretune.pretrain({**SETTINGS, **settings}, corpus=corpus, budget="1 step", out=out)


# -- text to pretrain on --------------------------------------------------------------------------

LATIN = "Müller ging über die Brücke.\n".encode("latin-1") * 20
CORPORA: dict[str, tuple[str, bytes, str]] = {
    "empty": ("a.txt", b"", r"a\.txt: the file is empty"),
    "white space": ("a.txt", b" \n\n \n", r"a\.txt: no records"),
    "binary": ("a.txt", b"MZ\0\1\2\xff" * 50, r"a\.txt: byte 2 is zero.*UTF-8"),
    "another encoding": ("a.txt", LATIN, r"a\.txt: byte 1 is no UTF-8; convert it.*iconv"),
    "lines of another encoding": (
        "a.jsonl", b'{"text": "' + "语料".encode("gb18030") + b'"}\n', r"a\.jsonl: byte 10 .*UTF-8.*iconv"
    ),
    "no JSON": ("a.jsonl", b"one\ntwo\n", r"2 of 2 records.*\n.*a\.jsonl:1: no JSON"),
    "a list": ("a.jsonl", b'["text"]\n', r"a\.jsonl:1: expected an object, found list"),
    "another column": ("a.jsonl", b'{"txt": "a"}\n', r"a\.jsonl: no column 'text'.*did you mean 'txt'"),
    "empty texts": ("a.jsonl", b'{"text": ""}\n{"text": "  "}\n', r"a\.jsonl:1: 'text' is empty"),
    "another kind": ("a.pdf", b"%PDF-1.7", r"a\.pdf: \.pdf: a file must be one of"),
    "one tiny document": ("a.txt", b"Hello there.", r"a\.txt: 1 document.*too little.*validation"),
    "duplicates only": (
        "a.jsonl", b'{"text": "the same"}\n' * 50, r"a\.jsonl: 1 document.*49 duplicates left out.*too little"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CORPORA)
def test_unusable_text_leaves_no_run_and_the_mended_text_works(
    case: str, texts: Any, tmp_path: Path, cli: Cli
) -> None:
    name, content, named = CORPORA[case]
    file, run = tmp_path / name, tmp_path / "run"
    file.write_bytes(content)
    with pytest.raises(DataError, match=named):
        pretrain(file, run)
    assert not run.exists()
    said = cli("pretrain", file, *OPTIONS, "--budget", "1 step", "--out", run)
    assert said.code == 1
    assert said.out == ""
    assert "pretune: " in said.err
    assert sorted(path.name for path in tmp_path.iterdir()) == [name]
    if case == "duplicates only":  # one of them goes all the way
        shutil.copyfile(texts.corpus, file)
        assert cli("pretrain", file, *OPTIONS, "--budget", "1 step", "--out", run).code == 0


def test_a_missing_file_or_an_empty_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.txt: no such file"):
        pretrain(tmp_path / "nowhere.txt", tmp_path / "run")
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match="folder: the folder holds no"):
        pretrain(tmp_path / "folder", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_missing_validation_file_is_named(texts: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.txt: no such file"):
        pretrain(texts.corpus, tmp_path / "run", validation=(str(tmp_path / "nowhere.txt"),))
    assert not (tmp_path / "run").exists()


def test_text_shorter_than_a_window_is_trained_on(tmp_path: Path) -> None:
    corpus = lines(tmp_path / "a.jsonl", *({"text": f"No. {n}."} for n in range(6)))
    assert pretrain(corpus, tmp_path / "run").summary["steps"] == 1


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_a_model_that_reads_very_little_is_finished_with_a_report(
    family: str, texts: Any, tmp_path: Path
) -> None:
    run = pretrain(texts.corpus, tmp_path / "run", max_length=8, family=family)
    assert run.report.exists()
    pretune.load(run.folder)


def test_a_few_bad_lines_are_left_out_and_said(texts: Any, tmp_path: Path, cli: Cli) -> None:
    corpus = tmp_path / "a.jsonl"
    corpus.write_bytes(b'{"text": 7}\nbroken\n' + texts.corpus.read_bytes())
    said = cli("pretrain", corpus, *OPTIONS, "--budget", "1 step", "--out", tmp_path / "run")
    assert said.code == 0
    assert "2 bad ones skipped" in said.err
    assert "a.jsonl:1: 'text' is int, not text" in said.err


# -- labelled records -----------------------------------------------------------------------------

BOTH = (label("soldier", "war"), label("barn", "farm"))


@pytest.mark.parametrize(
    ("part", "rows", "named"),
    [
        ("train", [label(f"text {n}", "war") for n in range(9)], r"train\.jsonl: only the label 'war'"),
        ("train", [{"text": "a", "lable": "b"}], r"train\.jsonl: no column 'label'.*did you mean 'lable'"),
        ("train", [label("a", ["x"]), label("b", ["y"])], r"train\.jsonl:1: 'label' is list, not text"),
        (
            "train",
            [label("", "war"), label("a", "")],
            r"train\.jsonl:1: 'text' is empty\n.*:2: 'label' is empty",
        ),
        ("train", [], r"train\.jsonl: the file is empty"),
        ("validation", [*BOTH, label("ship", "sea")], r"validation\.jsonl:3: the label 'sea'.*'farm', 'war'"),
        ("test", [*BOTH, label("ship", "sea")], r"test\.jsonl:3: the label 'sea'.*'farm', 'war'"),
        ("test", ["{", "["], r"test\.jsonl:1: no JSON"),
    ],
)
def test_unusable_records_leave_no_run_and_mended_ones_work(
    part: str, rows: list[Any], named: str, bert: Path, texts: Any, tmp_path: Path, cli: Cli
) -> None:
    files = {"train": texts.train, "validation": texts.validation, "test": texts.test}
    good, run = files[part], tmp_path / "run"
    files[part] = lines(tmp_path / f"{part}.jsonl", *rows)
    with pytest.raises(DataError, match=named):
        pretune.finetune(bert, **files, budget="1 step", out=run)
    assert not run.exists()
    words = [word for name, path in files.items() for word in (f"--{name}", path)]
    command = ["finetune", bert, *words, "--budget", "1 step", "--out", run, "baselines=false"]
    said = cli(*command)
    assert (said.code, said.out) == (1, "")
    assert not run.exists()
    if part == "test" and len(rows) == 3:  # one of them goes all the way
        shutil.copyfile(good, files[part])
        assert cli(*command).code == 0


def test_evaluation_names_a_label_that_the_model_does_not_know(classifier: Path, tmp_path: Path) -> None:
    data = lines(tmp_path / "a.csv", "text,label", "soldier,war", "ship,sea")
    with pytest.raises(DataError, match=r"a\.csv:3: the label 'sea'"):
        pretune.evaluate(classifier, data=data, out=tmp_path / "scores.json")
    assert not (tmp_path / "scores.json").exists()


def test_prediction_of_unusable_data_writes_nothing(classifier: Path, tmp_path: Path, cli: Cli) -> None:
    data = lines(tmp_path / "a.jsonl", {"words": "a"})
    said = cli("predict", classifier, "--data", data, "--out", tmp_path / "said.jsonl")
    assert said.code == 1
    assert "a.jsonl: no column 'text'" in said.err
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]
    lines(data, {"text": "a"})
    assert cli("predict", classifier, "--data", data, "--out", tmp_path / "said.jsonl").code == 0


# -- where the output goes ------------------------------------------------------------------------


def test_an_output_that_cannot_be_is_named(classifier: Path, texts: Any, tmp_path: Path, cli: Cli) -> None:
    file, full = tmp_path / "file", tmp_path / "full"
    file.write_text("mine")
    full.mkdir()
    (full / "notes.txt").write_text("mine")
    for out, named in ((file, "cannot be made"), (file / "run", "cannot be made"), (full, r"notes.txt")):
        for words in (("pretrain", texts.corpus), ("finetune", classifier, "--train", texts.train)):
            said = cli(*words, "--out", out)
            assert said.code == 2, said
            assert str(out) in said.err
            assert named in said.err
            assert "--out" in said.err
    for out, code in ((full, 2), (file / "said.jsonl", 1)):
        said = cli("predict", classifier, "--data", texts.test, "--out", out)
        assert said.code == code
        assert str(out) in said.err
    assert cli("evaluate", classifier, "--data", texts.test, "--out", file / "scores.json").code == 1
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "full", "notes.txt"]
    assert file.read_text() == "mine"


# -- models ---------------------------------------------------------------------------------------


@pytest.fixture
def folder(bert: Path, tmp_path: Path) -> Path:
    """A copy of a model folder of ours, to be damaged."""
    return Path(shutil.copytree(bert / "model", tmp_path / "model"))


def unsealed(folder: Path) -> Path:
    (folder / atomic_files.MANIFEST).unlink()
    return folder


def change(folder: Path, name: str, **values: Any) -> None:
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | values), encoding="utf-8")


@pytest.mark.parametrize(
    "name",
    ["model.safetensors", "config.json", "tokenizer.json", "pretune.json", "text_fingerprints.safetensors"],
)
def test_a_flipped_bit_in_a_model_of_ours_is_found(folder: Path, name: str) -> None:
    path = folder / name
    content = bytearray(path.read_bytes())
    content[len(content) * 2 // 3] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(CheckpointError, match=rf"{name}: its content changed.*remove manifest\.json"):
        pretune.load(folder)


def test_a_cut_or_missing_file_of_ours_is_named(folder: Path, cli: Cli) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    said = cli("predict", folder, "--text", "The [MASK]")
    assert said.code == 1
    assert f"{path}: " in said.err
    assert "bytes where" in said.err
    path.unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors: missing"):
        pretune.load(folder)


def test_the_card_of_a_model_may_be_edited(folder: Path) -> None:
    (folder / "README.md").write_text("my words")
    pretune.load(folder)


@pytest.mark.parametrize("text", ["", "[]", '{"files": [], "schema": 1, "about": {}}', '{"schema": 1}'])
def test_a_damaged_manifest_is_named(folder: Path, text: str) -> None:
    (folder / atomic_files.MANIFEST).write_text(text)
    with pytest.raises(CheckpointError, match=r"manifest\.json: damaged"):
        pretune.load(folder)


def test_a_manifest_stays_inside_its_folder(folder: Path) -> None:
    path = folder / atomic_files.MANIFEST
    manifest = json.loads(path.read_text(encoding="utf-8")) | {
        "files": {"../../outside": {"size": 1, "sha256": ""}}
    }
    del manifest["sha256"]  # whoever means harm vouches for it, too
    digest = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
    path.write_text(json.dumps(manifest | {"sha256": digest}), encoding="utf-8")
    with pytest.raises(CheckpointError, match="outside the folder"):
        pretune.load(folder)


@pytest.mark.parametrize("kept", [0, 7, 100, -1])
def test_cut_weights_without_a_manifest_are_found(folder: Path, kept: int) -> None:
    path = unsealed(folder) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match=r"model\.safetensors: damaged or cut off"):
        pretune.load(folder)


def test_a_pickle_is_refused(folder: Path, cli: Cli) -> None:
    (unsealed(folder) / "model.safetensors").rename(folder / "pytorch_model.bin")
    said = cli("evaluate", folder, "--data", folder / "README.md")
    assert said.code == 1
    assert "pickle" in said.err


@pytest.mark.parametrize(
    "values",
    [
        {"vocab_size": 10**12},
        {"vocab_size": 10**30},
        {"hidden_size": 2**40},
        {"hidden_size": 10**15, "num_attention_heads": 1},
        {"intermediate_size": 10**11},
        {"max_position_embeddings": 10**11},
        {"type_vocab_size": 10**11},
        {"num_hidden_layers": 10**9},
        {"num_hidden_layers": 7},
        {"hidden_size": -32},
        {"hidden_size": "wide"},
        {"num_attention_heads": 5},
    ],
)
def test_absurd_sizes_are_refused_before_memory_is_taken(folder: Path, values: dict[str, Any]) -> None:
    change(unsealed(folder), "config.json", **values)
    with pytest.raises(CheckpointError, match=str(folder)):
        pretune.load(folder)


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"model_type": "mambo"}, "mambo"),
        ({"model_type": None}, "model_type"),
        ({"model_type": ["bert"]}, "model_type"),
        ({"id2label": {"a": "b"}}, "id2label"),
        ({"id2label": {"0": "a", "9": "b"}}, "id2label"),
        ({"id2label": ["a"]}, "id2label"),
    ],
)
def test_a_config_that_makes_no_sense_is_named(folder: Path, values: dict[str, Any], named: str) -> None:
    change(unsealed(folder), "config.json", **values)
    with pytest.raises((CheckpointError, UnsupportedError), match=f"{folder}.*{named}"):
        pretune.load(folder)


@pytest.mark.parametrize("length", ["long", 0, -3, 10**9, 1.5])
def test_a_length_beyond_the_positions_is_refused(folder: Path, length: Any) -> None:
    change(unsealed(folder), "pretune.json", max_length=length)
    with pytest.raises(CheckpointError, match=r"pretune\.json: max_length"):
        pretune.load(folder)


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[1]", b"{" * 50, b"\xff\xfe\0\0", b'{"model": {"type": "BPE"}}']
)
def test_a_damaged_tokenizer_is_named(folder: Path, texts: Any, tmp_path: Path, content: bytes) -> None:
    (unsealed(folder) / "tokenizer.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"tokenizer\.json"):
        pretune.load(folder)
    with pytest.raises(CheckpointError, match=r"tokenizer\.json"):
        pretrain(texts.corpus, tmp_path / "run", tokenizer=str(folder))
    assert not (tmp_path / "run").exists()


def test_a_tokenizer_larger_than_the_network_is_refused(folder: Path, texts: Any) -> None:
    bigger = train_byte_bpe([texts.corpus.read_text(encoding="utf-8")], 400)
    bigger.save(unsealed(folder))
    with pytest.raises(CheckpointError, match=r"its tokenizer has .* tokens, its network only"):
        pretune.load(folder)


def test_a_tensor_of_another_shape_is_named(folder: Path) -> None:
    path = unsealed(folder) / "model.safetensors"
    tensors = load_file(path)
    name = "bert.embeddings.position_embeddings.weight"
    save_file({**tensors, name: tensors[name][:5].clone()}, path)
    with pytest.raises(CheckpointError, match=rf"{folder}: embeddings\.position\.weight: shape \(5, 32\)"):
        pretune.load(folder)


def test_no_model_is_said_with_the_way_out(texts: Any, tmp_path: Path, cli: Cli) -> None:
    for path, named in (
        (tmp_path / "no", "no such file"),
        (tmp_path, "no model"),
        (texts.train, "is a file"),
    ):
        said = cli("predict", path, "--text", "a")
        assert said.code == 1
        assert f"{path}: " in said.err
        assert named in said.err


# -- settings that do not fit together -------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"model": {**SETTINGS["model"], "vocab_size": 100}}, "vocab_size = 100: the tokenizer has"),
        ({"model": {**SETTINGS["model"], "max_position_embeddings": 8}}, "max_length is 32"),
        ({"model": {"hidden_size": 1 << 20, "num_attention_heads": 2}}, "GiB to train, this machine has"),
        ({"model": {"hidden_size": 10**12, "num_attention_heads": 1}}, "no network has these sizes"),
        ({"training": {"batch_tokens": 10, "batch_examples": 10}}, "one of batch_tokens and batch_examples"),
        ({"validation_fraction": 2}, "validation_fraction = 2"),
        ({"tokenizer": "nowhere.json"}, r"nowhere\.json: no tokenizer"),
    ],
)
def test_settings_that_do_not_fit_leave_no_run(
    settings: dict[str, Any], named: str, texts: Any, tmp_path: Path
) -> None:
    with pytest.raises(PretuneError, match=named):
        pretrain(texts.corpus, tmp_path / "run", **settings)
    assert not (tmp_path / "run").exists()


def test_a_tokenizer_without_a_mask_cannot_train_a_masked_model(texts: Any, tmp_path: Path) -> None:
    made = train_byte_bpe([texts.corpus.read_text(encoding="utf-8")], 320)
    made.save(tmp_path / "tokenizer")
    change(tmp_path / "tokenizer", "tokenizer_config.json", mask_token=None)
    given = str(tmp_path / "tokenizer")
    with pytest.raises(UnsupportedError, match=rf"{given}: masked_lm needs a tokenizer with a mask token"):
        pretrain(texts.corpus, tmp_path / "run", tokenizer=given)
    assert not (tmp_path / "run").exists()
    assert pretrain(texts.corpus, tmp_path / "run", tokenizer=given, family="llama").summary["steps"] == 1


def test_another_setting_works_after_a_start_that_failed(texts: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        pretrain(texts.corpus, tmp_path / "run", model={**SETTINGS["model"], "vocab_size": 100})
    assert pretrain(texts.corpus, tmp_path / "run").summary["steps"] == 1
