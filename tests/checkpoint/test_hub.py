"""Model folders that are damaged, unsafe or incomplete are refused by name."""

from __future__ import annotations

import contextlib
import json
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pretune.checkpoint import hub
from pretune.errors import CheckpointError

TENSORS = {"a.weight": torch.arange(6.0).view(2, 3), "b.bias": torch.ones(4)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    hub.write_model(tmp_path / "model", {"model_type": "bert"}, TENSORS)
    return tmp_path / "model"


def sharded(folder: Path, where: dict[str, str]) -> Path:
    (folder / hub.WEIGHTS_FILE).unlink()
    (folder / hub.INDEX_FILE).write_text(json.dumps({"weight_map": where}))
    for number, (name, tensor) in enumerate(TENSORS.items()):
        save_file({name: tensor}, folder / f"shard-{number}.safetensors")
    return folder


def assert_whole(tensors: dict[str, torch.Tensor]) -> None:
    assert tensors.keys() == TENSORS.keys()
    assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)


def test_what_is_written_is_read(folder: Path) -> None:
    assert hub.read_config(folder) == {"model_type": "bert"}
    assert_whole(hub.read_tensors(folder))


def test_tensors_that_share_memory_or_are_not_contiguous_are_written(tmp_path: Path) -> None:
    base = torch.randn(3, 5)
    hub.write_model(tmp_path, {}, {"turned": base.t(), "base": base, "view": base[0]})
    tensors = hub.read_tensors(tmp_path)
    assert torch.equal(tensors["turned"], base.t())
    assert torch.equal(tensors["view"], base[0])


def test_shards_are_gathered(folder: Path) -> None:
    where = {"a.weight": "shard-0.safetensors", "b.bias": "shard-1.safetensors"}
    assert_whole(hub.read_tensors(sharded(folder, where)))


@pytest.mark.parametrize("kept", [0, 4, 40, -1])
def test_a_truncated_file_is_named(folder: Path, kept: int) -> None:
    path = folder / hub.WEIGHTS_FILE
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match=r"model\.safetensors.*again"):
        hub.read_tensors(folder)


def test_a_flipped_bit_of_the_header_is_found_or_changes_a_name(folder: Path) -> None:
    path = folder / hub.WEIGHTS_FILE
    whole = path.read_bytes()
    (size,) = struct.unpack("<Q", whole[:8])
    for place in range(8 + size):
        for bit in (0, 6):
            damaged = bytearray(whole)
            damaged[place] ^= 1 << bit
            path.write_bytes(bytes(damaged))
            with contextlib.suppress(CheckpointError):
                tensors = hub.read_tensors(folder)
                # What still parses differs in the metadata or white space only, or has another name, type
                # or shape, for which the network has no place.
                if described(tensors) == described(TENSORS):
                    assert_whole(tensors)


def described(tensors: dict[str, torch.Tensor]) -> dict[str, tuple[object, ...]]:
    return {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}


def test_a_header_that_promises_too_much_takes_no_memory(folder: Path) -> None:
    header = json.dumps({"a": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}}).encode()
    (folder / hub.WEIGHTS_FILE).write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 64)
    with pytest.raises(CheckpointError, match="damaged"):
        hub.read_tensors(folder)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "pytorch_model.bin.index.json"])
def test_a_pickle_is_never_opened(folder: Path, name: str) -> None:
    (folder / hub.WEIGHTS_FILE).rename(folder / name)
    with pytest.raises(CheckpointError, match=r"pickle.*save_pretrained"):
        hub.read_tensors(folder)


@pytest.mark.parametrize("escape", ["../shard-0.safetensors", "/etc/passwd", "sub/x.safetensors", "..", ""])
def test_an_index_stays_inside_its_folder(folder: Path, escape: str) -> None:
    sharded(folder, {"a.weight": escape, "b.bias": "shard-1.safetensors"})
    with pytest.raises(CheckpointError, match="no file of this folder"):
        hub.read_tensors(folder)


def test_a_missing_shard_or_tensor_is_named(folder: Path) -> None:
    sharded(folder, {"a.weight": "shard-0.safetensors", "b.bias": "shard-0.safetensors"})
    with pytest.raises(CheckpointError, match=r"b\.bias is not in shard-0"):
        hub.read_tensors(folder)
    (folder / "shard-0.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"shard-0\.safetensors: no such file"):
        hub.read_tensors(folder)


@pytest.mark.parametrize("text", ["", "[1]", "{'a': 1}", "[" * 100_000])
def test_a_broken_config_is_named(folder: Path, text: str) -> None:
    (folder / hub.CONFIG_FILE).write_text(text)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        hub.read_config(folder)


def test_an_empty_folder_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is this a model folder"):
        hub.read_tensors(tmp_path)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        hub.read_config(tmp_path)


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("model.fp16.safetensors", r"only model\.fp16\.safetensors; .*copy or link it as model\.safetensors"),
        ("model-00001-of-00002.safetensors", r"model\.safetensors\.index\.json, .*is missing"),
        ("model.fp16-00001-of-00002.safetensors", r"index\.json, .*is missing"),
        ("adapter_model.safetensors", "an adapter without its base: merge"),
        ("consolidated.safetensors", r"copy or link it as model\.safetensors"),
    ],
)
def test_weights_under_another_name_are_named_with_what_to_do(folder: Path, name: str, named: str) -> None:
    (folder / hub.WEIGHTS_FILE).rename(folder / name)
    with pytest.raises(CheckpointError, match=named):
        hub.read_tensors(folder)
    (folder / "pytorch_model.bin").write_bytes(b"")  # of both, what can be read is said
    with pytest.raises(CheckpointError, match=named):
        hub.read_tensors(folder)
