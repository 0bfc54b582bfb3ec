"""What a run of fixed seeds has learnt: a refactor of the trainer leaves it as it is."""

from __future__ import annotations

from pathlib import Path

import pytest
import small

LOSSES = {
    ("masked_lm", "bert", "adamw", False): (5.66184014081955, 5.613005995750427, 5.51203840970993),
    ("masked_lm", "bert", "adamw", True): (5.66444730758667, 5.617184996604919, 5.525995552539825),
    ("causal_lm", "llama", "muon", False): (5.746960163116455, 5.316122353076935, 5.169882088899612),
    ("causal_lm", "llama", "muon", True): (5.742671430110931, 5.327790975570679, 5.191351771354675),
    ("classification", "bert", "adamw", False): (0.6941056698560715, 0.68179751932621, 0.652225986123085),
    ("classification", "bert", "adamw", True): (0.6946234405040741, 0.6859740316867828, 0.6565529629588127),
}
"""Training losses at steps 1, 6 and 12, without dropout and with it.

What shares a row with what changes the draws of dropout, and so its losses; those without stay.
"""


@pytest.mark.parametrize("case", LOSSES)
def test_seeded_loss(case: tuple[str, str, str, bool], tmp_path: Path) -> None:
    """To 1e-5: another processor's kernels add up in another order."""
    kind, family, optimizer, dropout = case
    run = small.trainer(tmp_path / "run", kind, family=family, dropout=dropout, optimizer={"name": optimizer})
    run.train()
    losses = small.losses(tmp_path / "run")
    assert [losses[i] for i in (0, 5, 11)] == pytest.approx(LOSSES[case], rel=1e-5)
