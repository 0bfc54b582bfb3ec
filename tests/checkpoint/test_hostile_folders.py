"""Model folders made to abort, hang or fill the memory are refused by the name of their file."""

from __future__ import annotations

import json
import os
import shutil
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import pretune
from pretune.checkpoint import gguf_header
from pretune.errors import CheckpointError, DataError, PretuneError
from pretune.model.model import Model
from pretune.registry import find
from pretune.runtime import atomic_files
from pretune.runtime.json_files import read_json
from pretune.text.tokenizer import Tokenizer, template_for
from pretune.text.training import train_byte_bpe

SHAPE = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}


def made(folder: Path, family: str, head: str, *, frame: bool = True) -> Path:
    """A tiny folder as another program would have written it."""
    traits = find("families", family).TRAITS
    tokenizer = train_byte_bpe(["the king sent word"] * 9, 290)
    tokenizer = (
        tokenizer.with_template(template_for(traits), segments=traits.has_segment_embeddings)
        if frame
        else tokenizer
    )
    labels = ("a", "b") if head == "classification" else ()
    Model.create(family, SHAPE, tokenizer, head, max_length=16, seed=0, labels=labels).save(folder)
    for name in (atomic_files.MANIFEST, "pretune.json"):
        (folder / name).unlink()
    return folder


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("good") / "model", "llama", "causal_lm")


@pytest.fixture
def folder(good: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(good, tmp_path / "model"))


def change(folder: Path, name: str, edit: Callable[[Any], Any]) -> None:
    value = json.loads((folder / name).read_text())
    edit(value)
    (folder / name).write_text(json.dumps(value))


def refused(folder: Path, named: str) -> None:
    began = time.process_time()
    with pytest.raises(PretuneError, match=named) as caught:
        pretune.load(folder)
    assert len(str(caught.value)) < 1100
    assert time.process_time() - began < 5


@pytest.mark.parametrize("id", [2**31, 10**9, 2**32, -1, 1.5, "7", None, True])
@pytest.mark.parametrize("place", ["vocab", "added_tokens"])
def test_an_id_that_no_table_holds(folder: Path, place: str, id: Any) -> None:
    def edit(value: Any) -> None:
        if place == "vocab":
            value["model"]["vocab"]["king"] = id
        else:
            value["added_tokens"][0]["id"] = id

    change(folder, "tokenizer.json", edit)
    refused(folder, r"tokenizer\.json: .*id.* = .*must be a number from 0 to")


BYTES = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
REPEATED: dict[str, tuple[str, dict[str, Any], int]] = {
    "ByteLevel": ("pre_tokenizer", BYTES, 20),
    "Replace": ("normalizer", {"type": "Replace", "pattern": {"String": "a"}, "content": "aaaaaaaaaa"}, 5),
    "long Replace": ("normalizer", {"type": "Replace", "pattern": {"Regex": ""}, "content": "x" * 500}, 1),
    "long pattern": ("normalizer", {"type": "Replace", "pattern": {"Regex": "a" * 10**5}, "content": ""}, 1),
    "Prepend": ("normalizer", {"type": "Prepend", "prepend": "y" * 3000}, 1),
    "many": ("normalizer", {"type": "Lowercase"}, 100),
    "decoder": ("decoder", {"type": "Replace", "pattern": {"String": "a"}, "content": "aaaaaaaaaa"}, 5),
}  # fmt: skip
LISTS = {"normalizer": "normalizers", "pre_tokenizer": "pretokenizers", "decoder": "decoders"}


@pytest.mark.parametrize("kind", REPEATED)
def test_steps_that_multiply_a_text(folder: Path, kind: str) -> None:
    part, step, count = REPEATED[kind]
    chain = {"type": "Sequence", LISTS[part]: [step] * count}
    change(
        folder,
        "tokenizer.json",
        lambda value: value.update({part: {"type": "Sequence", LISTS[part]: [chain]}}),
    )
    refused(folder, rf"tokenizer\.json: {part}")


def test_special_tokens_that_the_vocabulary_lacks(folder: Path) -> None:
    def edit(value: Any) -> None:
        for token in value["post_processor"]["special_tokens"].values():
            token["ids"] = [10**6]

    change(folder, "tokenizer.json", edit)
    refused(folder, "post_processor")


JSON_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
              "generation_config.json", "pretune.json", "manifest.json")  # fmt: skip


@pytest.mark.parametrize("depth", [100, 900, 10**5])
@pytest.mark.parametrize("name", JSON_FILES[:-1])
def test_json_that_is_nested_too_deeply(folder: Path, name: str, depth: int) -> None:
    (folder / name).write_text('{"x": ' + "[" * depth + "]" * depth + "}")
    refused(folder, rf"{name}: nested")


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors", "vocab.txt", "notes"])
@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_a_pipe_or_a_device_in_the_place_of_a_file(folder: Path, name: str, kind: str) -> None:
    (folder / name).unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(folder / name)
    else:
        (folder / name).symlink_to("/dev/zero")
    refused(folder, f"{name}: is a pipe or a device")


