"""How a model is meant to be decoded: what its generation_config.json says, or our own way."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pretune.config import build_settings
from pretune.errors import CheckpointError, ConfigError, quote
from pretune.generation.sampling import Sampling, TokenConstraint
from pretune.generation.settings import Decoding, LengthLimits
from pretune.runtime.json_files import read_json_object
from pretune.types import SpecialTokens

FILE_NAME = "generation_config.json"

STOCK_DEFAULTS = {"temperature": 1.0, "top_k": 50, "top_p": 1.0, "min_p": 0.0}
"""What transformers takes for a setting that the file leaves out."""
PENALTY_DEFAULTS = {"repetition_penalty": 1.0, "no_repeat_ngram_size": 0}
"""Of these, what holds where nothing is drawn, too."""
DECODING_KEYS = {
    "max_new_tokens": "max_new_tokens", "max_length": "max_length", "min_new_tokens": "min_new_tokens",
    "min_length": "min_length", "num_beams": "num_beams", "num_return_sequences": "num_return_sequences",
    "length_penalty": "length_penalty", "early_stopping": "early_stopping", "stop_strings": "stop",
}  # fmt: skip
"""Keys of the file that are settings of ours, with their names here."""
TOKEN_KEYS = (
    "eos_token_id", "decoder_start_token_id", "forced_bos_token_id", "forced_eos_token_id", "bad_words_ids",
    "suppress_tokens", "begin_suppress_tokens",
)  # fmt: skip
"""Keys of the file that force or forbid tokens."""
UNSUPPORTED_KEYS = {
    "renormalize_logits": False, "remove_invalid_values": False, "exponential_decay_length_penalty": None,
    "sequence_bias": None, "guidance_scale": 1, "watermarking_config": None, "penalty_alpha": 0,
    "encoder_repetition_penalty": 1, "encoder_no_repeat_ngram_size": 0, "num_beam_groups": 1,
    "diversity_penalty": 0, "constraints": None, "force_words_ids": None, "dola_layers": None,
    "token_healing": False, "max_time": None,
}  # fmt: skip
"""Keys that change what stock transformers writes and that pretune does not have, with what means nothing."""
UNSUPPORTED_SAMPLING_KEYS = {"typical_p": 1, "epsilon_cutoff": 0, "eta_cutoff": 0, "top_h": None}
"""The same of keys that count only where tokens are drawn."""
LENGTH_KEYS = (("max_new_tokens", "max_length"), ("min_new_tokens", "min_length"))
"""Two ways to say one length: whoever gives one of them leaves the other behind."""
MAX_SHOWN_CHARACTERS = 60
"""Characters of a value of the file that a message repeats."""


@dataclass(frozen=True, slots=True)
class GenerationConfig:
    """The way of decoding that a model's maker chose, and the tokens that end a text."""

    sampling: Sampling = field(default_factory=Sampling)
    eos_ids: tuple[int, ...] = ()
    other_values: Mapping[str, Any] = field(default_factory=dict)
    """The rest of the file, which goes along when the model is saved."""
    decoder_start_id: int | None = None
    """What the decoder of an encoder-decoder begins with; None for a decoder only."""
    forced_bos_ids: tuple[int, ...] = ()
    """Ids of which one must follow on a text of one token, such as the start of a decoder."""
    forced_eos_ids: tuple[int, ...] = ()
    """Ids of which one ends a text that is as long as it may be."""
    suppress_ids: tuple[int, ...] = ()
    """Ids that must not come at all."""
    begin_suppress_ids: tuple[int, ...] = ()
    """Ids that must not come first; where the first is forced, second."""
    bad_words_ids: tuple[tuple[int, ...], ...] = ()
    """Runs of ids, at least two each, that must not come."""
    decoding: Mapping[str, Any] = field(default_factory=dict)
    """Settings of `Decoding` that hold where a caller leaves them out."""
    unsupported: tuple[str, ...] = ()
    """What the file asks for and pretune does not do, as ``key = value``."""

    @classmethod
    def from_specials(cls, specials: SpecialTokens, decoder_start_id: int | None = None) -> GenerationConfig:
        """Our own, for a model that is made here; ``decoder_start_id``: what the decoder of an
        encoder-decoder reads.
        """
        return cls(
            eos_ids=() if specials.eos_id is None else (specials.eos_id,), decoder_start_id=decoder_start_id
        )

    def fill_in(self, decoding: Decoding) -> Decoding:
        """What a caller gives, and for the rest the model's own way.

        Whoever asks to draw gets one drawn text, and no beams.

        Raises:
            ConfigError: both do not fit together.
        """
        given = {key: value for key, value in decoding if key in decoding.model_fields_set}
        model_values = dict(self.decoding)
        for pair in LENGTH_KEYS:
            if any(key in given for key in pair):
                model_values = {key: value for key, value in model_values.items() if key not in pair}
        if "max_new_tokens" in given and "min_new_tokens" in model_values:
            model_values["min_new_tokens"] = min(model_values["min_new_tokens"], given["max_new_tokens"])
        if decoding.sampling is not None and decoding.sampling.temperature > 0:
            model_values.pop("num_beams", None)
        return build_settings(Decoding, {**model_values, **given}, where="generate")

    def build_constraint(self, count: int, limits: LengthLimits, tokens: Sequence[int]) -> TokenConstraint:
        """What token number ``count`` behind a prompt may be, ``tokens`` being all that stands before it."""
        forces_first = limits.prompt_length == 1 and self.forced_bos_ids
        if count == limits.max_new_tokens and self.forced_eos_ids:
            return TokenConstraint(forced=self.forced_eos_ids)
        if count == 1 and forces_first:
            return TokenConstraint(forced=self.forced_bos_ids)
        forbidden = [*self.suppress_ids, *(self.eos_ids if count <= limits.min_new_tokens else ())]
        if count == (2 if forces_first else 1):
            forbidden += self.begin_suppress_ids
        forbidden += [word[-1] for word in self.bad_words_ids if tuple(tokens[1 - len(word) :]) == word[:-1]]
        return TokenConstraint(tuple(forbidden))

    @classmethod
    def load(
        cls,
        folder: Path,
        config: Mapping[str, Any],
        specials: SpecialTokens,
        decoder_start_id: int | None = None,
    ) -> GenerationConfig:
        """Those of a folder: of generation_config.json or, as stock does it, of such keys in config.json.

        Where neither says how tokens are chosen, it is our own way. ``decoder_start_id`` as in `of`: it
        holds where the files name no other.

        Raises:
            CheckpointError: the file is damaged, or asks for what cannot be.
        """
        path = folder / FILE_NAME
        values = read_json_object(path) if path.exists() else None
        given, where = (config, folder / "config.json") if values is None else (values, path)
        given = {key: value for key, value in given.items() if value is not None}
        all_values = {**config, **given}
        width = config.get("vocab_size")
        vocab_size = max(specials.vocabulary_size, width if isinstance(width, int) else 0)
        eos_ids = (
            _read_ids("eos_token_id", all_values, where, vocab_size) or cls.from_specials(specials).eos_ids
        )
        if decoder_start_id is not None:
            decoder_start_id = next(
                iter(_read_ids("decoder_start_token_id", all_values, where, vocab_size)), decoder_start_id
            )
        words = _read_bad_words(given, where, vocab_size, eos_ids)
        single = [word[0] for word in words if len(word) == 1]
        uses_own_sampling = values is None and not any(
            key in given for key in (*STOCK_DEFAULTS, *PENALTY_DEFAULTS, "do_sample")
        )
        return cls(
            sampling=Sampling() if uses_own_sampling else _read_sampling(given, where),
            eos_ids=eos_ids,
            other_values=_other_values(values, given),
            decoder_start_id=decoder_start_id,
            forced_bos_ids=_read_ids("forced_bos_token_id", given, where, vocab_size),
            forced_eos_ids=_read_ids("forced_eos_token_id", given, where, vocab_size),
            suppress_ids=(*single, *_read_known_ids("suppress_tokens", given, where, vocab_size)),
            begin_suppress_ids=_read_known_ids("begin_suppress_tokens", given, where, vocab_size),
            bad_words_ids=tuple(word for word in words if len(word) > 1),
            decoding=_read_decoding(given, where),
            unsupported=_find_unsupported(given),
        )  # fmt: skip

    def save(self, folder: Path, specials: SpecialTokens) -> None:
        """Write the file with which stock ``generate`` decodes in the same way."""
        sampling = self.sampling.model_dump()
        values = {**self.other_values, "do_sample": sampling["temperature"] > 0}
        if not values["do_sample"]:
            sampling = {key: sampling[key] for key in PENALTY_DEFAULTS}
        values |= {key: value for key, value in sampling.items() if value or key == "top_k"}
        values |= {"bos_token_id": specials.bos_id, "pad_token_id": specials.pad_id}
        values |= {
            "eos_token_id": _to_json_ids(self.eos_ids),
            "decoder_start_token_id": self.decoder_start_id,
        }
        values |= {
            "forced_bos_token_id": _to_json_ids(self.forced_bos_ids),
            "forced_eos_token_id": _to_json_ids(self.forced_eos_ids),
        }
        text = json.dumps({key: value for key, value in values.items() if value is not None}, indent=2)
        (folder / FILE_NAME).write_text(text + "\n", encoding="utf-8")


