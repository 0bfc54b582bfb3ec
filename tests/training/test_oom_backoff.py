"""Out of memory: the micro-batch halves, what is learnt stays the same, and the choice is kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small
import torch

from pretune.errors import TrainingError
from pretune.objectives.wrappers.wrapper import ObjectiveWrapper
from pretune.runtime import device
from pretune.runtime.run_folder import Run
from pretune.training.oom_backoff import OOMBackoff, explain_out_of_memory, is_out_of_memory

TORCH = "DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."
SETTINGS: dict[str, Any] = {"micro_batch": 8, "save_every": 4, "steps": 8}


def narrow(folder: Path, fits: dict[int, int], **settings: Any) -> Any:
    """A run that runs out of memory in the middle of a step with more rows than ``fits`` from it on."""
    made = small.trainer(folder, "masked_lm", family="bert", **(SETTINGS | settings))

    class Narrow(ObjectiveWrapper):
        def loss(self, network: Any, batch: Any) -> Any:
            most = min([99, *(rows for step, rows in fits.items() if step <= made.state.step)])
            yield from super().loss(network, batch)  # gradients of this micro-batch are there by now
            if len(batch.tokens) > most:
                raise RuntimeError(TORCH)

    made.dataloader.objective = Narrow(made.dataloader.objective)
    return made


def log_of(folder: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


def test_the_step_begins_anew_with_half_the_rows(tmp_path: Path) -> None:
    """From there on it is bit for bit the run that was told so: gradients dropped, the same random keys."""
    short = narrow(tmp_path / "short", {0: 3})
    short.train()
    told = small.trainer(tmp_path / "told", "masked_lm", family="bert", **(SETTINGS | {"micro_batch": 2}))
    told.train()
    for name, value in small.state(told).items():
        assert torch.equal(value, small.state(short)[name]), name
    assert log_of(tmp_path / "short") == log_of(tmp_path / "told")
    plan = json.loads((tmp_path / "short" / "plan.json").read_text())
    assert plan["micro_batch_limits"] == {device.describe(): {"training": [[0, 4], [0, 2]]}}


def test_a_resume_cuts_each_step_as_it_was_cut(tmp_path: Path) -> None:
    """Steps before the one that ran out, too, and without running out again."""

    class Killed(BaseException):
        pass

    whole = narrow(tmp_path / "whole", {6: 4})
    whole.train()
    killed = narrow(tmp_path / "run", {6: 4})
    step = killed._train_step

    def dying(*arguments: Any) -> bool:
        if killed.state.step == 7:
            raise Killed
        return bool(step(*arguments))

    killed._train_step = dying
    with pytest.raises(Killed):
        killed.train()
    resumed = small.trainer(tmp_path / "run", "masked_lm", family="bert", **SETTINGS)
    said: list[str] = []
    resumed.reporter = type("Notes", (small.NullReporter,), {"say": lambda self, text: said.append(text)})()
    resumed.train()
    assert not [line for line in said if "memory" in line]
    for name, value in small.state(whole).items():
        assert torch.equal(value, small.state(resumed)[name]), name
    assert log_of(tmp_path / "run") == log_of(tmp_path / "whole")


def test_one_row_that_does_not_fit_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"one row does not fit.*max_length.*smaller model"):
        narrow(tmp_path / "run", {2: 0}).train()


def test_evaluation_has_a_choice_of_its_own(tmp_path: Path) -> None:
    run, said = Run(tmp_path), []
    training = OOMBackoff(run, "training", 8, said.append)
    evaluation = OOMBackoff(run, "evaluation", 32, said.append)

    def attempt(rows: int) -> int:
        if rows > 8:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return rows

    assert evaluation.run_with_backoff(5, attempt) == 8
    assert len(said) == 2
    assert training.rows(9) == 8
    assert OOMBackoff(run, "training", 8, said.append).rows(9) == 8
    again = OOMBackoff(run, "evaluation", 32, said.append)
    assert [again.rows(step) for step in (4, 5, 6)] == [32, 8, 8]
    assert again.run_with_backoff(6, attempt) == 8
    assert len(said) == 2


def test_what_says_that_memory_ran_out() -> None:
    for error in (
        MemoryError(),
        RuntimeError(TORCH),
        RuntimeError("could not create a primitive"),
        torch.OutOfMemoryError("CUDA out of memory"),
    ):
        assert is_out_of_memory(error)
    with pytest.raises(MemoryError) as numpys:
        np.empty(1 << 56)
    assert is_out_of_memory(numpys.value)
    with pytest.raises(RuntimeError) as torchs:
        torch.empty(1 << 58)
    assert is_out_of_memory(torchs.value)
    for other in (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), ValueError("out of memory")):
        assert not is_out_of_memory(other)


def test_other_errors_are_left_as_they_are(tmp_path: Path) -> None:
    def wrong(rows: int) -> None:
        raise RuntimeError("shapes")

    with pytest.raises(RuntimeError, match="shapes"):
        OOMBackoff(Run(tmp_path), "training", 8, print).run_with_backoff(0, wrong)
    with pytest.raises(RuntimeError, match="shapes"), explain_out_of_memory("saving"):
        wrong(1)
    with pytest.raises(TrainingError, match="saving: out of memory"), explain_out_of_memory("saving"):
        raise MemoryError
