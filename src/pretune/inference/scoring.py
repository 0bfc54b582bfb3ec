"""How probable a language model finds a text, a token at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from pretune.errors import UsageError
from pretune.inference.batching import iter_logits
from pretune.nn.cache import KVCache
from pretune.nn.nonfinite import check_finite
from pretune.objectives import causal_lm, masked_lm
from pretune.runtime.device import network_device
from pretune.text.segmentation import WORD_START, find_word_starts
from pretune.text.tokenizer import Tokenizer, replace_surrogates
from pretune.types import Batch, IntArray, Layout, SpecialTokens

MAX_LOGITS = 1 << 25
"""Logits that are held at once: 128 MiB in fp32."""


@dataclass(frozen=True, slots=True)
class TextScore:
    """How probable a model finds a text."""

    nll: float
    """Negative (pseudo-)log-probability of the whole text; a causal model's includes its end."""
    tokens: tuple[tuple[str, float], ...]
    """Each token with its own log-probability."""
    bits_per_byte: float
    pseudo: bool = False
    """A masked model's: each token was seen with what follows it, so it is no probability of the text."""

    @property
    def perplexity(self) -> float:
        """A token."""
        return math.exp(self.nll / len(self.tokens))


def score_causal(
    network: nn.Module,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    *,
    max_length: int,
    stride: int | None = None,
    within_word: bool = False,
) -> list[TextScore]:
    """The log-probability of each text: of its tokens and its end, each after all that stands before it.

    The text stands behind the start token, or the end token where there is no start. Of a text longer than
    ``max_length`` a window scores ``stride`` tokens, and reads what fits of those before them.

    Raises:
        UsageError: an empty text, or a stride that leaves tokens out.
    """
    if within_word:
        raise UsageError(
            "within_word is for masked models: a causal one never sees the later tokens of a word"
        )
    step = _check_stride(stride, max_length)
    rows = [_encode_text(tokenizer, text) for text in texts]
    windows = [
        window
        for row, ids in enumerate(rows)
        for window in _split_windows(row, len(ids) - 1, max_length, step)
    ]
    values: list[list[float]] = [[] for _ in texts]
    for batch in _batches(windows, tokenizer.vocabulary_size):
        inputs = [rows[row][begin : end + 1] for row, begin, _, end in batch]
        for (row, begin, first, _), logs in zip(
            batch, _token_log_probabilities(network, inputs, tokenizer), strict=True
        ):
            values[row] += logs[first - begin :]
    return [
        _build_score(tokenizer, text, ids[1:], logs, pseudo=False)
        for text, ids, logs in zip(texts, rows, values, strict=True)
    ]


def score_masked(
    network: nn.Module,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    *,
    max_length: int,
    stride: int | None = None,
    within_word: bool = False,
    head: str = masked_lm.HEAD,
) -> list[TextScore]:
    """The pseudo-log-likelihood of each text: each token masked in turn (Salazar et al. 2020).

    With ``within_word`` the later tokens of its word are masked, too, so that a word cannot give itself away
    (Kauf and Ivanova 2023). A text longer than ``max_length`` is read in windows, each of which scores the
    ``stride`` tokens in its middle.

    Raises:
        UsageError: an empty text, or a stride that leaves tokens out.
    """
    specials = tokenizer.specials
    if specials.mask_id is None:
        raise UsageError("this tokenizer has no mask token, and a masked model's score needs one")
    window_length = max_length - len(specials.single[0]) - len(specials.single[1])
    step = _check_stride(stride, window_length)
    found = []
    for text in texts:
        encoded = tokenizer.encode(text)
        if not len(encoded.ids):
            raise UsageError("there is nothing to score in an empty text")
        words = (
            (find_word_starts(text, encoded.offsets) & WORD_START).astype(np.int64).cumsum()
            if within_word
            else None
        )
        rows = _iter_masked_rows(encoded.ids, words, specials, window_length, step)
        logs = [
            float(logits.log_softmax(-1)[0, token])
            for logits, token in zip(
                iter_logits(network, head, rows, specials), encoded.ids.tolist(), strict=True
            )
        ]
        found.append(_build_score(tokenizer, text, encoded.ids.tolist(), logs, pseudo=True))
    return found


