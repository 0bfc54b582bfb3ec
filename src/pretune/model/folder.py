"""A model folder, as far as it can be read and judged before any weight is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from pretune.checkpoint import gguf, hub
from pretune.data.cleaning.fingerprints import FINGERPRINTS_FILE as FINGERPRINTS
from pretune.errors import CheckpointError, ConfigError, UnsupportedError, quote
from pretune.families import find_family, head_from_config
from pretune.runtime import atomic_files, lock
from pretune.runtime.json_files import check_folder_entries, read_json_object
from pretune.types import OutputSpec

OBJECT_KEYS = ("rope_parameters", "rope_scaling", "task_specific_params")
"""Keys of a config.json whose values families look into."""
ATTENTION_TYPES = ("full_attention", "sliding_attention")
METADATA_FILE = "pretune.json"
"""What pretune knows of a model beyond Hugging Face's config.json."""
MAX_LABELS = 1 << 20
"""Classes that a config.json may claim."""


@dataclass(frozen=True, slots=True)
class FolderInfo:
    """What a model folder says of itself, before any weight is read."""

    folder: Path
    family: str
    config: Any
    head: str | None
    """None: the folder holds a body without a head."""
    max_length: int
    objective: str | None = None
    """What pretune pretrained it by, if it did."""


def read_folder_info(path: Path | str) -> FolderInfo:
    """The outline of a model folder or of a run.

    Raises:
        CheckpointError: no model there, or a damaged one.
        UnsupportedError: an architecture that pretune does not have.
    """
    folder = find_model_folder(Path(path))
    values = hub.read_config(folder)
    module, config = read_config(folder, values)
    metadata = read_metadata(folder, config)
    max_length = int(metadata.get("max_length") or config.max_position_embeddings)
    name = module.__name__.rpartition(".")[2]
    return FolderInfo(
        folder, name, config, head_from_config(module, values), max_length, metadata.get("objective")
    )


def find_model_folder(path: Path) -> Path:
    """The model folder that a path means: itself, ``model/`` inside a run, or what a GGUF file unpacks to.

    Raises:
        CheckpointError: there is none.
    """
    for folder in (path, path / "model"):
        if (folder / "config.json").exists():
            check_folder_entries(folder)
            return folder
    packed = gguf.find_gguf_file(path)
    if packed is not None:
        return gguf.unpack(packed)
    if not path.exists():
        raise CheckpointError(
            f"{path}: no such file or folder; give a run or a model folder (pretune fetches none from a hub)"
        )
    if path.is_file():
        raise CheckpointError(
            f"{path}: is a file; give the folder with config.json and model.safetensors in it"
        )
    if (path / "config.yaml").exists():
        raise CheckpointError(f"{path}: this run has no finished model yet; run its command again to go on")
    raise CheckpointError(f"{path}: holds no model (no config.json)")


def read_config(folder: Path, values: Mapping[str, Any]) -> tuple[ModuleType, Any]:
    """The family that reads a folder, and its config."""
    for key in OBJECT_KEYS:
        if not isinstance(values.get(key), Mapping | None):
            raise CheckpointError(f"{folder}: config.json: {key} = {quote(values[key])}: expected an object")
    for attention_type in ATTENTION_TYPES:  # positions of their own for each kind of layer
        rope = (values.get("rope_parameters") or {}).get(attention_type)
        if not isinstance(rope, Mapping | None):
            raise CheckpointError(
                f"{folder}: config.json: rope_parameters.{attention_type} = {quote(rope)}: expected an object"
            )
    try:
        module = find_family(str(values.get("model_type")))
        return module, module.Config.from_hugging_face(values)
    except ConfigError as error:
        raise CheckpointError(f"{folder}: {error}") from None
    except UnsupportedError as error:
        raise UnsupportedError(f"{folder}: {error}") from None


