"""Every objective on every family is learnt by two processes as by one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import small
import two_processes

import pretune

fcntl = pytest.importorskip("fcntl", reason="without locks each worker would start them")
SOURCE = str(Path(pretune.__file__).parents[1])


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What two processes logged, started once for all pairs, whichever of pytest's workers is the first."""
    root = tmp_path_factory.getbasetemp()
    folder = (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / "two-processes"
    folder.mkdir(exist_ok=True)
    with (folder.parent / "two-processes.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "losses.json").exists():
            started(folder)
    found: dict[str, Any] = json.loads((folder / "losses.json").read_text())
    return found


def started(folder: Path) -> None:
    """Let two processes leave ``losses.json``, and nothing else, in the folder."""
    ended = subprocess.run(
        [
            sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
            two_processes.__file__, str(folder),
        ],
        env={**os.environ, "PYTHONPATH": SOURCE, "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    for run in folder.iterdir():
        if run.is_dir():
            shutil.rmtree(run)


@pytest.mark.parametrize(("kind", "family"), small.pairs())
def test_two_processes_learn_what_one_does(
    kind: str, family: str, two: dict[str, Any], tmp_path: Path
) -> None:
    alone = two_processes.losses(tmp_path / "alone", kind, family)
    assert two[f"{kind}-{family}"] == pytest.approx(alone, rel=1e-5)
    assert len(set(alone)) == len(alone), "something is learnt"


def test_two_processes_estimate_a_loss_from_the_same_words(two: dict[str, Any], tmp_path: Path) -> None:
    kind, family = two_processes.SAMPLED
    alone = two_processes.losses(tmp_path / "alone", kind, family, sampled=two_processes.WORDS)
    assert two[f"{kind}-{family}-sampled"] == pytest.approx(alone, rel=1e-5)
    exact = two[f"{kind}-{family}"]
    assert alone[0] != exact[0], "some words are not all"
    assert alone[0] == pytest.approx(exact[0], rel=0.1)