def _iter_masked_rows(
    ids: IntArray, word_ids: IntArray | None, specials: SpecialTokens, window_length: int, stride: int
) -> Iterator[tuple[IntArray, IntArray]]:
    """A row for each token: the window around it with the token masked, and where that is."""
    before, after = specials.single
    assert specials.mask_id is not None, "the caller has looked"
    for first in range(0, len(ids), stride) if len(ids) > window_length else (0,):
        last = min(len(ids), first + stride) if len(ids) > window_length else len(ids)
        begin = max(0, min(first - (window_length - stride) // 2, len(ids) - window_length))
        window = ids[begin : begin + window_length]
        for position in range(first, last):
            masked_window = window.copy()
            end = position + 1
            while word_ids is not None and end < len(ids) and word_ids[end] == word_ids[position]:
                end += 1
            masked_window[position - begin : end - begin] = specials.mask_id
            tokens = np.concatenate([before, masked_window, after]).astype(np.int64)
            yield tokens, np.array([len(before) + position - begin])


def _encode_text(tokenizer: Tokenizer, text: str) -> list[int]:
    specials = tokenizer.specials
    bos_id = specials.bos_id if specials.bos_id is not None else specials.eos_id
    ends = [] if specials.eos_id is None else [specials.eos_id]
    ids = [*([] if bos_id is None else [bos_id]), *tokenizer.encode(text).ids.tolist(), *ends]
    if len(ids) < 2:
        raise UsageError("there is nothing to score in an empty text")
    return ids


def _check_stride(requested: int | None, length: int) -> int:
    stride = max(1, length // 2) if requested is None else requested
    if not 1 <= stride <= length:
        raise UsageError(
            f"stride = {stride}: must be from 1 to {length}, the tokens that the model reads at once"
        )
    return stride


def _split_windows(
    row: int, num_inputs: int, window_length: int, stride: int
) -> list[tuple[int, int, int, int]]:
    """(row, begin, first that is scored, end) of each window over ``num_inputs`` inputs."""
    windows, num_scored = [(row, 0, 0, min(num_inputs, window_length))], min(num_inputs, window_length)
    while num_scored < num_inputs:
        end = min(num_inputs, num_scored + stride)
        windows.append((row, end - window_length, num_scored, end))
        num_scored = end
    return windows


def _batches(
    windows: list[tuple[int, int, int, int]], vocab_size: int
) -> Iterator[list[tuple[int, int, int, int]]]:
    """Neighbouring windows whose logits fit, or one alone."""
    batch: list[tuple[int, int, int, int]] = []
    max_width = 0
    for window in windows:
        max_width = max(max_width, window[3] - window[1])
        if batch and max_width * (len(batch) + 1) * vocab_size > MAX_LOGITS:
            yield batch
            batch, max_width = [], window[3] - window[1]
        batch.append(window)
    if batch:
        yield batch


@torch.inference_mode()
def _token_log_probabilities(
    network: nn.Module, rows: Sequence[Sequence[int]], tokenizer: Tokenizer
) -> list[list[float]]:
    """The log-probability of each token but the first, of each row; long rows a piece at a time."""
    was_training = network.training
    network.eval()
    lengths = torch.tensor([len(row) - 1 for row in rows])
    width = int(lengths.max())
    grid = torch.full((len(rows), width + 1), tokenizer.specials.pad_id)
    for number, row in enumerate(rows):
        grid[number, : len(row)] = torch.tensor(row)
    chunk_length = width if len(rows) > 1 else max(1, MAX_LOGITS // tokenizer.vocabulary_size)
    cache = KVCache() if chunk_length < width else None
    found = []
    for begin in range(0, width, chunk_length):
        tokens = grid[:, begin : min(begin + chunk_length, width)]  # (B, T)
        chunk_lengths = (lengths - begin).clamp(max=tokens.shape[1])
        layout = Layout(chunk_lengths, cache_lengths=None if cache is None else cache.lengths)
        batch = Batch(tokens, layout, positions={causal_lm.HEAD: None}).to(network_device(network))
        logits: Tensor = network(batch, heads=(causal_lm.HEAD,), cache=cache).logits[causal_lm.HEAD]
        targets = grid[:, begin + 1 : begin + 1 + tokens.shape[1]].flatten()
        logits = logits.float().cpu()  # (B * T, V)
        check_finite(logits[(torch.arange(tokens.shape[1]) < chunk_lengths[:, None]).flatten()])
        log_probabilities = logits.gather(1, targets[:, None])[:, 0] - logits.logsumexp(-1)
        found.append(log_probabilities.view(tokens.shape))
    network.train(was_training)
    values = torch.cat(found, 1).tolist()
    return [row[:length] for row, length in zip(values, lengths.tolist(), strict=True)]


def _build_score(
    tokenizer: Tokenizer, text: str, ids: Sequence[int], log_probabilities: Sequence[float], *, pseudo: bool
) -> TextScore:
    nats = -math.fsum(log_probabilities)
    tokens = tuple(
        (tokenizer.decode([id], skip_special_tokens=False), value)
        for id, value in zip(ids, log_probabilities, strict=True)
    )
    return TextScore(
        nats, tokens, nats / math.log(2) / max(1, len(replace_surrogates(text).encode())), pseudo
    )
