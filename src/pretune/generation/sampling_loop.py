"""The loop that draws tokens, one after another, for several texts at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pretune.generation.config import GenerationConfig
from pretune.generation.decoder_state import DecoderState, Prompt
from pretune.generation.detokenizer import FinishReason, StreamingDetokenizer
from pretune.generation.sampling import Sampling, build_generator, process_logits, sample
from pretune.generation.settings import Decoding, LengthLimits
from pretune.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Continuation:
    """What a model wrote behind a prompt."""

    text: str
    tokens: tuple[int, ...]
    """As they were drawn, the token that ended the text left out."""
    finish_reason: FinishReason
    """``end``: the model ended the text; ``stop``: a stop string came; ``length``: enough tokens."""
    score: float | None = None
    """Of a beam: its log-probability divided by its length to the power of the length penalty."""


@torch.inference_mode()
def stream_tokens(
    network: nn.Module,
    tokenizer: Tokenizer,
    prompts: Sequence[Prompt],
    decoding: Decoding,
    sampling: Sampling,
    generation_config: GenerationConfig,
    *,
    max_length: int,
    limits: Sequence[LengthLimits],
    sequence_numbers: Sequence[int] = (0,),
) -> Iterator[tuple[int, str, StreamingDetokenizer]]:
    """Text as it is written: (row, new text, all of the row so far); a row's last has a ``reason``.

    Rows are the prompts, each with its ``limits``, and each once for every one of ``sequence_numbers``. The
    same seed, number and prompt give the same text, whatever stands beside it, up to the rounding of matrix
    products.

    Where a text outgrows ``max_length`` its beginning is forgotten: see `reader.Reader`.
    """
    num_sequences = len(sequence_numbers)
    detokenizers = [
        StreamingDetokenizer(tokenizer, prompt.context, decoding.stop)
        for prompt in prompts
        for _ in sequence_numbers
    ]
    generators = [build_generator(decoding.seed, number) for _ in prompts for number in sequence_numbers]
    row_limits = [limit for limit in limits for _ in sequence_numbers]
    live = list(range(len(detokenizers)))
    if not all(limit.max_new_tokens for limit in limits):
        yield from ((row, detokenizers[row].finish("length"), detokenizers[row]) for row in live)
        return
    state = DecoderState(network, prompts, max_length=max_length, use_cache=decoding.use_cache)
    logits = state.prefill()  # (B, V)
    if num_sequences > 1:
        copies = [n for n in range(len(prompts)) for _ in range(num_sequences)]
        state.select(copies)
        logits = logits[copies]
    for count in range(1, max(limit.max_new_tokens for limit in limits) + 1):
        history = state.history() if sampling.needs_history else None
        constraints = [
            generation_config.build_constraint(count, row_limits[row], text)
            for row, text in zip(live, state.texts, strict=True)
        ]
        tokens = _sample(
            process_logits(logits, sampling, history, constraints),
            sampling,
            [generators[row] for row in live],
        )
        for row, token in zip(live, tokens, strict=True):
            new = (
                detokenizers[row].finish("end")
                if token in generation_config.eos_ids
                else detokenizers[row].push(token)
            )
            if not detokenizers[row].finish_reason and count == row_limits[row].max_new_tokens:
                new += detokenizers[row].finish("length")
            yield row, new, detokenizers[row]
        unfinished = [k for k, row in enumerate(live) if not detokenizers[row].finish_reason]
        if not unfinished:
            return
        if len(unfinished) < len(live):
            state.select(unfinished)
            live, tokens = [live[k] for k in unfinished], [tokens[k] for k in unfinished]
        logits = state.append(tokens)


def _sample(logits: Tensor, sampling: Sampling, generators: Sequence[torch.Generator]) -> list[int]:
    tokens: list[int] = sample(logits, sampling, generators).tolist()
    return tokens
