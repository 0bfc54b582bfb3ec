"""One file an architecture, read from top to bottom."""

from __future__ import annotations

from types import ModuleType

from pretune import registry


def find_family(model_type: str) -> ModuleType:
    """The family that reads checkpoints of a ``model_type`` of config.json; `_hf` reads what no other does.

    Raises:
        UnsupportedError: no family does, and transformers neither, or it is not installed.
    """
    by_model_type: dict[str, ModuleType] = {}
    for name in registry.list_names("families"):
        family = registry.find("families", name)
        by_model_type |= dict.fromkeys(family.HF_TYPES, family)
    return by_model_type.get(model_type) or registry.find("families", f"hf:{model_type}")
