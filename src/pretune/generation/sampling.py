"""Sampling as pure functions of logits, in the order and with the results of stock transformers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pydantic
import torch
from torch import Tensor
from torch.nn import functional as F

from pretune.config import Settings

EPSILON = 1e-6
"""Below it a temperature or a penalty makes logits infinite; 0 is said apart."""


class Sampling(Settings):
    """How the next token is drawn; temperature 0 takes the likeliest."""

    temperature: float = pydantic.Field(default=0.8, ge=0)
    top_k: int = pydantic.Field(default=50, ge=0)
    """Only the k likeliest tokens; 0: all."""
    top_p: float = pydantic.Field(default=0.95, gt=0, le=1)
    """Only the likeliest tokens that together have this probability (Holtzman et al. 2020)."""
    min_p: float = pydantic.Field(default=0.0, ge=0, le=1)
    """Only tokens at least this share as likely as the likeliest (Nguyen et al. 2024)."""
    repetition_penalty: float = pydantic.Field(default=1.0, ge=EPSILON, le=1 / EPSILON)
    """Divides the logits of tokens that the text holds already (Keskar et al. 2019); 1: none."""
    no_repeat_ngram_size: int = pydantic.Field(default=0, ge=0)
    """No run of so many tokens occurs twice in the text; 0: any may."""

    @pydantic.field_validator("temperature")
    @classmethod
    def _check_temperature(cls, value: float) -> float:
        if 0 < value < EPSILON:
            raise ValueError(f"must be 0, which takes the likeliest token, or at least {EPSILON:g}")
        return value

    @property
    def needs_history(self) -> bool:
        """Does the next token depend on the text itself, beyond its logits?"""
        return self.repetition_penalty != 1 or self.no_repeat_ngram_size > 0


@dataclass(frozen=True, slots=True)
class TokenConstraint:
    """What the next token of a text may be, beyond what the network says of it."""

    forbidden: tuple[int, ...] = ()
    """Ids that must not come now, such as the end of a text that is still too short."""
    forced: tuple[int, ...] = ()
    """Ids of which one must come now, all alike; none: any may."""


def process_logits(
    logits: Tensor, sampling: Sampling, history: Tensor | None, constraints: Sequence[TokenConstraint] = ()
) -> Tensor:
    """Logits (B, V) after what also holds where nothing is drawn: repetitions and forbidden tokens.

    Args:
        history: (B, T) the texts so far, -1 behind the shorter ones; needed if ``sampling.needs_history``.
        constraints: one a row; none at all: any token may come.
    """
    if history is not None and sampling.repetition_penalty != 1:
        logits = apply_repetition_penalty(logits, history, sampling.repetition_penalty)
    if history is not None and sampling.no_repeat_ngram_size:
        logits = forbid_repeated_ngrams(logits, history, sampling.no_repeat_ngram_size)
    if len(set(constraints)) == 1:  # of all rows together, as is usual
        return apply_constraint(logits, constraints[0])
    if not constraints:
        return logits
    return torch.stack(
        [apply_constraint(row, constraint) for row, constraint in zip(logits, constraints, strict=True)]
    )


def apply_constraint(logits: Tensor, constraint: TokenConstraint) -> Tensor:
    """Logits (..., V) with -inf for what must not come, and, where one token must, 0 for it alone."""
    if constraint.forced:
        forced = torch.tensor(constraint.forced)
        return torch.full_like(logits, -torch.inf).index_fill(-1, forced, 0.0)
    if not constraint.forbidden:
        return logits
    return logits.index_fill(-1, torch.tensor(constraint.forbidden), -torch.inf)


def apply_repetition_penalty(logits: Tensor, history: Tensor, penalty: float) -> Tensor:
    """Positive logits of tokens in ``history`` divided by ``penalty``, negative ones multiplied."""
    ids = history.where(history >= 0, logits.shape[-1])  # what is no token goes to a column of its own
    padded = F.pad(logits, (0, 1))
    seen = padded.gather(1, ids)
    return padded.scatter(1, ids, torch.where(seen < 0, seen * penalty, seen / penalty))[:, :-1]


def forbid_repeated_ngrams(logits: Tensor, history: Tensor, n: int) -> Tensor:
    """No token that would repeat a run of ``n`` tokens of ``history`` (Paulus et al. 2018)."""
    lengths = (history >= 0).sum(-1)  # (B,)
    if n > history.shape[1]:
        return logits
    prefix_positions = lengths[:, None] + torch.arange(
        1 - n, 0
    )  # (B, n - 1), the tokens that a run would begin with
    prefix = history.gather(1, prefix_positions.clamp(min=0)).masked_fill(prefix_positions < 0, -2)
    runs = history.unfold(1, n, 1)  # (B, T - n + 1, n)
    repeats = (runs[..., :-1] == prefix[:, None]).all(-1) & (runs[..., -1] >= 0)
    last = runs[..., -1].where(repeats, logits.shape[-1])
    banned = logits.new_zeros(len(logits), logits.shape[-1] + 1, dtype=torch.bool).scatter_(1, last, True)
    return logits.masked_fill(banned[:, :-1], -torch.inf)


def keep_top_k(logits: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k greatest logits of each row and those equal to the last of them: (B, M) logits and ids.

    A row with fewer than M of them is filled up with -inf.
    """
    threshold = logits.topk(min(k, logits.shape[-1]), -1).values[:, -1:]
    count = int((logits >= threshold).sum(-1).max())
    values, ids = logits.topk(count, -1)
    return values.masked_fill(values < threshold, -torch.inf), ids


