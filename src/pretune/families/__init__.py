"""One file an architecture, read from top to bottom."""

from __future__ import annotations

from types import ModuleType

from pretune import registry
from pretune.errors import UnsupportedError, suggestion


def family_of(model_type: str) -> ModuleType:
    """The family that reads checkpoints of a ``model_type`` of config.json.

    Raises:
        UnsupportedError: no family does; names those that are read.
    """
    known: dict[str, ModuleType] = {}
    for name in registry.names("families"):
        family = registry.find("families", name)
        known |= dict.fromkeys(family.HF_TYPES, family)
    if model_type not in known:
        raise UnsupportedError(
            f"model_type {model_type!r}: no family reads it; {suggestion(model_type, known)}"
        )
    return known[model_type]
