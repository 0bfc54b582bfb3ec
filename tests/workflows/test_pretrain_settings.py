"""Settings of a pretraining run that are refused before any file is read, each with its way out."""

from __future__ import annotations

import pytest

from pretune.errors import UnsupportedError
from pretune.workflows.pretrain_settings import resolve


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
