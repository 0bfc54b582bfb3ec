"""Each step of sampling is the one of stock transformers, to the bit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers.generation import logits_process as stock

from pretune.generation import sampling as ours
from pretune.generation.sampling import Sampling

VOCABULARY = 211


@pytest.fixture
def logits() -> torch.Tensor:
    return torch.randn(5, VOCABULARY, generator=torch.Generator().manual_seed(1)) * 4


@pytest.fixture
def history() -> torch.Tensor:
    """Few different tokens, so that runs come again."""
    return torch.randint(0, 3, (5, 40), generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("penalty", [0.8, 1.0, 1.2, 3.0])
def test_the_penalty_of_repetitions(penalty: float, logits: torch.Tensor, history: torch.Tensor) -> None:
    wanted = stock.RepetitionPenaltyLogitsProcessor(penalty)(history, logits.clone())
    assert torch.equal(ours.apply_repetition_penalty(logits, history, penalty), wanted)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 41])
def test_runs_that_come_again(size: int, logits: torch.Tensor, history: torch.Tensor) -> None:
    wanted = stock.NoRepeatNGramLogitsProcessor(size)(history, logits.clone())
    assert torch.equal(ours.forbid_repeated_ngrams(logits, history, size), wanted)
    assert size == 41 or torch.isinf(wanted).any(), "nothing to see"


def test_what_looks_back_does_not_see_what_fills_up_a_shorter_text(
    logits: torch.Tensor, history: torch.Tensor
) -> None:
    grid = history.clone()
    lengths = (40, 3, 17, 1, 29)
    for row, length in enumerate(lengths):
        grid[row, length:] = -1
    for function, value in ((ours.apply_repetition_penalty, 1.5), (ours.forbid_repeated_ngrams, 3)):
        together = function(logits, grid, value)  # type: ignore[operator]
        for row, length in enumerate(lengths):
            alone = function(logits[row : row + 1], history[row : row + 1, :length], value)  # type: ignore[operator]
            assert torch.equal(together[row], alone[0])


@pytest.mark.parametrize("k", [1, 7, 50, VOCABULARY, 1000])
def test_the_k_likeliest(k: int, logits: torch.Tensor) -> None:
    logits[0, :10] = 30.0  # as likely as the last: all of them stay
    values, ids = ours.keep_top_k(logits, k)
    kept = torch.full_like(logits, -torch.inf).scatter(1, ids, values)
    assert torch.equal(kept, stock.TopKLogitsWarper(k)(None, logits))


@pytest.mark.parametrize("share", [0.05, 0.5, 0.95, 1.0])
def test_the_likeliest_that_make_up_a_share(share: float, logits: torch.Tensor) -> None:
    assert torch.equal(ours.keep_top_p(logits, share), stock.TopPLogitsWarper(share)(None, logits))


@pytest.mark.parametrize("share", [0.01, 0.3, 1.0])
def test_those_not_much_less_likely_than_the_likeliest(share: float, logits: torch.Tensor) -> None:
    assert torch.equal(ours.keep_min_p(logits, share), stock.MinPLogitsWarper(share)(None, logits))


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(),
        Sampling(temperature=1.0, top_k=0, top_p=1.0),
        Sampling(temperature=1.7, top_k=9, top_p=0.6, min_p=0.1),
        Sampling(temperature=0.5, top_k=0, top_p=0.9, min_p=0.02),
        Sampling(temperature=1.3, top_k=30, top_p=1.0, repetition_penalty=1.4, no_repeat_ngram_size=2),
    ],
)
def test_the_steps_stand_in_the_order_of_stock(
    sampling: Sampling, logits: torch.Tensor, history: torch.Tensor
) -> None:
    steps: list[Any] = [
        stock.RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty),
        stock.TemperatureLogitsWarper(sampling.temperature),
        stock.TopKLogitsWarper(sampling.top_k or VOCABULARY),
        stock.TopPLogitsWarper(sampling.top_p),
        stock.MinPLogitsWarper(sampling.min_p),
    ]
    if sampling.no_repeat_ngram_size:
        steps.insert(1, stock.NoRepeatNGramLogitsProcessor(sampling.no_repeat_ngram_size))
    wanted = stock.LogitsProcessorList(steps)(history, logits.clone()).softmax(-1)
    got = ours.probabilities(ours.process_logits(logits, sampling, history, ()), sampling)
    assert torch.equal(got > 0, wanted > 0)
    # Summed in another order, since what top-k drops is not carried along.
    torch.testing.assert_close(got, wanted, atol=1e-6, rtol=1e-5)


def test_draws_have_their_probabilities(logits: torch.Tensor) -> None:
    count = 20_000
    sampling = Sampling(temperature=1.0, top_k=6, top_p=0.99)
    share = ours.probabilities(logits[:1], sampling)[0]
    drawn = ours.sample(logits[:1].expand(count, -1), sampling, [ours.build_generator(5, 0)] * count)
    counts = torch.bincount(drawn, minlength=VOCABULARY)
    assert (counts[share == 0] == 0).all()
    expected = share[share > 0] * count
    statistic = float(((counts[share > 0] - expected) ** 2 / expected).sum())
    assert statistic < 20.5  # chi-square, at most 5 degrees of freedom: p > 0.001; the draws are fixed


def test_each_sequence_has_a_stream_of_its_own(logits: torch.Tensor) -> None:
    flat = torch.zeros(8, VOCABULARY)
    sampling = Sampling(temperature=1.0, top_k=0, top_p=1.0)
    first = ours.sample(flat, sampling, [ours.build_generator(7, number) for number in range(8)])
    again = ours.sample(flat[3:5], sampling, [ours.build_generator(7, number) for number in (3, 4)])
    assert len(set(first.tolist())) > 5
    assert torch.equal(first[3:5], again)
    other = ours.sample(flat, sampling, [ours.build_generator(8, number) for number in range(8)])
    assert not torch.equal(first, other)
