"""What a loss over several rows of an example is computed from: `Batch.example` and `Batch.row`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pretune.data.packing import collate
from pretune.families import bert, llama
from pretune.nn.heads import gather
from pretune.types import Batch, Example, LossOptions, Row


def texts(count: int, rows: int, seed: int = 0) -> list[list[np.ndarray[Any, Any]]]:
    draw = np.random.default_rng(seed)
    return [[draw.integers(4, 96, draw.integers(3, 9)) for _ in range(rows)] for _ in range(count)]


def network(family: Any, head: str) -> Any:
    torch.manual_seed(0)
    return family.Network(family.tiny_config().model_copy(update={"vocab_size": 96}), heads=(head,)).eval()


def causal_row(text: np.ndarray[Any, Any]) -> Row:
    return Row(text[:-1], {"causal_lm": np.arange(len(text) - 1)}, {"causal_lm": text[1:]})


def row_sums(values: torch.Tensor, batch: Batch, shape: list[int]) -> torch.Tensor:
    """(E, R) sums of the values of each row."""
    assert batch.example is not None
    assert batch.row is not None
    return values.new_zeros(shape).index_put((batch.example, batch.row), values, accumulate=True)


@pytest.mark.parametrize("packed", [False, True])
def test_a_pair_loss_of_the_likelihoods_of_two_texts(packed: bool) -> None:
    """As of preferences: the chosen text is row 0, the rejected row 1 (Rafailov et al. 2023, equation 7)."""
    pairs = texts(5, 2)
    examples = [Example(n, tuple(map(causal_row, pair))) for n, pair in enumerate(pairs)]
    model = network(llama, "causal_lm")
    batch = collate([examples[:2], examples[2:]], pad_id=0, heads=("causal_lm",), packed=packed)
    options = LossOptions(per_position=True)
    outputs = model(batch, heads=("causal_lm",), targets=batch.targets, loss=options)
    scores = -row_sums(outputs.nll["causal_lm"], batch, [5, 2])
    loss = -F.logsigmoid(scores[:, 0] - scores[:, 1]).sum()
    expected = torch.zeros(())
    for pair in pairs:
        own = []
        for text in pair:
            alone = collate([[Example(0, (causal_row(text),))]], pad_id=0, heads=("causal_lm",))
            logits = model(alone, heads=("causal_lm",)).logits["causal_lm"]
            own.append(-F.cross_entropy(logits, torch.from_numpy(text[1:]), reduction="sum"))
        expected = expected - F.logsigmoid(own[0] - own[1])
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-5)
    assert float(outputs.sums["causal_lm"].detach()) == pytest.approx(float(-scores.sum().detach()), rel=1e-5)


@pytest.mark.parametrize("packed", [False, True])
def test_a_softmax_over_four_choices(packed: bool) -> None:
    """A score a row, read at its first token; the choices of an example are told from each other."""
    questions, answers = texts(4, 4, seed=1), torch.tensor([2, 0, 3, 1])
    examples = [
        Example(n, tuple(Row(t, {"masked_lm": np.zeros(1, np.int64)}, {}) for t in choices))
        for n, choices in enumerate(questions)
    ]
    model = network(bert, "masked_lm")
    scorer = torch.nn.Linear(model.config.hidden_size, 1)
    batch = collate([examples[:1], examples[1:]], pad_id=0, heads=("masked_lm",), packed=packed)
    hidden = gather(model(batch, heads=()).hidden, batch.positions["masked_lm"])  # (N, D)
    scores = row_sums(scorer(hidden)[:, 0], batch, [4, 4])
    loss = F.cross_entropy(scores, answers)
    alone = []
    for choices in questions:
        for text in choices:
            one = collate([[Example(0, (Row(text, {}, {}),))]], pad_id=0, heads=())
            alone.append(scorer(model(one, heads=()).hidden[0, 0])[0])
    expected = F.cross_entropy(torch.stack(alone).view(4, 4), answers)
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-5)
