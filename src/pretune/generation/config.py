"""How a model is meant to be decoded: what its generation_config.json says, or our own way."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pretune.config import build
from pretune.errors import CheckpointError, ConfigError, quote
from pretune.generation.sampling import Restriction, Sampling
from pretune.generation.settings import Decoding, Limits
from pretune.runtime.json_files import read_json_object
from pretune.types import Specials

FILE = "generation_config.json"

STOCK = {"temperature": 1.0, "top_k": 50, "top_p": 1.0, "min_p": 0.0}
"""What transformers takes for a setting that the file leaves out."""
ALWAYS = {"repetition_penalty": 1.0, "no_repeat_ngram_size": 0}
"""Of these, what holds where nothing is drawn, too."""
DECODING = {
    "max_new_tokens": "max_new_tokens", "max_length": "max_length", "min_new_tokens": "min_new_tokens",
    "min_length": "min_length", "num_beams": "num_beams", "num_return_sequences": "num_return_sequences",
    "length_penalty": "length_penalty", "early_stopping": "early_stopping", "stop_strings": "stop",
}  # fmt: skip
"""Keys of the file that are settings of ours, with their names here."""
TOKENS = (
    "eos_token_id", "decoder_start_token_id", "forced_bos_token_id", "forced_eos_token_id", "bad_words_ids",
    "suppress_tokens", "begin_suppress_tokens",
)  # fmt: skip
"""Keys of the file that force or forbid tokens."""
WITHOUT = {
    "renormalize_logits": False, "remove_invalid_values": False, "exponential_decay_length_penalty": None,
    "sequence_bias": None, "guidance_scale": 1, "watermarking_config": None, "penalty_alpha": 0,
    "encoder_repetition_penalty": 1, "encoder_no_repeat_ngram_size": 0, "num_beam_groups": 1,
    "diversity_penalty": 0, "constraints": None, "force_words_ids": None, "dola_layers": None,
    "token_healing": False, "max_time": None,
}  # fmt: skip
"""Keys that change what stock transformers writes and that pretune does not have, with what means nothing."""
WITHOUT_DRAWN = {"typical_p": 1, "epsilon_cutoff": 0, "eta_cutoff": 0, "top_h": None}
"""The same of keys that count only where tokens are drawn."""
LENGTHS = (("max_new_tokens", "max_length"), ("min_new_tokens", "min_length"))
"""Two ways to say one length: whoever gives one of them leaves the other behind."""
SHOWN = 60
"""Characters of a value of the file that a message repeats."""


@dataclass(frozen=True, slots=True)
class Defaults:
    """The way of decoding that a model's maker chose, and the tokens that end a text."""

    sampling: Sampling = field(default_factory=Sampling)
    ends: tuple[int, ...] = ()
    kept: Mapping[str, Any] = field(default_factory=dict)
    """The rest of the file, which goes along when the model is saved."""
    start: int | None = None
    """What the decoder of an encoder-decoder begins with; None for a decoder only."""
    first: tuple[int, ...] = ()
    """Ids of which one must follow on a text of one token, such as the start of a decoder."""
    last: tuple[int, ...] = ()
    """Ids of which one ends a text that is as long as it may be."""
    never: tuple[int, ...] = ()
    """Ids that must not come at all."""
    never_first: tuple[int, ...] = ()
    """Ids that must not come first; where the first is forced, second."""
    words: tuple[tuple[int, ...], ...] = ()
    """Runs of ids, at least two each, that must not come."""
    decoding: Mapping[str, Any] = field(default_factory=dict)
    """Settings of `Decoding` that hold where a caller leaves them out."""
    unused: tuple[str, ...] = ()
    """What the file asks for and pretune does not do, as ``key = value``."""

    @classmethod
    def of(cls, specials: Specials, start: int | None = None) -> Defaults:
        """Our own, for a model that is made here; ``start``: what the decoder of an encoder-decoder reads."""
        return cls(ends=() if specials.end is None else (specials.end,), start=start)

    def complete(self, decoding: Decoding) -> Decoding:
        """What a caller gives, and for the rest the model's own way.

        Whoever asks to draw gets one drawn text, and no beams.

        Raises:
            ConfigError: both do not fit together.
        """
        given = {key: value for key, value in decoding if key in decoding.model_fields_set}
        own = dict(self.decoding)
        for pair in LENGTHS:
            if any(key in given for key in pair):
                own = {key: value for key, value in own.items() if key not in pair}
        if "max_new_tokens" in given and "min_new_tokens" in own:
            own["min_new_tokens"] = min(own["min_new_tokens"], given["max_new_tokens"])
        if decoding.sampling is not None and decoding.sampling.temperature > 0:
            own.pop("num_beams", None)
        return build(Decoding, {**own, **given}, where="generate")

    def restriction(self, count: int, limits: Limits, text: Sequence[int]) -> Restriction:
        """What token number ``count`` behind a prompt may be, ``text`` being all that stands before it."""
        begins = limits.prompt == 1 and self.first
        if count == limits.most and self.last:
            return Restriction(forced=self.last)
        if count == 1 and begins:
            return Restriction(forced=self.first)
        forbidden = [*self.never, *(self.ends if count <= limits.least else ())]
        if count == (2 if begins else 1):
            forbidden += self.never_first
        forbidden += [word[-1] for word in self.words if tuple(text[1 - len(word) :]) == word[:-1]]
        return Restriction(tuple(forbidden))

    @classmethod
    def load(
        cls, folder: Path, config: Mapping[str, Any], specials: Specials, start: int | None = None
    ) -> Defaults:
        """Those of a folder: of generation_config.json or, as stock does it, of such keys in config.json.

        Where neither says how tokens are chosen, it is our own way. ``start`` as in `of`: it holds where the
        files name no other.

        Raises:
            CheckpointError: the file is damaged, or asks for what cannot be.
        """
        path = folder / FILE
        values = read_json_object(path) if path.exists() else None
        told, where = (config, folder / "config.json") if values is None else (values, path)
        told = {key: value for key, value in told.items() if value is not None}
        either = {**config, **told}
        width = config.get("vocab_size")
        size = max(specials.vocabulary_size, width if isinstance(width, int) else 0)
        ends = _ids("eos_token_id", either, where, size) or cls.of(specials).ends
        if start is not None:
            start = next(iter(_ids("decoder_start_token_id", either, where, size)), start)
        words = _words(told, where, size, ends)
        single = [word[0] for word in words if len(word) == 1]
        ours = values is None and not any(key in told for key in (*STOCK, *ALWAYS, "do_sample"))
        return cls(
            sampling=Sampling() if ours else _sampling(told, where),
            ends=ends,
            kept=_kept(values, told),
            start=start,
            first=_ids("forced_bos_token_id", told, where, size),
            last=_ids("forced_eos_token_id", told, where, size),
            never=(*single, *_known("suppress_tokens", told, where, size)),
            never_first=_known("begin_suppress_tokens", told, where, size),
            words=tuple(word for word in words if len(word) > 1),
            decoding=_decoding(told, where),
            unused=_unused(told),
        )  # fmt: skip

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
        text = json.dumps({key: value for key, value in values.items() if value is not None}, indent=2)
        (folder / FILE).write_text(text + "\n", encoding="utf-8")


