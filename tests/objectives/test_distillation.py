"""An objective with a teacher at its side: which places it compares, and with what weight."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pretune.data.corpus.windows import EncodedRecords
from pretune.data.order import training_rng
from pretune.errors import UnsupportedError
from pretune.objectives import DistillationObjective, DistillationSettings, parse_objective
from pretune.registry import find
from pretune.types import IGNORE_INDEX, Batch, Feature, SpecialTokens

SPECIALS = SpecialTokens(
    96,
    0,
    mask_id=3,
    bos_id=4,
    eos_id=4,
    all_ids=(0, 1, 2, 3, 4),
    single=((1,), (2,)),
    pair=((1,), (2,), (2,)),
)
CASES = [
    ("masked_lm", "bert"), ("masked_lm", "modernbert"), ("causal_lm", "llama"), ("causal_lm", "gpt2"),
    ("classification", "bert"), ("classification", "llama"),
]  # fmt: skip


def features() -> list[Feature]:
    draw = np.random.default_rng(0)
    texts = [draw.integers(5, 96, size=draw.integers(4, 12)) for _ in range(6)]
    return [Feature(i, 0, (text,), {"label": i % 3}) for i, text in enumerate(texts)]


def network(family: str, heads: tuple[str, ...], seed: int, **shape: Any) -> Any:
    module = find("families", family)
    torch.manual_seed(seed)
    made = module.Network(module.tiny_config().model_copy(update=shape), heads=heads, num_labels=3)
    with torch.no_grad():
        for parameter in made.parameters():  # untrained heads all say the same
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return made


def distilled(kind: str, family: str, teacher: Any, **settings: Any) -> DistillationObjective:
    inner = parse_objective(kind).build_objective(
        find("families", family).TRAITS, SPECIALS, store=EncodedRecords(features())
    )
    return DistillationObjective(inner, teacher, DistillationSettings(teacher="there", **settings), 96)


def batch_of(objective: DistillationObjective, row: int = 2) -> Batch:
    """Rows of two texts each, where the objective packs."""
    examples = [objective.build(f, training_rng(0, 0, f.record)) for f in features()]
    size = row if objective.supports_packing else 1
    return objective.collate([examples[k : k + size] for k in range(0, len(examples), size)])


@pytest.mark.parametrize(("kind", "family"), CASES)
def test_the_terms_are_those_of_the_whole_logits(kind: str, family: str) -> None:
    student, teacher = network(family, (kind,), 0), network(family, (kind,), 1, num_hidden_layers=3).eval()
    objective = distilled(kind, family, teacher, weight=0.25, temperature=3.0, hidden_weight=0.5)
    batch = batch_of(objective)
    student.eval()
    [loss] = objective.loss(student, batch)

    with torch.no_grad():
        told = teacher(batch, heads=(kind,)).logits[kind]
    logits, targets = student(batch, heads=(kind,)).logits[kind], batch.targets[kind]
    assert len(targets) == batch.counts[kind] == batch.counts[f"{kind}_distillation"]
    expected: dict[str, tuple[Tensor, float]] = {
        kind: (F.cross_entropy(logits, targets, reduction="sum"), 0.75),
        f"{kind}_distillation": (
            9 * F.kl_div((logits / 3).log_softmax(-1), (told / 3).softmax(-1), reduction="sum"),
            0.25,
        ),
    }
    parameters = list(student.parameters())
    for name, (total, weight) in expected.items():
        ours, share = loss.terms[name]
        assert share == weight
        torch.testing.assert_close(ours, total, atol=1e-4, rtol=1e-4)
        mine, theirs = (
            torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
            for value in (ours, total)
        )
        for one, other in zip(mine, theirs, strict=True):
            if one is not None or other is not None:
                torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-3)  # sums over chunks, gelu
    apart, share = loss.terms["hidden_distillation"]
    assert share == 0.5
    assert batch.counts["hidden_distillation"] == int(batch.layout.lengths.sum())
    assert 0 < apart.item() < 2 * batch.counts["hidden_distillation"]


@pytest.mark.parametrize(("kind", "family"), CASES)
def test_a_twin_has_nothing_to_teach(kind: str, family: str) -> None:
    student = network(family, (kind,), 0).eval()
    objective = distilled(kind, family, copy.deepcopy(student), hidden_weight=1.0)
    batch = batch_of(objective)
    [loss] = objective.loss(student, batch)
    for name, (total, _) in loss.terms.items():
        if name.endswith("distillation"):
            assert abs(total.item()) / batch.counts[name] < 1e-5


def test_places_without_a_target_are_not_compared() -> None:
    """As a list is filled up to a fixed length."""
    student, teacher = (network("bert", ("masked_lm",), seed).eval() for seed in (0, 1))
    objective = distilled("masked_lm", "bert", teacher)
    batch = batch_of(objective)
    [whole] = objective.loss(student, batch)
    places, targets = batch.positions["masked_lm"], batch.targets["masked_lm"]
    assert places is not None
    filled = Batch(
        batch.tokens,
        batch.layout,
        {"masked_lm": torch.cat([places, places.new_zeros(3)])},
        {"masked_lm": torch.cat([targets, targets.new_full((3,), IGNORE_INDEX)])},
    )
    [loss] = objective.loss(student, filled)
    for name, (total, _) in whole.terms.items():
        torch.testing.assert_close(loss.terms[name][0], total)


def test_the_dropout_of_the_student_is_what_it_is_without_a_teacher() -> None:
    dropout = {"embd_pdrop": 0.3, "resid_pdrop": 0.3}
    student, teacher = (network("gpt2", ("causal_lm",), seed, **dropout) for seed in (0, 1))
    objective = distilled("causal_lm", "gpt2", teacher)
    batch = batch_of(objective)
    student.train()
    torch.manual_seed(5)
    [plain] = objective.inner.loss(student, batch)
    torch.manual_seed(5)
    [loss] = objective.loss(student, batch)
    torch.testing.assert_close(loss.terms["causal_lm"][0], plain.terms["causal_lm"][0])
    after = torch.rand(1)
    torch.manual_seed(5)
    list(objective.inner.loss(student, batch))
    assert torch.equal(after, torch.rand(1))
    assert not teacher.training


def test_the_teacher_is_frozen_and_runs_once_a_batch() -> None:
    student, teacher = (network("llama", ("causal_lm",), seed) for seed in (0, 1))
    objective = distilled("causal_lm", "llama", teacher, hidden_weight=1.0)
    passes: list[int] = []
    teacher.register_forward_hook(lambda *_: passes.append(1))
    [loss] = objective.loss(student, batch_of(objective))
    torch.stack([weight * total for total, weight in loss.terms.values()]).sum().backward()
    assert len(passes) == 1
    assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())
    assert all(p.grad is not None for p in student.parameters())


def test_a_student_learns_what_its_teacher_says() -> None:
    """With the teacher's word alone, it comes near to its chances."""
    student, teacher = (network("bert", ("classification",), seed) for seed in (0, 1))
    objective = distilled("classification", "bert", teacher, weight=1.0)
    batch = batch_of(objective)
    optimizer = torch.optim.AdamW(student.parameters(), lr=3e-3)
    sums: list[float] = []
    for _ in range(60):
        [loss] = objective.loss(student, batch)
        total = torch.stack([weight * part for part, weight in loss.terms.values()]).sum()
        sums.append(total.item())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    assert sums[0] > 0.1
    assert sums[-1] < sums[0] / 50


def test_widths_that_differ_are_refused_where_hidden_states_are_compared() -> None:
    student = network("bert", ("masked_lm",), 0)
    teacher = network("bert", ("masked_lm",), 1, hidden_size=48)
    chances = distilled("masked_lm", "bert", teacher)
    [loss] = chances.loss(student, batch_of(chances))
    assert set(loss.terms) == {"masked_lm", "masked_lm_distillation"}
    both = distilled("masked_lm", "bert", teacher, hidden_weight=1.0)
    with pytest.raises(UnsupportedError, match="student has 32 a place, the teacher 48"):
        list(both.loss(student, batch_of(both)))


@pytest.mark.parametrize("kind", ["masked_lm+next_sentence", "multi_label_classification"])
def test_an_objective_whose_targets_are_no_single_logit_is_refused(kind: str) -> None:
    with pytest.raises(UnsupportedError, match="cannot be compared with a teacher's"):
        distilled(kind, "bert", network("bert", ("masked_lm",), 0))
