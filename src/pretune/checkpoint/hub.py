"""Model folders in Hugging Face layout: config.json and safetensors, never pickle."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from pretune.errors import CheckpointError, quote
from pretune.runtime.json_files import check_regular_file, read_json_object
from pretune.types import OutputSpec

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
MAX_HEADER_BYTES = 16 << 20
"""Bytes; it names each tensor in some 100."""
INDEX_FILE = "model.safetensors.index.json"
_VARIANT = re.compile(r"model\.[\w-]+\.safetensors")
_SHARD = re.compile(r"-\d+-of-\d+\.safetensors$")
PICKLE_PATTERNS = ("*.bin", "*.bin.index.json", "*.pt", "*.pth", "*.ckpt", "*.pkl")


def read_config(folder: Path | str) -> dict[str, Any]:
    """The mapping in a folder's config.json.

    Raises:
        CheckpointError: it is missing or no JSON mapping.
    """
    return read_json_object(Path(folder) / CONFIG_FILE)


def read_tensors(folder: Path | str) -> dict[str, Tensor]:
    """All tensors of a folder, from one file or from the shards that an index names.

    Raises:
        CheckpointError: a file is missing, damaged or truncated, lies outside the folder, or is a pickle.
    """
    folder = Path(folder)
    if (folder / WEIGHTS_FILE).exists():
        return _read_file(folder / WEIGHTS_FILE)
    if not (folder / INDEX_FILE).exists():
        raise _no_weights_error(folder)
    weight_map = read_json_object(folder / INDEX_FILE).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise CheckpointError(f"{folder / INDEX_FILE}: 'weight_map' must map tensors to files")
    tensors: dict[str, Tensor] = {}
    for shard in sorted(set(weight_map.values())):
        # Compared as text: the cache of Hugging Face links its files from elsewhere, and may.
        if Path(shard).name != shard or "\\" in shard or not shard.endswith(".safetensors"):
            raise CheckpointError(
                f"{folder / INDEX_FILE}: {quote(shard)} is no file of this folder; it is not opened"
            )
        shard_tensors = _read_file(folder / shard)
        tensors |= {name: tensor for name, tensor in shard_tensors.items() if weight_map.get(name) == shard}
    missing = sorted(weight_map.keys() - tensors.keys())
    if missing:
        raise CheckpointError(
            f"{folder / INDEX_FILE}: {missing[0]} is not in {weight_map[missing[0]]}; fetch the model again"
        )
    return tensors


def write_model(folder: Path | str, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Write config.json and model.safetensors into a folder, which is made where it is missing.

    The caller gives a temporary folder and renames it: see `runtime.atomic_files`.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(_unshare_memory(tensors), folder / WEIGHTS_FILE, metadata={"format": "pt"})
    text = json.dumps(dict(config), indent=2, ensure_ascii=False)
    (folder / CONFIG_FILE).write_text(text + "\n", encoding="utf-8")


def output_config(outputs: OutputSpec | None) -> dict[str, Any]:
    """What a config.json says of the outputs of a fine-tuned head; nothing of another's."""
    values: dict[str, Any] = {}
    if outputs is None:
        return values
    if outputs.labels:
        values |= {
            "id2label": {str(number): label for number, label in enumerate(outputs.labels)},
            "label2id": {label: number for number, label in enumerate(outputs.labels)},
        }
    elif outputs.size:
        values |= {"num_labels": outputs.size}
    if outputs.problem_type is not None:
        values |= {"problem_type": outputs.problem_type}
    return {**values, **outputs.config_fields}


def _unshare_memory(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous tensors of which no two share memory: safetensors takes no others."""
    unshared, seen = {}, set()
    for name, tensor in tensors.items():
        address = tensor.untyped_storage().data_ptr()
        unshared[name] = (
            tensor.clone(memory_format=torch.contiguous_format) if address in seen else tensor.contiguous()
        )
        seen.add(address)
    return unshared


def _read_file(path: Path) -> dict[str, Tensor]:
    try:
        check_regular_file(path)
        with path.open("rb") as file:
            header = int.from_bytes(file.read(8), "little")
        if header > MAX_HEADER_BYTES:
            raise CheckpointError(f"{path}: damaged: a header of {header:,} bytes; fetch or save it again")
        return load_file(path)  # checks the header, and all sizes against the file, before it reads
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file; fetch the model again") from None
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError, TypeError, OverflowError) as error:
        raise CheckpointError(f"{path}: damaged or cut off ({error}); fetch or save it again") from None


def _weights_file_advice(name: str) -> str:
    """What to do with a file of weights that is not called as a model's is."""
    if _SHARD.search(name):
        return f"{INDEX_FILE}, which says what lies in which, is missing: fetch the model again"
    if name.startswith("adapter"):
        return "that is an adapter without its base: merge the two with peft, and save the result"
    if _VARIANT.fullmatch(name):
        return f"that is the same model in another precision: copy or link it as {WEIGHTS_FILE} to use it"
    return f"where it is the whole model, copy or link it as {WEIGHTS_FILE}"


def _format_names(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1:,} more"


def _no_weights_error(folder: Path) -> CheckpointError:
    pickles = sorted({file.name for pattern in PICKLE_PATTERNS for file in folder.glob(pattern)})
    others = sorted(file.name for file in folder.glob("*.safetensors"))
    if others:
        return CheckpointError(
            f"{folder}: there is no {WEIGHTS_FILE}, only {_format_names(others)}; "
            f"{_weights_file_advice(others[0])}"
        )
    if not pickles:
        return CheckpointError(f"{folder}: there is no {WEIGHTS_FILE}; is this a model folder?")
    return CheckpointError(
        f"{folder}: {pickles[0]} is a pickle, which can run any code, and pretune never opens one. Where you "
        "trust it, convert it once with transformers: AutoModel.from_pretrained(folder)"
        ".save_pretrained(new_folder) writes safetensors (take the Auto class that keeps the head)"
    )