def _other_values(values: Mapping[str, Any] | None, model_config: Mapping[str, Any]) -> dict[str, Any]:
    """What goes along of the file, or, where config.json takes its place, of the keys of such a file."""
    known = (*STOCK_DEFAULTS, *PENALTY_DEFAULTS, "do_sample", "eos_token_id")
    if values is not None:
        return {key: value for key, value in values.items() if key not in known}
    ours = (*DECODING_KEYS, *TOKEN_KEYS, *UNSUPPORTED_KEYS, *UNSUPPORTED_SAMPLING_KEYS)
    return {key: value for key, value in model_config.items() if key in ours and key not in known}


def _read_ids(key: str, values: Mapping[str, Any], path: Path, vocab_size: int) -> tuple[int, ...]:
    value = values.get(key)
    if value is None:
        return ()
    ids = value if isinstance(value, list) else [value]
    if not all(isinstance(id, int) and 0 <= id < vocab_size for id in ids):
        raise CheckpointError(
            f"{path}: {key} = {quote(value)}: expected an id below {vocab_size}, or a list of such"
        )
    return tuple(dict.fromkeys(ids))


def _read_known_ids(key: str, values: Mapping[str, Any], path: Path, vocab_size: int) -> tuple[int, ...]:
    """The ids of a list that the vocabulary has; stock passes over the others."""
    value = values.get(key, [])
    if not isinstance(value, list) or not all(isinstance(id, int) for id in value):
        raise CheckpointError(f"{path}: {key} = {_shorten(value)}: expected a list of ids")
    return tuple(dict.fromkeys(id for id in value if 0 <= id < vocab_size))


