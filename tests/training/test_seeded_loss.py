"""What a run of fixed seeds has learnt: a refactor of the trainer leaves it as it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import small

LOSSES = {
    ("masked_lm", "bert", "adamw"): (5.668165862560272, 5.610796958208084, 5.522394835948944),
    ("causal_lm", "llama", "muon"): (5.746342182159424, 5.326690807938576, 5.195042580366135),
    ("classification", "bert", "adamw"): (0.6962544173002243, 0.6865300536155701, 0.6554702185094357),
}
"""Training losses at steps 1, 6 and 12."""


@pytest.mark.parametrize("case", LOSSES)
def test_seeded_loss(case: tuple[str, str, str], tmp_path: Path) -> None:
    """To 1e-5: another processor's kernels add up in another order."""
    kind, family, optimizer = case
    small.trainer(tmp_path / "run", kind, family=family, optimizer={"name": optimizer}).train()
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in rows if row["kind"] == "step"]
    assert [losses[i] for i in (0, 5, 11)] == pytest.approx(LOSSES[case], rel=1e-5)
