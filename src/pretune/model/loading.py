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
from pretune.families import head_from_config, weight_operations
from pretune.generation.config import GenerationConfig
from pretune.model.build import (
    check_weights_fit,
    find_decoder_start_id,
    head_outputs,
    init_network,
    is_labeled,
)
from pretune.model.capabilities import head_use
from pretune.model.folder import (
    find_model_folder,
    outputs_from_config,
    read_config,
    read_metadata,
    verify_model_folder,
)
from pretune.nn.heads import Head
from pretune.tasks import recognise_task
from pretune.text.tokenizer import Tokenizer
from pretune.types import OutputSpec

OTHER_HEAD_MODULES = (
    "sequence_summary", "multiple_choice_head", "start_logits", "end_logits", "answer_class",
    "span_predictions", "classifier", "qa_outputs",
)  # fmt: skip
"""What transformers calls parts of fine-tuned heads, some of which no family of ours has."""


@dataclass(frozen=True, slots=True)
class LoadResult:
    """What a folder holds, under the names that `Model` gives it."""

    family: ModuleType
    config: Any
    network: nn.Module
    tokenizer: Tokenizer
    head: str
    outputs: OutputSpec
    metadata: Mapping[str, Any]
    fingerprints: Fingerprints | None
    path: Path
    untrained: tuple[str, ...]
    generation_config: GenerationConfig
    dropped_head: str


def load_folder(
    path: Path, head: str | None, outputs: OutputSpec | None, settings: Mapping[str, Any], seed: int
) -> LoadResult:
    """See `Model.load`."""
    folder = find_model_folder(path)
    verify_model_folder(folder)
    config_json = hub.read_config(folder)
    module, config = read_config(folder, config_json)
    config = build_settings(module.Config, config.model_dump() | dict(settings), where="model")
    folder_head = head_from_config(module, config_json)
    table: Mapping[str, Head] = module.HEADS
    configured = outputs_from_config(folder, config_json)  # checked, whatever the head: stock reads it, too
    has_labels = folder_head is not None and is_labeled(table, folder_head)
    known = configured if has_labels else OutputSpec()  # another head may number as it likes
    requested_head = head or folder_head or next(name for name in table if table[name].is_pretrained)
    chosen = head_outputs(table, requested_head, outputs or known)
    is_same_head = folder_head == requested_head and chosen.labels == known.labels
    metadata = read_metadata(folder, config)
    if folder_head != requested_head:
        metadata.pop("task", None)
    recognised = None if "task" in metadata else recognise_task(requested_head, config_json, chosen.labels)
    if recognised is not None:
        metadata["task"] = recognised[0]
        chosen = chosen if outputs is not None else recognised[1]
    tokenizer = Tokenizer.load(folder, config.vocab_size)
    if tokenizer.vocabulary_size > config.vocab_size:
        raise CheckpointError(
            f"{folder}: its tokenizer has {tokenizer.vocabulary_size:,} tokens, its network only "
            f"{config.vocab_size:,} (vocab_size in config.json): they do not belong together"
        )
    special_ids = tokenizer.specials.single[0] + tokenizer.specials.single[1]
    if config.max_position_embeddings <= len(special_ids):
        raise CheckpointError(
            f"{folder}: config.json: max_position_embeddings = {config.max_position_embeddings}: the special "
            f"tokens around each text are {len(special_ids)} already; fetch config.json again"
        )
    if getattr(config, "pad_token_id", None) in special_ids:
        raise CheckpointError(
            f"{folder}: its tokenizer puts the padding token {config.pad_token_id} around each text, which "
            "has no position of its own in this architecture; fetch tokenizer.json again"
        )
    tensors = hub.read_tensors(folder)
    surplus = [] if is_same_head else _find_head_tensors(tensors, table)
    tensors = {name: tensor for name, tensor in tensors.items() if name not in surplus}
    operations = weight_operations(module, config, requested_head.split("+") if is_same_head else ())
    check_weights_fit(folder, module, config, requested_head, chosen, tensors, operations)
    network = init_network(module, config, requested_head, chosen, seed)
    missing = weights.load_weights(network, tensors, operations)
    if missing and is_same_head:
        raise CheckpointError(f"{folder}: has no weights for {', '.join(missing[:5])}")
    specials, start = tokenizer.specials, find_decoder_start_id(module, tokenizer)
    # Who writes nothing does not fail by how it would.
    writes = "generate" in (head_use(module, name) for name in requested_head.split("+") if name in table)
    defaults = (
        GenerationConfig.load(folder, config_json, specials, start)
        if writes
        else GenerationConfig.from_specials(specials, start)
    )
    return LoadResult(
        module, config, network.eval(), tokenizer, requested_head, chosen, metadata,
        Fingerprints.load(folder), folder,
        tuple(missing), defaults, _describe_dropped_head(surplus, config_json, known.labels),
    )  # fmt: skip


def _find_head_tensors(tensors: Mapping[str, Tensor], table: Mapping[str, Head]) -> list[str]:
    """The tensors of fine-tuned heads: their classes, tags or answers mean nothing to another head.

    Which head's they are the names alone do not tell: ``classifier.weight`` is that of three.
    """
    operations = [
        weights.Rename(ours, theirs) for head in table.values() for ours, theirs in head.weights.items()
    ]
    claimed = {name for operation in operations for name in operation.matches(tensors)}
    return sorted(name for name in tensors if name in claimed or name.split(".")[0] in OTHER_HEAD_MODULES)


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
