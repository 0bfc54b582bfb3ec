"""Finds a family, objective or task by name: the folder is the registry."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

from pretune.errors import ConfigError, missing_library, suggestion

ALIASES = {
    ("families", "mt5"): "t5",
    ("families", "marian"): "transformer",
    ("families", "qwen3"): "llama",
    ("families", "qwen"): "llama",
    ("families", "gpt"): "gpt2",
    ("families", "openai_gpt"): "gpt1",
    ("families", "gpt_neo"): "gpt3",
    ("families", "modern_bert"): "modernbert",
    ("families", "distil_bert"): "distilbert",
    ("objectives", "mlm"): "masked_lm",
    ("objectives", "clm"): "causal_lm",
    ("objectives", "plm"): "permutation_lm",
}

WRAPPERS = {("families", "hf")}
"""Private modules that make a member of their room of a name: ``of(name)``."""


def list_names(package_name: str) -> list[str]:
    """The names that ``pretune.<room>`` holds, in alphabetical order: its public modules but ``base``."""
    package = importlib.import_module(f"pretune.{package_name}")
    modules = pkgutil.iter_modules(package.__path__)
    return sorted(m.name for m in modules if not (m.ispkg or m.name.startswith("_") or m.name == "base"))


def find(package_name: str, name: str) -> ModuleType:
    """The module ``pretune.<room>.<name>``; ``hf:electra`` is what ``families/_hf.py`` makes of ``electra``.

    Raises:
        ConfigError: no such module; names the nearest ones.
    """
    wrapper, colon, wrapped = name.partition(":")
    if colon and (package_name, wrapper) in WRAPPERS:
        wrapped_module: ModuleType = importlib.import_module(
            f"pretune.{package_name}._{wrapper}"
        ).build_family(wrapped)
        return wrapped_module
    known = list_names(package_name)
    name = ALIASES.get((package_name, name), name)
    if name not in known:
        raise ConfigError(f"{package_name}: there is no {name!r}; {suggestion(name, known)}")
    return load_module(f"pretune.{package_name}.{name}")


def load_module(name: str) -> ModuleType:
    """A module of ours by its dotted name.

    Raises:
        UsageError: a library that it needs is not installed; names the extra that brings it.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        usage_error = missing_library(error)
        if usage_error is None:
            raise
        raise usage_error from None