@pytest.mark.parametrize(
    "name", ["config.json", "tokenizer.json", "model.safetensors", "generation_config.json"]
)
def test_a_file_larger_than_memory(folder: Path, name: str) -> None:
    with (folder / name).open("wb") as file:
        file.truncate(1 << 40)  # it takes no room on the disk
    refused(folder, name)


@pytest.mark.parametrize("length", [0, 1, 10**8, 2**40, 2**63])
def test_a_header_that_lies_about_its_length(folder: Path, length: int) -> None:
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(length.to_bytes(8, "little") + content[8:])
    refused(folder, r"model\.safetensors: damaged")


@pytest.mark.parametrize("shape", [[0, 2**62], [2**40, 2**40], [10**15], ["x"], -1, [[1]], None])
def test_a_header_that_lies_about_a_shape(folder: Path, shape: Any) -> None:
    content = (folder / "model.safetensors").read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    header[next(key for key in header if key != "__metadata__")]["shape"] = shape
    packed = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(
        len(packed).to_bytes(8, "little") + packed + content[8 + size :]
    )
    refused(folder, "model.safetensors: damaged or cut off")


def test_a_network_larger_than_memory(folder: Path) -> None:
    change(folder, "config.json", lambda value: value.update(vocab_size=10**13))
    refused(folder, "GiB in float32, this machine has")


@pytest.mark.parametrize("key", ["rope_parameters", "rope_scaling"])
@pytest.mark.parametrize("value", [5, "x", [1]])
def test_a_value_in_the_place_of_an_object(folder: Path, key: str, value: Any) -> None:
    change(folder, "config.json", lambda config: config.update({key: value}))
    refused(folder, f"config.json: {key}")


