"""One file an architecture, read from top to bottom."""

from __future__ import annotations

from types import ModuleType

from pretune import registry


def family_of(model_type: str) -> ModuleType:
    """The family that reads checkpoints of a ``model_type`` of config.json; `_hf` reads what no other does.

    Raises:
        UnsupportedError: no family does, and transformers neither, or it is not installed.
    """
    known: dict[str, ModuleType] = {}
    for name in registry.names("families"):
        family = registry.find("families", name)
        known |= dict.fromkeys(family.HF_TYPES, family)
    return known.get(model_type) or registry.find("families", f"hf:{model_type}")
