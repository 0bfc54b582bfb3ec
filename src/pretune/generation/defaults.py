"""How a model is meant to be decoded: what its generation_config.json says, or our own way."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pretune.config import build
from pretune.errors import CheckpointError, ConfigError, quote
from pretune.generation.sampling import Sampling
from pretune.json_files import read_json_object
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
    start: int | None = None
    """What the decoder of an encoder-decoder begins with; None for a decoder only."""
    first: tuple[int, ...] = ()
    """Of an encoder-decoder: ids of which one must be the first."""
    last: tuple[int, ...] = ()
    """Of an encoder-decoder: ids of which one ends a text that is as long as it may be."""
    never: tuple[int, ...] = ()
    """Of an encoder-decoder: ids that must not come at all."""

    @classmethod
    def of(cls, specials: Specials, start: int | None = None) -> Defaults:
        """Our own, for a model that is made here; ``start``: what the decoder of an encoder-decoder reads."""
        return cls(ends=() if specials.end is None else (specials.end,), start=start)

    def forbidden(self, count: int, least: int) -> tuple[int, ...]:
        """Ids that must not be token number ``count`` of a text of at least ``least`` tokens."""
        return (*self.never, *(self.ends if count <= least else ()))

    def forced(self, count: int, most: int) -> tuple[int, ...]:
        """Ids of which one must be token number ``count`` of a text of at most ``most`` tokens."""
        if count == most and self.last:
            return self.last
        return self.first if count == 1 else ()

    @classmethod
    def load(
        cls, folder: Path, config: Mapping[str, Any], specials: Specials, start: int | None = None
    ) -> Defaults:
        """Those of a folder; without a generation_config.json ours, with the tokens that config.json names.

        ``start`` as in `of`: it holds where the files name no other.

        Raises:
            CheckpointError: the file is damaged, or asks for what cannot be.
        """
        path = folder / FILE
        values = read_json_object(path) if path.exists() else None
        told, where = (config, folder / "config.json") if values is None else (values, path)
        either = {**config, **{key: value for key, value in told.items() if value is not None}}
        width = config.get("vocab_size")
        size = max(specials.vocabulary_size, width if isinstance(width, int) else 0)
        tokens: dict[str, Any] = {"ends": _ids("eos_token_id", either, where, size) or cls.of(specials).ends}
        if start is not None:
            begin = _ids("decoder_start_token_id", either, where, size)
            tokens["start"] = begin[0] if begin else start
            tokens["first"] = _ids("forced_bos_token_id", told, where, size)
            tokens["last"] = _ids("forced_eos_token_id", told, where, size)
            tokens["never"] = _single(told.get("bad_words_ids"), size)
        if values is None:
            return cls(**tokens)
        known = (*STOCK, *ALWAYS, "do_sample", "eos_token_id")
        kept = {key: value for key, value in values.items() if key not in known}
        return cls(_sampling(values, path), kept=kept, **tokens)

    def write(self, folder: Path, specials: Specials) -> None:
        """Write the file with which stock ``generate`` decodes in the same way."""
        chosen = self.sampling.model_dump()
        values = {**self.kept, "do_sample": chosen["temperature"] > 0}
        if not values["do_sample"]:
            chosen = {key: chosen[key] for key in ALWAYS}
        values |= {key: value for key, value in chosen.items() if value or key == "top_k"}
        values |= {"bos_token_id": specials.start, "pad_token_id": specials.pad}
        values |= {"eos_token_id": _told(self.ends), "decoder_start_token_id": self.start}
        values |= {"forced_bos_token_id": _told(self.first), "forced_eos_token_id": _told(self.last)}
        if self.never:
            values.setdefault("bad_words_ids", [[id] for id in self.never])
        text = json.dumps({key: value for key, value in values.items() if value is not None}, indent=2)
        (folder / FILE).write_text(text + "\n", encoding="utf-8")


def _ids(key: str, values: Mapping[str, Any], path: Path, size: int) -> tuple[int, ...]:
    told = values.get(key)
    if told is None:
        return ()
    ids = told if isinstance(told, list) else [told]
    if not all(isinstance(id, int) and 0 <= id < size for id in ids):
        raise CheckpointError(
            f"{path}: {key} = {quote(told)}: expected an id below {size}, or a list of such"
        )
    return tuple(dict.fromkeys(ids))


def _single(words: Any, size: int) -> tuple[int, ...]:
    """Those of the forbidden words that are a token each, such as the padding that Marian must not write."""
    listed = [word for word in words if isinstance(word, list)] if isinstance(words, list) else []
    ids = [word[0] for word in listed if len(word) == 1]
    return tuple(id for id in ids if isinstance(id, int) and 0 <= id < size)


def _told(ids: tuple[int, ...]) -> int | list[int] | None:
    return ids[0] if len(ids) == 1 else list(ids) or None


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