def _read_bad_words(
    values: Mapping[str, Any], path: Path, vocab_size: int, eos_ids: Sequence[int]
) -> tuple[tuple[int, ...], ...]:
    """The forbidden words, such as the padding that Marian must not write; an end of a text is none."""
    value = values.get("bad_words_ids", [])
    lists = [word for word in value if isinstance(word, list)] if isinstance(value, list) else []
    good = all(word and all(isinstance(id, int) and 0 <= id < vocab_size for id in word) for word in lists)
    if not isinstance(value, list) or len(lists) < len(value) or not good:
        raise CheckpointError(
            f"{path}: bad_words_ids = {_shorten(value)}: expected a list of lists of ids below {vocab_size}"
        )
    return tuple(tuple(word) for word in lists if not (len(word) == 1 and word[0] in eos_ids))


def _to_json_ids(ids: tuple[int, ...]) -> int | list[int] | None:
    return ids[0] if len(ids) == 1 else list(ids) or None


def _shorten(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= MAX_SHOWN_CHARACTERS else text[:MAX_SHOWN_CHARACTERS] + "..."


def _read_sampling(values: Mapping[str, Any], path: Path) -> Sampling:
    """As transformers reads the file: nothing is drawn unless it says ``do_sample``."""
    given = {key: values[key] for key in (*STOCK_DEFAULTS, *PENALTY_DEFAULTS) if values.get(key) is not None}
    if values.get("do_sample"):
        chosen = {**STOCK_DEFAULTS, **PENALTY_DEFAULTS, **given}
    else:
        chosen = {
            **PENALTY_DEFAULTS,
            **{key: given[key] for key in PENALTY_DEFAULTS if key in given},
            "temperature": 0.0,
        }
    try:
        return build_settings(Sampling, chosen, where=str(path))
    except ConfigError as error:
        raise CheckpointError(str(error)) from None


def _read_decoding(values: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The settings of `Decoding` in the file, as far as they say anything."""
    given = {name: values[key] for key, name in DECODING_KEYS.items() if key in values}
    if isinstance(given.get("stop"), str):
        given["stop"] = [given["stop"]]
    min_new_tokens, max_new_tokens = given.get("min_new_tokens"), given.get("max_new_tokens")
    if max_new_tokens is None and "max_length" not in given:
        max_new_tokens = Decoding().max_new_tokens
    if isinstance(min_new_tokens, int) and isinstance(max_new_tokens, int):
        given["min_new_tokens"] = min(
            min_new_tokens, max_new_tokens
        )  # stock, too, ends a text that is as long as it may be
    try:
        checked = build_settings(Decoding, given, where=str(path))
    except ConfigError as error:
        raise CheckpointError(str(error)) from None
    return {key: value for key, value in checked if key in given}


def _find_unsupported(values: Mapping[str, Any]) -> tuple[str, ...]:
    """What the file asks for and pretune does not do."""
    drawn = bool(values.get("do_sample"))
    without = {**UNSUPPORTED_KEYS, **(UNSUPPORTED_SAMPLING_KEYS if drawn else {})}
    found = [
        f"{key} = {_shorten(values[key])}"
        for key, nothing in without.items()
        if key in values and values[key] != nothing
    ]
    if drawn and values.get("num_beams", 1) != 1:
        found.append(
            f"do_sample = True beside num_beams = {_shorten(values['num_beams'])} (beams draw nothing)"
        )
    return tuple(found)
