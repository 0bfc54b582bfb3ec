"""A mixture's batches: which part each is of, and what its losses weigh in a step."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pretune.data.corpus.windows import EncodedRecords
from pretune.errors import ConfigError
from pretune.families import llama
from pretune.objectives import parse_objective
from pretune.runtime.distributed import World
from pretune.training.dataloader import DataLoader, MicroBatch
from pretune.training.gradients import GradientAccumulator, never_stop
from pretune.training.mixture import MixtureComponent, MixtureDataLoader, count_pieces
from pretune.training.settings import TrainingSettings
from pretune.types import Feature, SpecialTokens

SPECIALS = SpecialTokens(96, 0, mask_id=3, bos_id=4, eos_id=4, all_ids=(0, 1, 2, 3, 4), single=((), ()))
LENGTH = 16


def store(seed: int, count: int = 30) -> EncodedRecords:
    """Texts of uneven length."""
    draw = np.random.default_rng(seed)
    texts = [draw.integers(5, 96, size=draw.integers(4, LENGTH)) for _ in range(count)]
    return EncodedRecords([Feature(i, 0, (text,)) for i, text in enumerate(texts)])


def part(name: str, weight: float, seed: int, kind: str = "causal_lm") -> MixtureComponent:
    texts = store(seed)
    return MixtureComponent(
        name, weight, texts, parse_objective(kind).build_objective(llama.TRAITS, SPECIALS, store=texts)
    )


def parts() -> list[MixtureComponent]:
    return [part("causal_lm", 0.6, 1), part("prefix_lm", 0.4, 2, "prefix_lm")]


def mixed(of: list[MixtureComponent], world: World | None = None, **settings: Any) -> MixtureDataLoader:
    chosen = TrainingSettings(**({"batch_tokens": 64, "micro_batch": 2} | settings))
    return MixtureDataLoader(of, llama.TRAITS, chosen, LENGTH, world)


def network() -> Any:
    torch.manual_seed(0)
    shape = {"vocab_size": 96, "max_position_embeddings": LENGTH}
    return llama.Network(llama.tiny_config().model_copy(update=shape), heads=("causal_lm",))


def gradient(made: Any) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in made.parameters() if p.grad is not None])


def shown(batches: list[MicroBatch]) -> list[tuple[str, float, list[int]]]:
    return [(b.component, b.loss_weight, sorted(b.features)) for b in batches]


@pytest.mark.parametrize(
    ("size", "longest", "count"), [(1024, 128, 8), (1024, 500, 2), (65_536, 128, 16), (1000, 128, 5),
                                   (1009, 128, 1), (16, 1, 16), (50, 128, 1)],
)  # fmt: skip
def test_a_step_is_cut_into_equal_pieces_none_shorter_than_a_text(
    size: int, longest: int, count: int
) -> None:
    assert count_pieces(size, longest) == count


STEPS = [
    [("causal_lm", 0.75, [1, 10]), ("causal_lm", 0.75, [12, 18, 23]), ("prefix_lm", 0.25, [8, 15])],
    [("causal_lm", 0.75, [2, 7, 27]), ("causal_lm", 0.75, [19, 21]), ("prefix_lm", 0.25, [12, 17])],
    [("causal_lm", 1.0, [15, 20]), ("causal_lm", 1.0, [11, 13, 16, 28]), ("causal_lm", 1.0, [4, 26])],
]
"""Of the first three steps: each micro-batch's part, what the part counts for in the step, which texts."""


def test_the_micro_batches_of_a_seed() -> None:
    made = mixed(parts())
    assert made.pieces_per_step == 4
    assert [shown(made(step)) for step in range(3)] == STEPS


