"""How probable a language model finds a text, a token at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from pretune.errors import UsageError
from pretune.inference.batching import logits_of
from pretune.nn.cache import Cache
from pretune.nn.nonfinite import check_finite
from pretune.objectives import causal_lm, masked_lm
from pretune.text.segmentation import WORD, starts
from pretune.text.tokenizer import Tokenizer, well_formed
from pretune.types import Batch, IntArray, Layout, Specials

LOGITS = 1 << 25
"""Logits that are held at once: 128 MiB in fp32."""


@dataclass(frozen=True, slots=True)
class TextScore:
    """How probable a model finds a text."""

    nats: float
    """Negative (pseudo-)log-probability of the whole text; a causal model's includes its end."""
    tokens: tuple[tuple[str, float], ...]
    """Each token with its own log-probability."""
    bits_per_byte: float
    pseudo: bool = False
    """A masked model's: each token was seen with what follows it, so it is no probability of the text."""

    @property
    def perplexity(self) -> float:
        """A token."""
        return math.exp(self.nats / len(self.tokens))


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
    step = _stride(stride, max_length)
    rows = [_whole(tokenizer, text) for text in texts]
    windows = [
        window for row, ids in enumerate(rows) for window in _windows(row, len(ids) - 1, max_length, step)
    ]
    values: list[list[float]] = [[] for _ in texts]
    for batch in _batches(windows, tokenizer.vocabulary_size):
        inputs = [rows[row][begin : end + 1] for row, begin, _, end in batch]
        for (row, begin, first, _), logs in zip(batch, _logs(network, inputs, tokenizer), strict=True):
            values[row] += logs[first - begin :]
    return [
        _score(tokenizer, text, ids[1:], logs, pseudo=False)
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
    if specials.mask is None:
        raise UsageError("this tokenizer has no mask token, and a masked model's score needs one")
    room = max_length - len(specials.single[0]) - len(specials.single[1])
    step = _stride(stride, room)
    found = []
    for text in texts:
        encoded = tokenizer.encode(text)
        if not len(encoded.ids):
            raise UsageError("there is nothing to score in an empty text")
        words = (starts(text, encoded.offsets) & WORD).astype(np.int64).cumsum() if within_word else None
        rows = _masked_rows(encoded.ids, words, specials, room, step)
        logs = [
            float(logits.log_softmax(-1)[0, token])
            for logits, token in zip(
                logits_of(network, head, rows, specials), encoded.ids.tolist(), strict=True
            )
        ]
        found.append(_score(tokenizer, text, encoded.ids.tolist(), logs, pseudo=True))
    return found


def _masked_rows(
    ids: IntArray, words: IntArray | None, specials: Specials, room: int, stride: int
) -> Iterator[tuple[IntArray, IntArray]]:
    """A row for each token: the window around it with the token masked, and where that is."""
    before, after = specials.single
    assert specials.mask is not None, "the caller has looked"
    for first in range(0, len(ids), stride) if len(ids) > room else (0,):
        last = min(len(ids), first + stride) if len(ids) > room else len(ids)
        begin = max(0, min(first - (room - stride) // 2, len(ids) - room))
        window = ids[begin : begin + room]
        for place in range(first, last):
            hidden = window.copy()
            end = place + 1
            while words is not None and end < len(ids) and words[end] == words[place]:
                end += 1
            hidden[place - begin : end - begin] = specials.mask
            tokens = np.concatenate([before, hidden, after]).astype(np.int64)
            yield tokens, np.array([len(before) + place - begin])


def _whole(tokenizer: Tokenizer, text: str) -> list[int]:
    specials = tokenizer.specials
    begin = specials.start if specials.start is not None else specials.end
    ends = [] if specials.end is None else [specials.end]
    ids = [*([] if begin is None else [begin]), *tokenizer.encode(text).ids.tolist(), *ends]
    if len(ids) < 2:
        raise UsageError("there is nothing to score in an empty text")
    return ids


def _stride(asked: int | None, length: int) -> int:
    stride = max(1, length // 2) if asked is None else asked
    if not 1 <= stride <= length:
        raise UsageError(
            f"stride = {stride}: must be from 1 to {length}, the tokens that the model reads at once"
        )
    return stride


def _windows(row: int, size: int, length: int, stride: int) -> list[tuple[int, int, int, int]]:
    """(row, begin, first that is scored, end) of each window over ``size`` inputs."""
    windows, done = [(row, 0, 0, min(size, length))], min(size, length)
    while done < size:
        end = min(size, done + stride)
        windows.append((row, end - length, done, end))
        done = end
    return windows


def _batches(
    windows: list[tuple[int, int, int, int]], vocabulary: int
) -> Iterator[list[tuple[int, int, int, int]]]:
    """Neighbouring windows whose logits fit, or one alone."""
    batch: list[tuple[int, int, int, int]] = []
    widest = 0
    for window in windows:
        widest = max(widest, window[3] - window[1])
        if batch and widest * (len(batch) + 1) * vocabulary > LOGITS:
            yield batch
            batch, widest = [], window[3] - window[1]
        batch.append(window)
    if batch:
        yield batch


@torch.inference_mode()
def _logs(network: nn.Module, rows: Sequence[Sequence[int]], tokenizer: Tokenizer) -> list[list[float]]:
    """The log-probability of each token but the first, of each row; long rows a piece at a time."""
    was_training = network.training
    network.eval()
    lengths = torch.tensor([len(row) - 1 for row in rows])
    width = int(lengths.max())
    grid = torch.full((len(rows), width + 1), tokenizer.specials.pad)
    for number, row in enumerate(rows):
        grid[number, : len(row)] = torch.tensor(row)
    piece = width if len(rows) > 1 else max(1, LOGITS // tokenizer.vocabulary_size)
    cache = Cache() if piece < width else None
    found = []
    for begin in range(0, width, piece):
        tokens = grid[:, begin : min(begin + piece, width)]  # (B, T)
        here = (lengths - begin).clamp(max=tokens.shape[1])
        layout = Layout(here, cached=None if cache is None else cache.lengths)
        batch = Batch(tokens, layout, places={causal_lm.HEAD: None})
        logits: Tensor = network(batch, heads=(causal_lm.HEAD,), cache=cache).logits[causal_lm.HEAD]
        targets = grid[:, begin + 1 : begin + 1 + tokens.shape[1]].flatten()
        logits = logits.float()  # (B * T, V)
        check_finite(logits[(torch.arange(tokens.shape[1]) < here[:, None]).flatten()])
        logs = logits.gather(1, targets[:, None])[:, 0] - logits.logsumexp(-1)
        found.append(logs.view(tokens.shape))
    network.train(was_training)
    values = torch.cat(found, 1).tolist()
    return [row[:length] for row, length in zip(values, lengths.tolist(), strict=True)]


def _score(
    tokenizer: Tokenizer, text: str, ids: Sequence[int], logs: Sequence[float], *, pseudo: bool
) -> TextScore:
    nats = -math.fsum(logs)
    tokens = tuple(
        (tokenizer.decode([id], skip_special=False), value) for id, value in zip(ids, logs, strict=True)
    )
    return TextScore(nats, tokens, nats / math.log(2) / max(1, len(well_formed(text).encode())), pseudo)