def keep_top_p(logits: Tensor, top_p: float) -> Tensor:
    """-inf for all but the likeliest tokens that together have ``top_p`` of the probability."""
    ranked, order = logits.sort(descending=False)
    beyond = ranked.softmax(-1).cumsum(-1) <= 1 - top_p
    beyond[..., -1:] = False
    return logits.masked_fill(beyond.scatter(-1, order, beyond), -torch.inf)


def keep_min_p(logits: Tensor, min_p: float) -> Tensor:
    """-inf for tokens less than ``min_p`` times as likely as the likeliest."""
    likely = logits.softmax(-1)
    return logits.masked_fill(likely < min_p * likely.amax(-1, keepdim=True), -torch.inf)


def candidate_probabilities(logits: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor | None]:
    """What may be drawn: the probabilities (B, M), and the ids that they belong to; None: 0, 1, 2, ...

    ``sampling.temperature`` must be greater than 0. After top-k only M tokens are left, so that nothing is
    sorted that is as wide as the vocabulary.
    """
    logits = logits.float() / sampling.temperature
    ids = None
    if 0 < sampling.top_k < logits.shape[-1]:
        logits, ids = keep_top_k(logits, sampling.top_k)
    if sampling.top_p < 1:
        logits = keep_top_p(logits, sampling.top_p)
    if sampling.min_p:
        logits = keep_min_p(logits, sampling.min_p)
    return logits.softmax(-1), ids


def probabilities(logits: Tensor, sampling: Sampling) -> Tensor:
    """The distribution, (B, V), that the next tokens are drawn from, of their logits, (B, V)."""
    if sampling.temperature == 0:
        return F.one_hot(logits.argmax(-1), logits.shape[-1]).to(logits.dtype)
    weights, ids = candidate_probabilities(logits, sampling)
    return weights if ids is None else torch.zeros_like(logits, dtype=weights.dtype).scatter(-1, ids, weights)


def sample(logits: Tensor, sampling: Sampling, generators: Sequence[torch.Generator]) -> Tensor:
    """Next tokens, (B,), of their logits, (B, V); each row draws from a stream of its own."""
    if sampling.temperature == 0:
        return logits.argmax(-1)
    weights, ids = candidate_probabilities(logits, sampling)
    sums = weights.double().cumsum(-1)  # (B, M)
    levels = torch.stack(
        [torch.rand(1, generator=generator, dtype=torch.float64) for generator in generators]
    )
    columns = torch.searchsorted(
        sums, levels * sums[:, -1:], right=True
    )  # right: past what has no probability
    columns = columns.clamp(max=weights.shape[-1] - 1)
    return (columns if ids is None else ids.gather(-1, columns)).squeeze(-1)


def build_generator(seed: int, sequence_number: int) -> torch.Generator:
    """The random numbers of the sequence ``sequence_number`` that is drawn for a prompt."""
    state = np.random.SeedSequence([seed, sequence_number]).generate_state(2, np.uint32)
    return torch.Generator().manual_seed(int(state[0]) << 31 ^ int(state[1]))
