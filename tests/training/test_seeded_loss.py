"""What a run of fixed seeds has learnt: a refactor of the trainer leaves it as it is."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

LOSSES = {
    ("masked_lm", "bert", "adamw"): (5.664440810680389, 5.625700443983078, 5.524326384067535),
    ("causal_lm", "llama", "muon"): (5.744576692581177, 5.337577864527702, 5.190357655286789),
    ("classification", "bert", "adamw"): (0.6961029469966888, 0.6801498979330063, 0.6562351286411285),
}
"""Training losses at steps 1, 6 and 12."""


def _load_small() -> ModuleType:
    path = Path(__file__).parent.parent / "conformance" / "small.py"
    spec = importlib.util.spec_from_file_location("small_seeded", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["small_seeded"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("case", LOSSES)
def test_seeded_loss(case: tuple[str, str, str], tmp_path: Path) -> None:
    """To 1e-5: another processor's kernels add up in another order."""
    kind, family, optimizer = case
    _load_small().trainer(tmp_path / "run", kind, family=family, optimizer={"name": optimizer}).train()
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in rows if row["kind"] == "step"]
    assert [losses[i] for i in (0, 5, 11)] == pytest.approx(LOSSES[case], rel=1e-5)
