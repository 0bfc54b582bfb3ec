"""The objective of docs/add-an-objective.md is whole: a model learns a batch by heart with it."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from pretune.data.order import training_rng
from pretune.families import bert
from pretune.objectives import ObjectiveSpec
from pretune.types import Loss, SpecialTokens

PAGE = Path(__file__).parents[2] / "docs" / "add-an-objective.md"
SPECIALS = SpecialTokens(96, 0, mask_id=3, all_ids=(0, 1, 2, 3), single=((1,), (2,)))


def page_module() -> Any:
    [code] = re.findall(r'```python\n(""".*?)```', PAGE.read_text(encoding="utf-8"), re.DOTALL)
    module = ModuleType("pretune.objectives.token_correction")
    exec(compile(code, str(PAGE), "exec", dont_inherit=True), module.__dict__)
    return module


def test_a_model_learns_by_the_objective_of_the_page() -> None:
    module = page_module()
    spec = ObjectiveSpec((module.Objective,))
    assert (spec.name, spec.is_pretraining, spec.columns) == ("token_correction", True, ("text",))
    spec.check_options({"replaced_fraction": 0.2, "label_smoothing": 0.1}, "objective_options")
    objective = spec.build_objective(bert.TRAITS, SPECIALS, {"replaced_fraction": 0.3})
    draw = np.random.default_rng(0)
    features = [spec.sample(i, draw.integers(4, 96, 8 + i), 0) for i in range(6)]
    examples = [objective.build(f, training_rng(0, 0, f.record)) for f in features]
    batch = objective.collate([examples[:3], examples[3:]])
    assert [len(spec.ngram_contexts(f, e, SPECIALS)[1]) for f, e in zip(features, examples, strict=True)] == [
        round(0.3 * (8 + i)) for i in range(6)
    ]
    torch.manual_seed(0)
    network = bert.Network(bert.tiny_config().model_copy(update={"vocab_size": 96}), heads=objective.heads)
    optimizer = torch.optim.AdamW(network.parameters(), lr=5e-3, weight_decay=0.0)

    def mean(loss: Loss) -> torch.Tensor:
        return torch.stack([w * total / batch.counts[term] for term, (total, w) in loss.terms.items()]).sum()

    for _ in range(150):
        [loss] = objective.loss(network, batch)
        mean(loss).backward()
        optimizer.step()
        optimizer.zero_grad()
    [loss] = objective.loss(network.eval(), batch)
    assert float(mean(loss).detach()) < 0.1  # nats a target; guessing costs 4.5