@pytest.mark.parametrize("value", [5, ["x"]])
def test_a_value_in_the_place_of_the_positions_of_a_kind_of_layer(folder: Path, value: Any) -> None:
    ropes = {"full_attention": value, "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0}}
    change(folder, "config.json", lambda config: config.update(rope_parameters=ropes))
    refused(folder, "config.json: rope_parameters.full_attention")


@pytest.mark.parametrize("value", [["x"], [None], 5, {}, ""])
def test_a_tokenizer_class_that_is_no_name(folder: Path, value: Any) -> None:
    change(folder, "tokenizer_config.json", lambda config: config.update(tokenizer_class=value))
    refused(folder, "tokenizer_class = ")


def test_two_tokens_of_one_id(folder: Path) -> None:
    """The tokenizers library would keep one of the two, now this and now that."""

    def change_vocabulary(values: dict[str, Any]) -> None:
        vocabulary = values["model"]["vocab"]
        first, second, *_ = vocabulary
        vocabulary[first] = vocabulary[second]

    change(folder, "tokenizer.json", change_vocabulary)
    refused(folder, "the id of .* is that of .* too")


@pytest.mark.parametrize("value", [1, 10**30])
def test_an_epsilon_that_is_none(folder: Path, value: int) -> None:
    """Stock refuses whole numbers there."""
    change(folder, "config.json", lambda config: config.update(rms_norm_eps=value))
    refused(folder, "rms_norm_eps")


def test_positions_that_the_special_tokens_fill(tmp_path: Path) -> None:
    folder = made(tmp_path / "model", "modernbert", "masked_lm")
    change(folder, "config.json", lambda config: config.update(max_position_embeddings=2))
    refused(folder, "max_position_embeddings = 2: the special tokens")


def test_a_list_as_the_size_of_a_vocabulary(tmp_path: Path) -> None:
    folder = made(tmp_path / "model", "transformer", "causal_lm")
    change(folder, "config.json", lambda config: config.update(vocab_size=[1]))
    refused(folder, "vocab_size")


def test_padding_around_each_text(tmp_path: Path) -> None:
    """RoBERTa gives padding no position: stock then counts those of the text otherwise."""
    folder = made(tmp_path / "model", "roberta", "masked_lm")

    def pad_as_frame(values: dict[str, Any]) -> None:
        for token in values["post_processor"]["special_tokens"].values():
            token["ids"] = [0]

    change(folder, "tokenizer.json", pad_as_frame)
    refused(folder, "puts the padding token 0 around each text")


def test_a_truth_in_the_place_of_a_number(folder: Path) -> None:
    change(folder, "config.json", lambda config: config.update(rms_norm_eps=True))
    refused(folder, "rms_norm_eps.*True")


def test_a_long_value_is_not_repeated(folder: Path) -> None:
    change(folder, "config.json", lambda config: config.update(hidden_act="x" * 10**5))
    refused(folder, "hidden_act")


def test_json_is_read_as_it_was_written(tmp_path: Path) -> None:
    value = {"a": [1, {"b": None}], "c": "人"}
    (tmp_path / "a.json").write_text(json.dumps(value))
    assert read_json(tmp_path / "a.json") == value
    (tmp_path / "a.json").write_bytes(b'{"a": "\xff"}')
    with pytest.raises(CheckpointError, match=r"a\.json: cannot be read as JSON"):
        read_json(tmp_path / "a.json")


# -- texts without tokens -------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_text_without_any_token_is_refused_for_itself(family: str, tmp_path: Path) -> None:
    folder = made(tmp_path / "model", family, "classification", frame=False)
    model = pretune.load(folder)
    for texts in ([""], ["the king", ""]):
        with pytest.raises(DataError, match="no token"):
            model.classify(texts)
    assert len(model.classify(["the king", "sent"])) == 2


@pytest.mark.slow  # transformers is imported
@pytest.mark.parametrize("family", ["bert", "distilbert", "roberta"])
def test_an_empty_text_is_answered_as_stock_does(family: str, tmp_path: Path) -> None:
    import torch
    import transformers

    folder = made(tmp_path / "model", family, "classification")
    stock = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    reader = transformers.AutoTokenizer.from_pretrained(folder)
    for text in ("", "the king"):
        with torch.inference_mode():
            shares = stock(**reader(text, return_tensors="pt")).logits.softmax(-1)[0]
        said = pretune.load(folder)(text)
        assert said.confidence == pytest.approx(float(shares.max()), abs=1e-5)


@pytest.mark.parametrize("text", ["a\ud800b", "\udfff"])
def test_a_lone_surrogate_counts_as_the_sign_of_a_broken_character(
    good: Path, text: str, tmp_path: Path
) -> None:
    model = pretune.load(good)
    assert model.score(text) == model.score(text.replace("\ud800", "\ufffd").replace("\udfff", "\ufffd"))
    masked = pretune.load(made(tmp_path / "model", "bert", "masked_lm"))
    found = masked.fill(f"{text} [MASK]", targets=["king", text])
    found[0][0].text.encode()


# -- GGUF -----------------------------------------------------------------------------------------


def header(*, tensors: int = 1, pairs: int = 1, name: int = 1, length: int = 8, size: int = 64) -> bytes:
    """A GGUF file of one number and one tensor, whose counts may lie."""
    text = struct.pack("<IIQQ", int.from_bytes(b"GGUF", "little"), 3, tensors, pairs)
    text += struct.pack("<Q", name) + b"k" + struct.pack("<II", 4, 7)
    text += struct.pack("<Q", 1) + b"t" + struct.pack("<IQIQ", 1, length, 0, 0)
    return text + bytes(size)


def test_a_gguf_header_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    path.write_bytes(header())
    assert gguf_header.read_header(path) == gguf_header.GGUFHeader({"k": 7}, {"t": (8,)})


@pytest.mark.parametrize(
    "lie",
    [{"tensors": 2**60}, {"pairs": 2**60}, {"name": 2**62}, {"length": 2**40}, {"length": 0}, {"size": 0},
     {"tensors": 2}],
)  # fmt: skip
def test_counts_of_a_gguf_file_that_lie(tmp_path: Path, lie: dict[str, int]) -> None:
    path = tmp_path / "a.gguf"
    path.write_bytes(header(**lie))
    with pytest.raises(CheckpointError, match=r"a\.gguf: cannot be read as GGUF"):
        pretune.load(path)


def test_a_gguf_file_cut_anywhere(tmp_path: Path) -> None:
    path, whole = tmp_path / "a.gguf", header()
    for end in range(4, len(whole) - 64):
        path.write_bytes(whole[:end])
        with pytest.raises(CheckpointError, match=r"a\.gguf"):
            gguf_header.read_header(path)


def test_a_tokenizer_alone_is_judged_too(folder: Path) -> None:
    change(folder, "tokenizer.json", lambda value: value["model"]["vocab"].update(king=2**31))
    with pytest.raises(CheckpointError, match="must be a number"):
        Tokenizer.load(folder / "tokenizer.json")


@pytest.mark.parametrize(("family", "key"), [("transformer", "decoder_layers"), ("t5", "num_decoder_layers")])
def test_more_layers_than_tensors(family: str, key: str, tmp_path: Path) -> None:
    folder = made(tmp_path / "model", family, "causal_lm")
    change(folder, "config.json", lambda config: config.update({key: 2**32}))
    refused(folder, r"the weights are only \d+ tensors")


def test_a_sequence_of_no_steps(folder: Path) -> None:
    nothing = {"pre_tokenizer": {"type": "Sequence", "pretokenizers": []}}
    change(folder, "tokenizer.json", lambda value: value.update(nothing))
    assert pretune.load(folder).score("the king").nll > 0
