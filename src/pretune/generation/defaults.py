"""How a model is meant to be decoded: what its generation_config.json says, or our own way."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pretune.config import build
from pretune.errors import CheckpointError, ConfigError
from pretune.generation.sampling import Sampling
from pretune.types import Specials

FILE = "generation_config.json"

STOCK = {"temperature": 1.0, "top_k": 50, "top_p": 1.0, "min_p": 0.0}
"""What transformers takes for a setting that the file leaves out."""
ALWAYS = {"repetition_penalty": 1.0, "no_repeat_ngram_size": 0}
"""Of these, what holds where nothing is drawn, too."""


@dataclass(frozen=True, slots=True)
class Defaults:
    """The sampling that a model's maker chose, and the tokens that end a text."""

    sampling: Sampling = field(default_factory=Sampling)
    ends: tuple[int, ...] = ()
    kept: Mapping[str, Any] = field(default_factory=dict)
    """The rest of the file, which goes along when the model is saved."""

    @classmethod
    def of(cls, specials: Specials) -> Defaults:
        """Our own, for a model that is made here."""
        return cls(ends=() if specials.end is None else (specials.end,))

    @classmethod
    def load(cls, folder: Path, config: Mapping[str, Any], specials: Specials) -> Defaults:
        """Those of a folder; without a generation_config.json ours, with the end tokens of its config.json.

        Raises:
            CheckpointError: the file is damaged, or asks for what cannot be.
        """
        path = folder / FILE
        try:
            values = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{path}: cannot be read as JSON: {error}") from None
        if values is not None and not isinstance(values, dict):
            raise CheckpointError(f"{path}: expected a JSON object, found {type(values).__name__}")
        told = next(
            (v["eos_token_id"] for v in (values or {}, config) if v.get("eos_token_id") is not None), None
        )
        ends = _ids(told, specials, path if values else folder / "config.json")
        if values is None:
            return cls(ends=ends)
        known = (*STOCK, *ALWAYS, "do_sample", "eos_token_id")
        kept = {key: value for key, value in values.items() if key not in known}
        return cls(_sampling(values, path), ends, kept)

    def write(self, folder: Path, specials: Specials) -> None:
        """Write the file with which stock ``generate`` decodes in the same way."""
        chosen = self.sampling.model_dump()
        values = {**self.kept, "do_sample": chosen["temperature"] > 0}
        if not values["do_sample"]:
            chosen = {key: chosen[key] for key in ALWAYS}
        values |= {key: value for key, value in chosen.items() if value or key == "top_k"}
        values |= {"bos_token_id": specials.start, "pad_token_id": specials.pad}
        values["eos_token_id"] = self.ends[0] if len(self.ends) == 1 else list(self.ends) or None
        text = json.dumps({key: value for key, value in values.items() if value is not None}, indent=2)
        (folder / FILE).write_text(text + "\n", encoding="utf-8")


def _ids(told: Any, specials: Specials, path: Path) -> tuple[int, ...]:
    if told is None:
        return () if specials.end is None else (specials.end,)
    ids = told if isinstance(told, list) else [told]
    if not all(isinstance(id, int) and id >= 0 for id in ids):
        raise CheckpointError(f"{path}: eos_token_id = {told!r}: expected an id, or a list of ids")
    return tuple(dict.fromkeys(ids))


def _sampling(values: Mapping[str, Any], path: Path) -> Sampling:
    """As transformers reads the file: nothing is drawn unless it says ``do_sample``."""
    told = {key: values[key] for key in (*STOCK, *ALWAYS) if values.get(key) is not None}
    if values.get("do_sample"):
        chosen = {**STOCK, **ALWAYS, **told}
    else:
        chosen = {**ALWAYS, **{key: told[key] for key in ALWAYS if key in told}, "temperature": 0.0}
    try:
        return build(Sampling, chosen, where=str(path))
    except ConfigError as error:
        raise CheckpointError(str(error)) from None
