"""How a text is continued: what a caller may ask for, and what follows from it for one prompt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pydantic

from pretune.arguments import NonNegativeInt, PositiveInt, Seed
from pretune.config import Settings, build_settings
from pretune.errors import UsageError
from pretune.generation.sampling import Sampling

MAX_NUM_BEAMS, MAX_RETURN_SEQUENCES = 1024, 8192
"""Of a search, and of one prompt: each holds a row of logits over the vocabulary."""


class Decoding(Settings):
    """How a text is continued."""

    max_new_tokens: NonNegativeInt = 50
    max_length: PositiveInt | None = None
    """Tokens of the prompt and what is written behind it together, where no ``max_new_tokens`` is given; of
    an encoder-decoder those of its decoder, the one that it begins with among them."""
    min_new_tokens: NonNegativeInt = 0
    """The model cannot end the text before."""
    min_length: NonNegativeInt | None = None
    """The same of prompt and text together, where no ``min_new_tokens`` is given."""
    stop: tuple[str, ...] = ()
    """Strings that end the text, which is cut before them."""
    num_return_sequences: int = pydantic.Field(default=1, ge=1, le=MAX_RETURN_SEQUENCES)
    num_beams: int = pydantic.Field(default=1, ge=1, le=MAX_NUM_BEAMS)
    """More than one: search for the likeliest text among so many at once, and draw nothing."""
    length_penalty: float = 1.0
    """The score of a beam is its log-probability divided by its length to this power (Wu et al. 2016)."""
    early_stopping: bool | Literal["never"] = False
    """True: beams end as soon as ``num_beams`` texts have ended; ``never``: only when no beam can become
    better at any length; False: when none can at its present length."""
    seed: Seed = 0
    use_cache: bool = True
    """Keep keys and values; without, the whole text is read anew for each token."""
    bidirectional_prompt: bool | None = None
    """Do the places of a decoder's prompt see each other both ways? None: as it was trained."""
    split_special_tokens: bool = False
    """Read the names of special tokens in a prompt as text, as they must be where a stranger wrote it."""
    apply_chat_template: bool = False
    """Put the prompt into the model's chat template, as what a user says."""
    sampling: Sampling | None = None
    """None: the model's own."""

    @pydantic.field_validator("stop")
    @classmethod
    def _check_stop(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if "" in value:
            raise ValueError("an empty string would stop every text at once; leave it out")
        return value

    @pydantic.model_validator(mode="after")
    def _check_consistency(self) -> Decoding:
        if self.counts_new_tokens and self.min_new_tokens > self.max_new_tokens:
            raise ValueError(
                f"min_new_tokens {self.min_new_tokens} is more than max_new_tokens {self.max_new_tokens}"
            )
        if self.split_special_tokens and self.apply_chat_template:
            raise ValueError(
                "split_special_tokens and apply_chat_template exclude each other: a template is made of "
                "special tokens"
            )
        if self.num_beams > 1 and self.num_return_sequences > self.num_beams:
            raise ValueError(
                f"num_return_sequences {self.num_return_sequences} is more than num_beams {self.num_beams}"
            )
        return self

    @property
    def counts_new_tokens(self) -> bool:
        """Does ``max_new_tokens`` decide, and not ``max_length``?"""
        return self.max_length is None or "max_new_tokens" in self.model_fields_set


def build_decoding(values: Mapping[str, Any]) -> Decoding:
    """The settings of ``values`` that are given, not None.

    Raises:
        ConfigError: names a wrong one.
    """
    return build_settings(
        Decoding, {key: value for key, value in values.items() if value is not None}, where="generate"
    )


@dataclass(frozen=True, slots=True)
class LengthLimits:
    """Lengths of the text that is written behind one prompt, in tokens."""

    prompt_length: int
    """That the text begins with: of an encoder-decoder the one that starts its decoder."""
    min_new_tokens: int
    """The model cannot end the text before."""
    max_new_tokens: int


def length_limits(decoding: Decoding, prompt_length: int, max_length: int | None = None) -> LengthLimits:
    """The lengths that ``decoding`` allows behind a prompt.

    Args:
        max_length: what the decoder of an encoder-decoder reads; None: it forgets the beginning and goes on.

    Raises:
        UsageError: ``max_length`` leaves no room behind the prompt.
    """
    max_new_tokens, min_new_tokens = decoding.max_new_tokens, decoding.min_new_tokens
    if decoding.max_length is not None and not decoding.counts_new_tokens:
        max_new_tokens = decoding.max_length - prompt_length
        if max_new_tokens < 1:
            raise UsageError(
                f"max_length = {decoding.max_length} leaves no room behind a prompt of {prompt_length:,} "
                "tokens: "
                "give max_new_tokens, which counts the new ones alone, or a shorter prompt"
            )
    if decoding.min_length is not None and "min_new_tokens" not in decoding.model_fields_set:
        min_new_tokens = max(0, decoding.min_length - prompt_length)
    max_new_tokens = max_new_tokens if max_length is None else min(max_new_tokens, max_length)
    return LengthLimits(prompt_length, min(min_new_tokens, max_new_tokens), max_new_tokens)


def check_decoding(decoding: Decoding, sampling: Sampling) -> None:
    """See that what is asked for makes sense with this sampling.

    Raises:
        UsageError: several texts, but nothing that makes them differ.
    """
    if decoding.num_beams == 1 and decoding.num_return_sequences > 1 and sampling.temperature == 0:
        raise UsageError(
            f"num_return_sequences = {decoding.num_return_sequences} at temperature 0 gives the same text "
            "each time; give a temperature, or num_beams"
        )
    if decoding.num_beams > 1 and decoding.sampling is not None and decoding.sampling.temperature > 0:
        raise UsageError(
            f"num_beams = {decoding.num_beams} searches and draws nothing; leave the sampling out, "
            "or give temperature 0"
        )
