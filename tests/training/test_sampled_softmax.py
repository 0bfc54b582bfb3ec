"""The words that a step's loss is estimated from: how many, which, how often, the same for all its parts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small
import torch
from hypothesis import given
from hypothesis import strategies as st

from pretune.objectives.wrappers.sampled_softmax import (
    NegativeSampler,
    SampledSoftmaxObjective,
    SampledSoftmaxSettings,
    inclusion_probabilities,
)
from pretune.training.gradients import never_stop


def frequencies(count: int) -> np.ndarray[Any, Any]:
    return 1.0 / np.arange(1, count + 1)


def source(words: int, vocabulary: int = 200, seed: int = 0) -> NegativeSampler:
    return NegativeSampler(SampledSoftmaxSettings(words=words), frequencies(vocabulary), seed)


@given(st.lists(st.integers(1, 1000), min_size=2, max_size=60), st.data())
def test_chances_add_up_to_the_number_of_words(counts: list[int], data: st.DataObject) -> None:
    words = data.draw(st.integers(1, len(counts)))
    chances = inclusion_probabilities(np.array(counts, float), words)
    assert chances.sum() == pytest.approx(words)
    assert chances.min() > 0
    assert chances.max() <= 1 + 1e-12
    order = np.argsort(counts, kind="stable")
    assert (np.diff(chances[order]) >= -1e-12).all()  # a more frequent word comes no less often


def test_each_word_comes_as_often_as_its_chance_says() -> None:
    """1,500 steps: within five standard deviations of a share."""
    drawing, times = source(40), 1500
    seen = np.zeros(200)
    for step in range(times):
        ids = drawing.draw(step).ids.numpy()
        assert len(ids) == 40
        assert (np.diff(ids) > 0).all()
        seen[ids] += 1
    chances = inclusion_probabilities(frequencies(200), 40)
    assert (np.abs(seen / times - chances) <= 5 * np.sqrt(chances * (1 - chances) / times)).all()
    assert (seen[chances >= 1] == times).all()


def test_a_step_draws_the_same_again_and_another_seed_does_not() -> None:
    first, again, other = (
        source(40).draw(7),
        source(40).draw(7),
        source(40, seed=1).draw(7),
    )
    assert torch.equal(first.ids, again.ids)
    assert torch.equal(first.corrections, again.corrections)
    assert not torch.equal(first.ids, other.ids)
    chances = inclusion_probabilities(frequencies(200), 40)[first.ids.numpy()]
    np.testing.assert_allclose(first.corrections.numpy(), -np.log(chances), rtol=1e-5, atol=1e-6)


def sampled(folder: Path, **settings: Any) -> Any:
    made = small.trainer(folder, "causal_lm", family="llama", dropout=False, batch_tokens=300, **settings)
    size = made.model_io.network.config.vocab_size
    sampler = NegativeSampler(SampledSoftmaxSettings(words=60), frequencies(size), 0)
    made.dataloader.objective = SampledSoftmaxObjective(made.dataloader.objective, sampler)
    return made


def test_accumulation_and_packing_change_rounding_only(tmp_path: Path) -> None:
    """Gradients of a step, estimated from the same words however it is divided, agree to 1e-5 in L2."""
    gradients = []
    for rows, packing in ((1, True), (64, True), (1, False), (64, False)):
        made = sampled(tmp_path / f"{rows}-{packing}", micro_batch=rows, packing=packing)
        made.gradients.accumulate(made.dataloader(3), 3, never_stop)
        gradients.append(
            torch.cat([p.grad.flatten() for p in made.network.parameters() if p.grad is not None])
        )
    for other in gradients[1:]:
        assert (other - gradients[0]).norm() / gradients[0].norm() < 1e-5


def test_towards_the_end_all_words_count(tmp_path: Path) -> None:
    batches = sampled(tmp_path).dataloader
    assert all(part.objective.negative_samples is not None for part in batches(3, 0.89))
    assert all(part.objective.negative_samples is None for part in batches(3, 0.9))
    assert batches.cost_changes_at == 0.9
