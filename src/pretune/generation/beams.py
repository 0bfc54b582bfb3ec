"""Beam search for the likeliest continuation (Wu et al. 2016, section 7), as stock transformers does it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pretune.generation.config import Defaults
from pretune.generation.decoder_state import Prompt, Reader
from pretune.generation.detokenizer import Writer
from pretune.generation.sampling import Sampling, adjusted
from pretune.generation.sampling_loop import Continuation
from pretune.generation.settings import Decoding, Limits
from pretune.text.tokenizer import Tokenizer

NONE = -1e9
"""The score of a place that no beam has yet."""


@dataclass(frozen=True, slots=True)
class _Finished:
    score: float
    tokens: tuple[int, ...]


@torch.inference_mode()
def search(
    network: nn.Module,
    tokenizer: Tokenizer,
    prompt: Prompt,
    decoding: Decoding,
    sampling: Sampling,
    defaults: Defaults,
    limits: Limits,
    *,
    max_length: int,
) -> list[Continuation]:
    """The ``num_return_sequences`` best continuations of a prompt, best first."""
    width, limit, ends = decoding.num_beams, limits.most, defaults.ends
    if not limit:
        return [Continuation("", (), "length", 0.0)] * decoding.num_return_sequences
    reader = Reader(network, [prompt], max_length=max_length, caching=decoding.cache)
    logits = reader.read()
    scores = torch.zeros(1)  # of the running beams; at first there is one
    finished: list[_Finished] = []
    for count in range(1, limit + 1):
        logs = logits.float().log_softmax(-1)
        history = reader.history() if sampling.looks_back else None
        rules = [defaults.restriction(count, limits, text) for text in reader.texts]
        logs = adjusted(logs, sampling, history, rules)
        values, beams, tokens = _best(logs + scores[:, None], max(2, 1 + len(ends)) * width)
        written = [
            (*reader.texts[beam][len(prompt.tokens) :], token)
            for beam, token in zip(beams, tokens, strict=True)
        ]
        over = [count == limit or _ends(text, ends, decoding, tokenizer, prompt) for text in written]
        closed = len(finished) == width and decoding.early_stopping is True
        finished += [
            _Finished(value / count**decoding.length_penalty, text)
            for value, text, ended in zip(values[:width], written[:width], over[:width], strict=True)
            if ended and not closed and value > NONE
        ]
        finished = sorted(finished, key=lambda beam: -beam.score)[:width]
        running = [k for k, ended in enumerate(over) if not ended and values[k] > NONE][:width]
        if not running or not _may_improve(values[running[0]], finished, count, limit, decoding):
            break
        reader.select([beams[k] for k in running])
        scores = torch.tensor([values[k] for k in running])
        logits = reader.add([tokens[k] for k in running])
    return [
        _continuation(beam, tokenizer, prompt, decoding, ends)
        for beam in finished[: decoding.num_return_sequences]
    ]


def _best(sums: Tensor, count: int) -> tuple[list[float], list[int], list[int]]:
    """The greatest of (K, V) sums: their values, beams and tokens."""
    values, places = sums.flatten().topk(min(count, sums.numel()))
    size = sums.shape[1]
    return values.tolist(), (places // size).tolist(), (places % size).tolist()


def _ends(
    text: Sequence[int], ends: Sequence[int], decoding: Decoding, tokenizer: Tokenizer, prompt: Prompt
) -> bool:
    if text[-1] in ends:
        return True
    return bool(decoding.stop) and _write(text, tokenizer, prompt, decoding).reason == "stop"


def _may_improve(
    best: float, finished: Sequence[_Finished], count: int, limit: int, decoding: Decoding
) -> bool:
    """Can a running beam still come among the finished, at its present length (or, if asked, at any)?"""
    if len(finished) < decoding.num_beams:
        return True
    if decoding.early_stopping is True:
        return False
    length = limit if decoding.early_stopping == "never" and decoding.length_penalty > 0 else count
    return bool(best / length**decoding.length_penalty > finished[-1].score)


def _write(text: Sequence[int], tokenizer: Tokenizer, prompt: Prompt, decoding: Decoding) -> Writer:
    writer = Writer(tokenizer, prompt.context, decoding.stop)
    for token in text:
        writer.take(token)
        if writer.reason:
            break
    return writer


def _continuation(
    beam: _Finished, tokenizer: Tokenizer, prompt: Prompt, decoding: Decoding, ends: Sequence[int]
) -> Continuation:
    ended = beam.tokens[-1] in ends
    tokens = beam.tokens[:-1] if ended else beam.tokens
    writer = _write(tokens, tokenizer, prompt, decoding)
    if not writer.reason:
        writer.finish("end" if ended else "length")
    return Continuation(writer.text, tokens, writer.reason, beam.score)
