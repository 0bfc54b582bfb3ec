"""One file an architecture, read from top to bottom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

from pretune import registry
from pretune.checkpoint.weights import Operation, OtherPrefix, Rename
from pretune.nn.heads import Head, combined_names, stock_class


def find_family(model_type: str) -> ModuleType:
    """The family that reads checkpoints of a ``model_type`` of config.json; `_hf` reads what no other does.

    Raises:
        UnsupportedError: no family does, and transformers neither, or it is not installed.
    """
    by_model_type: dict[str, ModuleType] = {}
    for name in registry.list_names("families"):
        family = registry.find("families", name)
        by_model_type |= dict.fromkeys(family.MODEL_TYPES, family)
    return by_model_type.get(model_type) or registry.find("families", f"hf:{model_type}")


def weight_operations(family: ModuleType, config: Any, heads: Sequence[str]) -> list[Operation]:
    """The weights of the body, of the pretrained heads and of the fine-tuned ``heads``, and of no other head.

    Heads of two kinds may bear the same names in transformers: a text classifier's ``classifier.weight`` and
    a tagger's are told apart by the class of the folder alone.
    """
    table: Mapping[str, Head] = family.HEADS
    own = [
        Rename(f"heads.{name}.{ours}", theirs)
        for name in heads
        for ours, theirs in table[name].weights.items()
    ]
    find_prefixes = [table[name].body_prefix for name in heads]
    prefixes = [OtherPrefix(*find(config)) for find in find_prefixes if find is not None]
    return [*prefixes, *family.WEIGHTS, *own]


def head_from_config(family: ModuleType, config: Mapping[str, Any]) -> str | None:
    """The head of the stock class that a config.json names first; None for a body or another class."""
    architectures = config.get("architectures")
    if not isinstance(architectures, list):
        return None
    for prefix in family.MODEL_TYPES.values():
        for names in combined_names(family.HEADS):
            if stock_class(family.HEADS, prefix, names) in architectures[:1]:
                return names
    return None