def test_each_part_reads_its_own_text_once_an_epoch() -> None:
    made = mixed(parts())
    read: dict[str, Counter[int]] = {"causal_lm": Counter(), "prefix_lm": Counter()}
    shares: Counter[str] = Counter()
    for step in range(400):
        for name, share in {batch.component: batch.loss_weight for batch in made(step)}.items():
            shares[str(name)] += share
        for batch in made(step):
            read[str(batch.component)].update(batch.features)
    for counts in read.values():
        assert set(counts) == set(range(30))
        assert max(counts.values()) - min(counts.values()) <= 1
    assert shares["causal_lm"] / 400 == pytest.approx(0.6, abs=4 * (0.24 / 1600) ** 0.5)
    tokens = {name: sum(counts.values()) for name, counts in read.items()}
    assert tokens["causal_lm"] / sum(tokens.values()) == pytest.approx(0.6, abs=0.08)  # of uneven texts


def test_one_part_alone_is_batched_as_without_a_mixture() -> None:
    [alone] = [part("causal_lm", 3.0, 1)]
    settings = TrainingSettings(batch_tokens=64, micro_batch=2)
    plain = DataLoader(alone.store, alone.objective, llama.TRAITS, settings, LENGTH)
    made = mixed([alone])
    assert made.pieces_per_step == 4
    assert (made.steps_per_epoch, made.tokens_per_step) == (plain.steps_per_epoch, plain.tokens_per_step)
    assert made.fingerprint == plain.fingerprint
    for step in (0, 1, 9):
        ours, theirs = made(step), plain(step)
        assert [b.loss_weight for b in ours] == [1.0] * len(theirs)
        for a, b in zip(ours, theirs, strict=True):
            assert torch.equal(a.batch.tokens, b.batch.tokens)
            assert list(a.counts().values()) == list(b.counts().values())


def test_a_steps_gradient_is_that_of_its_parts_by_hand() -> None:
    """Each part's mean loss, of all its rows in the step, by its share of the step's pieces."""
    of = parts()
    batches = next(b for b in (mixed(of)(step) for step in range(9)) if len({x.component for x in b}) == 2)
    made = network()
    loss = GradientAccumulator(made, seed=0).accumulate(batches, 0, never_stop)
    found = gradient(made)

    other, expected = network(), torch.zeros(())
    for name in ("causal_lm", "prefix_lm"):
        own = [part for part in batches if part.component == name]
        logits = torch.cat([other(part.batch, heads=("causal_lm",)).logits["causal_lm"] for part in own])
        targets = torch.cat([part.batch.targets["causal_lm"] for part in own])
        expected = expected + own[0].loss_weight * F.cross_entropy(logits, targets)
    expected.backward()
    assert sum({batch.component: batch.loss_weight for batch in batches}.values()) == 1.0
    assert loss == pytest.approx(expected.item(), rel=1e-5)
    torch.testing.assert_close(found, gradient(other), atol=1e-6, rtol=1e-4)


def test_rows_at_once_change_rounding_only() -> None:
    of, gradients = parts(), []
    for rows in (1, 3, 64):
        made = network()
        batches = mixed(of)
        batches.micro_batch = rows
        GradientAccumulator(made, seed=0).accumulate(batches(1), 1, never_stop)
        gradients.append(gradient(made))
    for other in gradients[1:]:
        assert (other - gradients[0]).norm() / gradients[0].norm() < 1e-5


@pytest.mark.parametrize("size", [2, 3])
def test_ranks_take_the_same_parts_in_the_same_order(size: int) -> None:
    alone = mixed(parts())
    ranks = [mixed(parts(), World(rank, size)) for rank in range(size)]
    for step in range(6):
        shares = [rank(step) for rank in ranks]
        assert len({tuple((b.component, b.loss_weight) for b in share) for share in shares}) == 1
        whole = Counter((b.component, i) for b in alone(step) for i in b.features)
        spread = Counter(
            (b.component, i) for share in shares for b in share if b.has_targets for i in b.features
        )  # fmt: skip
        assert spread == whole


def test_a_step_smaller_than_a_text_is_refused() -> None:
    with pytest.raises(ConfigError, match="smaller than the longest example"):
        mixed(parts(), batch_tokens=8)


def test_another_weight_or_order_of_parts_is_another_mixture() -> None:
    made = [mixed(parts()), mixed(parts()[::-1]), mixed([part("causal_lm", 0.5, 1), parts()[1]])]
    assert len({batches.fingerprint for batches in made}) == 3
