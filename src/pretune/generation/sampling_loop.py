"""The loop that draws tokens, one after another, for several texts at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pretune.generation.config import Defaults
from pretune.generation.decoder_state import Prompt, Reader
from pretune.generation.detokenizer import Reason, Writer
from pretune.generation.sampling import Sampling, adjusted, draw, stream
from pretune.generation.settings import Decoding, Limits
from pretune.text.tokenizer import Tokenizer


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
    limits: Sequence[Limits],
    numbers: Sequence[int] = (0,),
) -> Iterator[tuple[int, str, Writer]]:
    """Text as it is written: (row, new text, all of the row so far); a row's last has a ``reason``.

    Rows are the prompts, each with its ``limits``, and each once for every one of ``numbers``. The same seed,
    number and prompt give the same text, whatever stands beside it, up to the rounding of matrix products.

    Where a text outgrows ``max_length`` its beginning is forgotten: see `reader.Reader`.
    """
    each = len(numbers)
    writers = [Writer(tokenizer, prompt.context, decoding.stop) for prompt in prompts for _ in numbers]
    streams = [stream(decoding.seed, number) for _ in prompts for number in numbers]
    bounds = [limit for limit in limits for _ in numbers]
    live = list(range(len(writers)))
    if not all(limit.most for limit in limits):
        yield from ((row, writers[row].finish("length"), writers[row]) for row in live)
        return
    reader = Reader(network, prompts, max_length=max_length, caching=decoding.cache)
    logits = reader.read()  # (B, V)
    if each > 1:
        copies = [n for n in range(len(prompts)) for _ in range(each)]
        reader.select(copies)
        logits = logits[copies]
    for count in range(1, max(limit.most for limit in limits) + 1):
        history = reader.history() if sampling.looks_back else None
        rules = [
            defaults.restriction(count, bounds[row], text)
            for row, text in zip(live, reader.texts, strict=True)
        ]
        tokens = _draw(adjusted(logits, sampling, history, rules), sampling, [streams[row] for row in live])
        for row, token in zip(live, tokens, strict=True):
            new = writers[row].finish("end") if token in defaults.ends else writers[row].take(token)
            if not writers[row].reason and count == bounds[row].most:
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
