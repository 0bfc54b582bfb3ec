"""Beam search for the likeliest continuation (Wu et al. 2016, section 7), as stock transformers does it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pretune.generation.config import GenerationConfig
from pretune.generation.decoder_state import DecoderState, Prompt
from pretune.generation.detokenizer import StreamingDetokenizer
from pretune.generation.sampling import Sampling, process_logits
from pretune.generation.sampling_loop import Continuation
from pretune.generation.settings import Decoding, LengthLimits
from pretune.text.tokenizer import Tokenizer

EMPTY_SCORE = -1e9
"""The score of a place that no beam has yet."""


@dataclass(frozen=True, slots=True)
class _FinishedBeam:
    score: float
    tokens: tuple[int, ...]


@torch.inference_mode()
def beam_search(
    network: nn.Module,
    tokenizer: Tokenizer,
    prompt: Prompt,
    decoding: Decoding,
    sampling: Sampling,
    generation_config: GenerationConfig,
    limits: LengthLimits,
    *,
    max_length: int,
) -> list[Continuation]:
    """The ``num_return_sequences`` best continuations of a prompt, best first."""
    width, max_tokens, eos_ids = decoding.num_beams, limits.max_new_tokens, generation_config.eos_ids
    if not max_tokens:
        return [Continuation("", (), "length", 0.0)] * decoding.num_return_sequences
    state = DecoderState(network, [prompt], max_length=max_length, use_cache=decoding.use_cache)
    logits = state.prefill()
    scores = torch.zeros(1)  # of the running beams; at first there is one
    finished: list[_FinishedBeam] = []
    for count in range(1, max_tokens + 1):
        logs = logits.float().log_softmax(-1)
        history = state.history() if sampling.needs_history else None
        constraints = [generation_config.build_constraint(count, limits, text) for text in state.texts]
        logs = process_logits(logs, sampling, history, constraints)
        values, beams, tokens = _top_k(logs + scores[:, None], max(2, 1 + len(eos_ids)) * width)
        candidates = [
            (*state.texts[beam][len(prompt.tokens) :], token)
            for beam, token in zip(beams, tokens, strict=True)
        ]
        is_finished = [
            count == max_tokens or _is_finished(text, eos_ids, decoding, tokenizer, prompt)
            for text in candidates
        ]
        is_full = len(finished) == width and decoding.early_stopping is True
        finished += [
            _FinishedBeam(value / count**decoding.length_penalty, text)
            for value, text, finishes in zip(
                values[:width], candidates[:width], is_finished[:width], strict=True
            )
            if finishes and not is_full and value > EMPTY_SCORE
        ]
        finished = sorted(finished, key=lambda beam: -beam.score)[:width]
        running = [k for k, ended in enumerate(is_finished) if not ended and values[k] > EMPTY_SCORE][:width]
        if not running or not _can_improve(values[running[0]], finished, count, max_tokens, decoding):
            break
        state.select([beams[k] for k in running])
        scores = torch.tensor([values[k] for k in running])
        logits = state.append([tokens[k] for k in running])
    return [
        _to_continuation(beam, tokenizer, prompt, decoding, eos_ids)
        for beam in finished[: decoding.num_return_sequences]
    ]


def _top_k(sums: Tensor, count: int) -> tuple[list[float], list[int], list[int]]:
    """The greatest of (K, V) sums: their values, beams and tokens."""
    values, indices = sums.flatten().topk(min(count, sums.numel()))
    size = sums.shape[1]
    return values.tolist(), (indices // size).tolist(), (indices % size).tolist()


def _is_finished(
    tokens: Sequence[int], eos_ids: Sequence[int], decoding: Decoding, tokenizer: Tokenizer, prompt: Prompt
) -> bool:
    if tokens[-1] in eos_ids:
        return True
    return bool(decoding.stop) and _detokenize(tokens, tokenizer, prompt, decoding).finish_reason == "stop"


def _can_improve(
    best: float, finished: Sequence[_FinishedBeam], count: int, max_tokens: int, decoding: Decoding
) -> bool:
    """Can a running beam still come among the finished, at its present length (or, if asked, at any)?"""
    if len(finished) < decoding.num_beams:
        return True
    if decoding.early_stopping is True:
        return False
    length = max_tokens if decoding.early_stopping == "never" and decoding.length_penalty > 0 else count
    return bool(best / length**decoding.length_penalty > finished[-1].score)


def _detokenize(
    tokens: Sequence[int], tokenizer: Tokenizer, prompt: Prompt, decoding: Decoding
) -> StreamingDetokenizer:
    detokenizer = StreamingDetokenizer(tokenizer, prompt.context, decoding.stop)
    for token in tokens:
        detokenizer.push(token)
        if detokenizer.finish_reason:
            break
    return detokenizer


def _to_continuation(
    beam: _FinishedBeam, tokenizer: Tokenizer, prompt: Prompt, decoding: Decoding, eos_ids: Sequence[int]
) -> Continuation:
    has_eos = beam.tokens[-1] in eos_ids
    tokens = beam.tokens[:-1] if has_eos else beam.tokens
    detokenizer = _detokenize(tokens, tokenizer, prompt, decoding)
    if not detokenizer.finish_reason:
        detokenizer.finish("end" if has_eos else "length")
    return Continuation(detokenizer.text, tokens, detokenizer.finish_reason, beam.score)