def _kept(values: Mapping[str, Any] | None, told: Mapping[str, Any]) -> dict[str, Any]:
    """What goes along of the file, or, where config.json takes its place, of the keys of such a file."""
    known = (*STOCK, *ALWAYS, "do_sample", "eos_token_id")
    if values is not None:
        return {key: value for key, value in values.items() if key not in known}
    ours = (*DECODING, *TOKENS, *WITHOUT, *WITHOUT_DRAWN)
    return {key: value for key, value in told.items() if key in ours and key not in known}


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


def _known(key: str, values: Mapping[str, Any], path: Path, size: int) -> tuple[int, ...]:
    """The ids of a list that the vocabulary has; stock passes over the others."""
    told = values.get(key, [])
    if not isinstance(told, list) or not all(isinstance(id, int) for id in told):
        raise CheckpointError(f"{path}: {key} = {_cut(told)}: expected a list of ids")
    return tuple(dict.fromkeys(id for id in told if 0 <= id < size))


def _words(
    values: Mapping[str, Any], path: Path, size: int, ends: Sequence[int]
) -> tuple[tuple[int, ...], ...]:
    """The forbidden words, such as the padding that Marian must not write; an end of a text is none."""
    told = values.get("bad_words_ids", [])
    lists = [word for word in told if isinstance(word, list)] if isinstance(told, list) else []
    good = all(word and all(isinstance(id, int) and 0 <= id < size for id in word) for word in lists)
    if not isinstance(told, list) or len(lists) < len(told) or not good:
        raise CheckpointError(
            f"{path}: bad_words_ids = {_cut(told)}: expected a list of lists of ids below {size}"
        )
    return tuple(tuple(word) for word in lists if not (len(word) == 1 and word[0] in ends))


def _told(ids: tuple[int, ...]) -> int | list[int] | None:
    return ids[0] if len(ids) == 1 else list(ids) or None


def _cut(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."


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


def _decoding(values: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The settings of `Decoding` in the file, as far as they say anything."""
    told = {name: values[key] for key, name in DECODING.items() if key in values}
    if isinstance(told.get("stop"), str):
        told["stop"] = [told["stop"]]
    least, most = told.get("min_new_tokens"), told.get("max_new_tokens")
    if most is None and "max_length" not in told:
        most = Decoding().max_new_tokens
    if isinstance(least, int) and isinstance(most, int):
        told["min_new_tokens"] = min(least, most)  # stock, too, ends a text that is as long as it may be
    try:
        checked = build(Decoding, told, where=str(path))
    except ConfigError as error:
        raise CheckpointError(str(error)) from None
    return {key: value for key, value in checked if key in told}


def _unused(values: Mapping[str, Any]) -> tuple[str, ...]:
    """What the file asks for and pretune does not do."""
    drawn = bool(values.get("do_sample"))
    without = {**WITHOUT, **(WITHOUT_DRAWN if drawn else {})}
    found = [
        f"{key} = {_cut(values[key])}"
        for key, nothing in without.items()
        if key in values and values[key] != nothing
    ]
    if drawn and values.get("num_beams", 1) != 1:
        found.append(f"do_sample = True beside num_beams = {_cut(values['num_beams'])} (beams draw nothing)")
    return tuple(found)
