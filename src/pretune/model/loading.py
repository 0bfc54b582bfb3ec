"""A model folder read into what a model is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from pretune.checkpoint import hub, weights
from pretune.config import build_settings
from pretune.data.cleaning.fingerprints import Fingerprints
from pretune.errors import CheckpointError
from pretune.generation.config import GenerationConfig
from pretune.model.build import check_labels, check_weights_fit, find_decoder_start_id, init_network
from pretune.model.capabilities import CLASSIFIER_MODULES, TASK_HEAD_MODULES
from pretune.model.folder import (
    find_model_folder,
    head_from_config,
    labels_from_config,
    read_config,
    read_metadata,
    task_from_config,
    verify_model_folder,
)
from pretune.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class LoadResult:
    """What a folder holds, under the names that `Model` gives it."""

    family: ModuleType
    config: Any
    network: nn.Module
    tokenizer: Tokenizer
    head: str
    labels: tuple[str, ...]
    metadata: Mapping[str, Any]
    fingerprints: Fingerprints | None
    path: Path
    untrained: tuple[str, ...]
    generation_config: GenerationConfig
    dropped_head: str


def load_folder(
    path: Path, head: str | None, labels: Sequence[str] | None, settings: Mapping[str, Any], seed: int
) -> LoadResult:
    """See `Model.load`."""
    folder = find_model_folder(path)
    verify_model_folder(folder)
    config_json = hub.read_config(folder)
    module, config = read_config(folder, config_json)
    config = build_settings(module.Config, config.model_dump() | dict(settings), where="model")
    folder_head = head_from_config(module, config_json)
    folder_labels = (
        () if folder_head is None else labels_from_config(folder, config_json)
    )  # another head may number as it likes
    known = folder_labels if folder_head == "classification" else ()
    requested_head = head or folder_head or next(h for h in module.TRAITS.heads if h != "classification")
    chosen = (known if labels is None else check_labels(labels)) if requested_head == "classification" else ()
    metadata = read_metadata(folder, config)
    stored_task = metadata.pop("task", None)
    task = (
        stored_task
        if stored_task and folder_head == requested_head
        else task_from_config(requested_head, config_json, chosen)
    )
    metadata |= {} if task is None else {"task": task}
    tokenizer = Tokenizer.load(folder, config.vocab_size)
    if tokenizer.vocabulary_size > config.vocab_size:
        raise CheckpointError(
            f"{folder}: its tokenizer has {tokenizer.vocabulary_size:,} tokens, its network only "
            f"{config.vocab_size:,} (vocab_size in config.json): they do not belong together"
        )
    special_ids = tokenizer.specials.single[0] + tokenizer.specials.single[1]
    if getattr(config, "pad_token_id", None) in special_ids:
        raise CheckpointError(
            f"{folder}: its tokenizer puts the padding token {config.pad_token_id} around each text, which "
            "has no position of its own in this architecture; fetch tokenizer.json again"
        )
    tensors = hub.read_tensors(folder)
    surplus = _find_other_head_tensors(
        tensors, folder_head, is_same_head=folder_head == requested_head and chosen == known
    )
    tensors = {name: tensor for name, tensor in tensors.items() if name not in surplus}
    check_weights_fit(folder, module, config, requested_head, chosen, tensors)
    network = init_network(module, config, requested_head, chosen, seed)
    missing = weights.load_weights(network, tensors, module.WEIGHTS)
    if missing and folder_head == requested_head and chosen == known:
        raise CheckpointError(f"{folder}: has no weights for {', '.join(missing[:5])}")
    specials, start = tokenizer.specials, find_decoder_start_id(module, tokenizer)
    writes = "causal_lm" in requested_head.split("+")  # who writes nothing does not fail by how it would
    defaults = (
        GenerationConfig.load(folder, config_json, specials, start)
        if writes
        else GenerationConfig.from_specials(specials, start)
    )
    return LoadResult(
        module, config, network.eval(), tokenizer, requested_head, chosen, metadata,
        Fingerprints.load(folder), folder,
        tuple(missing), defaults, _describe_dropped_head(surplus, config_json, known),
    )  # fmt: skip


def _find_other_head_tensors(
    tensors: Mapping[str, Tensor], folder_head: str | None, *, is_same_head: bool
) -> list[str]:
    """The tensors of a head that is not the one asked for: its classes, tags or answers mean nothing here.

    Args:
        folder_head: the head of the folder, where the family has it.
        is_same_head: it is the one asked for, with the same classes.
    """
    if is_same_head:
        return []
    heads = CLASSIFIER_MODULES if folder_head == "classification" else TASK_HEAD_MODULES
    return sorted(name for name in tensors if name.split(".")[0] in heads)


def _describe_dropped_head(surplus: Sequence[str], config: Mapping[str, Any], labels: Sequence[str]) -> str:
    if not surplus:
        return ""
    architectures = config.get("architectures")
    class_name = (
        str(architectures[0])[:80] if isinstance(architectures, list) and architectures else "other weights"
    )
    classes = (
        f" with the classes {', '.join(labels[:5])}{' ...' if len(labels) > 5 else ''}" if labels else ""
    )
    more = f" and {len(surplus) - 3} more" if len(surplus) > 3 else ""
    return f"the head of {class_name}{classes} is left out ({', '.join(surplus[:3])}{more})"
