"""Settings of a pretraining run that are refused before any file is read, each with its way out."""

from __future__ import annotations

import pytest

from pretune.errors import ConfigError, UnsupportedError
from pretune.families import t5
from pretune.objectives import find_objective
from pretune.workflows.pretrain.settings import DEFAULT_OPTIMIZER, resolve


@pytest.mark.parametrize(
    ("family", "objective", "way_out"),
    [
        ("bert", "next_sentence", r"by 'masked_lm' or 'masked_lm\+next_sentence' or .*; .* beside"),
        ("modernbert", "next_sentence", r"by 'masked_lm'; .* beside .*\+next_sentence' \(bert\)$"),
        ("modernbert", "masked_lm+next_sentence", "by 'masked_lm'; by this bert$"),
        ("llama", "masked_lm", "by 'causal_lm' or 'prefix_lm'; by this bert, .*modernbert"),
        ("bert", "classification", "labelled records: pretune finetune"),
    ],
)
def test_the_refusal_of_an_objective_names_the_way_out(family: str, objective: str, way_out: str) -> None:
    with pytest.raises(UnsupportedError, match=way_out):
        resolve({"corpus": ("missing.txt",)}, {"family": family, "objective": objective})


@pytest.mark.parametrize(
    ("training", "changed"),
    [
        (None, {}),
        ({"seed": 1}, {}),
        ({"optimizer": {"learning_rate": 0.5}}, {"learning_rate": 0.5}),
        ({"optimizer": {"name": "adamw"}}, None),
    ],
)
def test_a_family_has_rates_of_its_own_where_none_are_given(
    training: dict[str, object] | None, changed: dict[str, float] | None
) -> None:
    given = {"corpus": ("missing.txt",)} | ({} if training is None else {"training": training})
    for family, rates in (("t5", t5.TRAITS.learning_rates), ("bart", {})):
        found = resolve(given, {"family": family}).training.optimizer
        if changed is None:
            assert found.name == "adamw"
            assert found.learning_rate not in t5.TRAITS.learning_rates.values()
            continue
        wanted = DEFAULT_OPTIMIZER | rates | changed
        assert {key: getattr(found, key) for key in wanted} == wanted


@pytest.mark.parametrize(
    ("given", "learnt"),
    [
        ({"family": "llama"}, "causal_lm"),
        ({"family": "modernbert"}, "masked_lm"),
        ({"family": "bert", "objective": "masked_lm+next_sentence"}, "masked_lm"),
        ({"family": "llama", "objective": "prefix_lm"}, None),  # not tried
        ({"family": "t5"}, None),
    ],
)
def test_an_objective_has_a_recipe_of_its_own_but_for_what_is_given(
    given: dict[str, object], learnt: str | None
) -> None:
    own = find_objective(learnt).recipe.optimizer if learnt else {}
    found = resolve({"corpus": ("missing.txt",)}, given).training.optimizer
    assert {key: getattr(found, key) for key in own} == own
    assert (found.muon_every > 1) == (learnt is not None)
    chosen = {"training": {"optimizer": {"muon_every": 1, "betas": [0.8, 0.9]}}}
    asked = resolve({"corpus": ("missing.txt",)}, given | chosen).training.optimizer
    assert (asked.muon_every, asked.betas) == (1, (0.8, 0.9))
    assert asked.learning_rate == found.learning_rate


def test_a_resolved_setting_stays_as_it_is() -> None:
    once = resolve(
        {"corpus": ("missing.txt",), "family": "t5"}, {"training": {"optimizer": {"epsilon": 1e-9}}}
    )
    assert once.training.optimizer.learning_rate == t5.TRAITS.learning_rates["learning_rate"]
    assert resolve(once, {}) == once


@pytest.mark.parametrize(
    ("given", "estimated"),
    [
        ({"family": "llama"}, True),
        ({"family": "modernbert"}, True),
        ({"family": "t5"}, False),  # not tried
        ({"family": "bert", "objective": "masked_lm+next_sentence"}, False),
        ({"family": "llama", "objective_options": {"label_smoothing": 0.1}}, False),
        ({"family": "llama", "sampled_softmax": None}, False),
        ({"family": "t5", "sampled_softmax": {"num_sampled": 500}}, True),
    ],
)
def test_where_the_loss_is_estimated_unless_it_is_said(given: dict[str, object], estimated: bool) -> None:
    found = resolve({"corpus": ("missing.txt",)} | given, {})
    assert (found.sampled_softmax is not None) == estimated
    assert resolve(found, {}) == found


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"family": "llama", "objective_options": {"label_smoothing": 0.1}}, "label_smoothing spreads"),
        ({"family": "hf:opt"}, "'hf:opt' is computed by transformers"),
    ],
)
def test_an_estimate_is_refused_where_all_words_are_needed(given: dict[str, object], why: str) -> None:
    with pytest.raises(ConfigError, match=f"sampled_softmax: .*{why}.*leave it out"):
        resolve({"corpus": ("missing.txt",), "sampled_softmax": {"num_sampled": 500}} | given, {})
