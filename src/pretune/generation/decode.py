"""The loop that draws tokens, one after another, for several texts at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pydantic
import torch
from torch import Tensor, nn

from pretune.arguments import Seed, Whole
from pretune.config import Settings
from pretune.errors import UsageError
from pretune.generation.defaults import Defaults
from pretune.generation.reader import Prompt, Reader
from pretune.generation.sampling import Sampling, adjusted, draw, stream
from pretune.generation.writer import Reason, Writer
from pretune.text.tokenizer import Tokenizer

MOST = 1024
"""Beams of a search, and texts of one prompt: each holds a row of logits over the vocabulary."""


class Decoding(Settings):
    """How a text is continued."""

    max_new_tokens: Whole = 50
    min_new_tokens: Whole = 0
    """The model cannot end the text before."""
    stop: tuple[str, ...] = ()
    """Strings that end the text, which is cut before them."""
    num_return_sequences: int = pydantic.Field(default=1, ge=1, le=MOST)
    num_beams: int = pydantic.Field(default=1, ge=1, le=MOST)
    """More than one: search for the likeliest text among so many at once, and draw nothing."""
    length_penalty: float = 1.0
    """The score of a beam is its log-probability divided by its length to this power (Wu et al. 2016)."""
    early_stopping: bool = False
    """Beams end as soon as ``num_beams`` texts have ended."""
    seed: Seed = 0
    cache: bool = True
    """Keep keys and values; without, the whole text is read anew for each token."""
    both_ways: bool | None = None
    """Do the places of a decoder's prompt see each other both ways? None: as it was trained."""
    sampling: Sampling | None = None
    """None: the model's own."""

    @pydantic.field_validator("stop")
    @classmethod
    def _no_empty_stop(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if "" in value:
            raise ValueError("an empty string would stop every text at once; leave it out")
        return value

    @pydantic.model_validator(mode="after")
    def _fits_together(self) -> Decoding:
        if self.min_new_tokens > self.max_new_tokens:
            raise ValueError(
                f"min_new_tokens {self.min_new_tokens} is more than max_new_tokens {self.max_new_tokens}"
            )
        if self.num_beams > 1 and self.num_return_sequences > self.num_beams:
            raise ValueError(
                f"num_return_sequences {self.num_return_sequences} is more than num_beams {self.num_beams}"
            )
        return self


@dataclass(frozen=True, slots=True)
class Continuation:
    """What a model wrote behind a prompt."""

    text: str
    tokens: tuple[int, ...]
    """As they were drawn, the token that ended the text left out."""
    reason: Reason
    """``end``: the model ended the text; ``stop``: a stop string came; ``length``: enough tokens."""
    score: float | None = None
    """Of a beam: its log-probability divided by its length to the power of the length penalty."""


def check(decoding: Decoding, sampling: Sampling) -> None:
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


@torch.inference_mode()
def write(
    network: nn.Module,
    tokenizer: Tokenizer,
    prompts: Sequence[Prompt],
    decoding: Decoding,
    sampling: Sampling,
    defaults: Defaults,
    *,
    max_length: int,
    numbers: Sequence[int] = (0,),
) -> Iterator[tuple[int, str, Writer]]:
    """Text as it is written: (row, new text, all of the row so far); a row's last has a ``reason``.

    Rows are the prompts, each once for every one of ``numbers``. The same seed, number and prompt give the
    same text, whatever stands beside it, up to the rounding of matrix products.

    Where a text outgrows ``max_length`` its beginning is forgotten: see `reader.Reader`.
    """
    each = len(numbers)
    writers = [Writer(tokenizer, prompt.context, decoding.stop) for prompt in prompts for _ in numbers]
    streams = [stream(decoding.seed, number) for _ in prompts for number in numbers]
    live = list(range(len(writers)))
    if not decoding.max_new_tokens:
        yield from ((row, writers[row].finish("length"), writers[row]) for row in live)
        return
    reader = Reader(network, prompts, max_length=max_length, caching=decoding.cache)
    logits = reader.read()  # (B, V)
    if each > 1:
        copies = [n for n in range(len(prompts)) for _ in range(each)]
        reader.select(copies)
        logits = logits[copies]
    for count in range(1, decoding.max_new_tokens + 1):
        history = reader.history() if sampling.looks_back else None
        forbidden = defaults.forbidden(count, decoding.min_new_tokens)
        forced = defaults.forced(count, decoding.max_new_tokens)
        logits = adjusted(logits, sampling, history, forbidden, forced)
        tokens = _draw(logits, sampling, [streams[row] for row in live])
        for row, token in zip(live, tokens, strict=True):
            new = writers[row].finish("end") if token in defaults.ends else writers[row].take(token)
            if not writers[row].reason and count == decoding.max_new_tokens:
                new += writers[row].finish("length")
            yield row, new, writers[row]
        kept = [k for k, row in enumerate(live) if not writers[row].reason]
        if not kept:
            return
        if len(kept) < len(live):
            reader.select(kept)
            live, tokens = [live[k] for k in kept], [tokens[k] for k in kept]
        logits = reader.add(tokens)


def _draw(logits: Tensor, sampling: Sampling, streams: Sequence[torch.Generator]) -> list[int]:
    tokens: list[int] = draw(logits, sampling, streams).tolist()
    return tokens