def verify_model_folder(folder: Path) -> None:
    """Compare a folder of ours with its manifest: safetensors alone does not notice a flipped bit."""
    if not ((folder / METADATA_FILE).exists() and (folder / atomic_files.MANIFEST).exists()):
        return  # another program's, or written without a manifest
    try:
        # The card may be edited, and the fingerprints of a private text may be taken out.
        removed = () if (folder / FINGERPRINTS).exists() else (FINGERPRINTS,)
        atomic_files.verify_folder(folder, exclude=("README.md", *removed))
    except CheckpointError as error:
        raise CheckpointError(
            f"{error}; save or copy the model again, or, where the change is yours, "
            f"remove {atomic_files.MANIFEST}"
        ) from None


def save_model_folder(folder: Path, write: Callable[[Path], None], *, overwrite: bool) -> Path:
    """Write a model folder, whole or not at all; the folder.

    It must be new or empty, or hold a model as pretune saved it and nothing else; with ``overwrite`` it may
    be any: files of the same names are replaced, all others stay as they are.

    Raises:
        UsageError: it is a file, or a folder with other files in it.
        ConfigError: another process writes there.
        CheckpointError: the disk refused; what was there is untouched.
    """
    with lock.acquire(lock.lock_path(folder), folder):
        atomic_files.check_target(folder, overwrite=overwrite)
        atomic_files.write_folder(folder, write, metadata={"type": "model"})
    return folder


def outputs_from_config(folder: Path, config: Mapping[str, Any]) -> OutputSpec:
    """What a config.json says of the outputs of a labelled head.

    Raises:
        CheckpointError: its labels have no numbers, or a number of them is none.
    """
    problem_type = config.get("problem_type")
    return OutputSpec(
        labels_from_config(folder, config), problem_type=None if problem_type is None else str(problem_type)
    )


def labels_from_config(folder: Path, config: Mapping[str, Any]) -> tuple[str, ...]:
    """The classes of a classifier's config.json, in the order of their numbers.

    They are those of ``id2label``. Without it stock calls them ``LABEL_0``, ``LABEL_1`` ..., as many as
    ``num_labels`` says, or else two; where ``label2id`` alone names them, we take its names.

    Raises:
        CheckpointError: the numbers have gaps, or are none.
    """
    count = config.get("num_labels")
    if count is not None and (not isinstance(count, int) or not 0 < count <= MAX_LABELS):
        raise CheckpointError(f"{folder}: config.json: num_labels = {count!r}: expected a positive number")
    id2label = config.get("id2label")
    if id2label is None:
        label_ids = config.get("label2id")
        known = {id: label for label, id in label_ids.items()} if isinstance(label_ids, Mapping) else {}
        if sorted(known, key=str) == sorted(range(count or len(known)), key=str) and known:
            return tuple(str(known[number]) for number in range(len(known)))
        return tuple(f"LABEL_{number}" for number in range(count or 2))
    try:
        labels = {int(number): str(label) for number, label in id2label.items()}
    except (AttributeError, ValueError):
        labels = {-1: ""}
    if sorted(labels) != list(range(len(labels))):
        raise CheckpointError(f"{folder}: config.json: id2label must map 0, 1, 2 ... to labels")
    if count is not None and count != len(labels):  # stock then numbers them anew
        return tuple(f"LABEL_{number}" for number in range(count))
    return tuple(labels[number] for number in range(len(labels)))


def read_metadata(folder: Path, config: Any) -> dict[str, Any]:
    """What :data:`METADATA_FILE` holds; nothing for a folder that another program wrote.

    Raises:
        CheckpointError: it is damaged.
    """
    path = folder / METADATA_FILE
    if not path.exists():
        return {}
    metadata = read_json_object(path)
    length, max_positions = metadata.get("max_length"), config.max_position_embeddings
    if length is not None and not (
        isinstance(length, int) and not isinstance(length, bool) and 1 <= length <= max_positions
    ):
        raise CheckpointError(
            f"{path}: max_length = {quote(length)}: must be a number from 1 to {max_positions}"
        )
    columns = metadata.get("columns", {})
    if not isinstance(columns, dict) or not all(isinstance(name, str) for name in columns.values()):
        raise CheckpointError(f"{path}: columns must map fields to names of columns")
    return metadata
