"""A run that is stopped anywhere and resumed is bit for bit the run that was not."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import small
import torch

from pretune.errors import ConfigError, Interrupted
from pretune.runtime import device
from pretune.training import adjustments
from pretune.training import trainer as trainer_module
from pretune.training.duration import parse_duration
from pretune.training.gradients import never_stop

CASES = small.pairs()
FIRST = dict(reversed(CASES))
"""A family for each objective; where a run is stopped concerns the trainer, not the family."""
OPTIMIZER = {"causal_lm": {"name": "muon"}}
FEATURES: dict[str, dict[str, Any]] = {
    "sgd": {"optimizer": {"name": "sgd", "learning_rate": 0.1}},
    "adafactor": {"optimizer": {"name": "adafactor", "decay_embeddings": False}},
    "wsd": {"schedule": {"name": "wsd", "decay": 0.5}},
    "average": {"ema": 0.9, "evaluations": 3},
    "muon and average": {"optimizer": {"name": "muon", "muon_every": 2}, "ema": 0.9},
    "one text a row": {"packing": False},
    "some words of the vocabulary": {"sampled": 60},
    "patience": {"ema": 0.9, "patience": 3, "min_delta": 0.05, "evaluations": 6},
}
"""Settings that add to what a checkpoint must hold, or to what a step depends on."""


def log_of(folder: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


def assert_same(expected: dict[str, torch.Tensor], found: dict[str, torch.Tensor]) -> None:
    """Bit for bit, each tensor by its name."""
    assert expected.keys() == found.keys()
    assert [name for name in expected if not torch.equal(expected[name], found[name])] == []


class Stopping:
    """Asks to stop at the n-th backward pass of the process, be it in mid-accumulation."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, passes: int) -> None:
        self.left = passes
        self.request: Any = None
        enter = trainer_module.StopRequest.__enter__
        backward = torch.autograd.backward

        def entered(request: Any) -> Any:
            self.request = request
            return enter(request)

        def counted(*arguments: Any, **options: Any) -> None:
            backward(*arguments, **options)
            self.left -= 1
            if self.left == 0:
                self.request.should_stop = True

        monkeypatch.setattr(trainer_module.StopRequest, "__enter__", entered)
        monkeypatch.setattr(torch.autograd, "backward", counted)


@pytest.mark.parametrize(("kind", "family"), CASES)
@pytest.mark.slow
def test_resumed_equals_uninterrupted(
    kind: str, family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = small.trainer(
        tmp_path / "whole", kind, family=family, save_every=5, optimizer=OPTIMIZER.get(kind, {})
    )
    outcome = whole.train()
    # With about three micro-batches a step: before, in and after steps.
    for passes in (1, 4, 11, 17) if FIRST[kind] == family else (11,):
        folder = tmp_path / f"stopped-{passes}"
        with monkeypatch.context() as patch:
            Stopping(patch, passes)
            with pytest.raises(Interrupted):
                small.trainer(
                    folder, kind, family=family, save_every=5, optimizer=OPTIMIZER.get(kind, {})
                ).train()
        resumed = small.trainer(folder, kind, family=family, save_every=5, optimizer=OPTIMIZER.get(kind, {}))
        assert resumed.train().best_scores == outcome.best_scores
        assert_same(small.state(whole), small.state(resumed))
        assert log_of(folder) == log_of(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("feature", FEATURES)
def test_a_feature_resumes_exactly(feature: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"save_every": 5} | FEATURES[feature]
    whole = small.trainer(tmp_path / "whole", "masked_lm", family="bert", **settings)
    outcome = whole.train()
    for passes in (5, 17):
        folder = tmp_path / f"stopped-{passes}"
        with monkeypatch.context() as patch:
            Stopping(patch, passes)
            with pytest.raises(Interrupted):
                small.trainer(folder, "masked_lm", family="bert", **settings).train()
        resumed = small.trainer(folder, "masked_lm", family="bert", **settings)
        assert dataclasses.replace(resumed.train(), seconds=0) == dataclasses.replace(outcome, seconds=0)
        assert_same(small.state(whole), small.state(resumed))
        assert log_of(folder) == log_of(tmp_path / "whole")


MEMORY = {"options": {"segment_length": 8}}
"""Texts in three segments, several losses a batch."""


@pytest.mark.slow
def test_a_chain_of_segments_resumes_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = small.trainer(tmp_path / "whole", "permutation_lm", family="xlnet", save_every=5, **MEMORY)
    outcome = whole.train()
    for passes in (1, 8, 23):
        folder = tmp_path / f"stopped-{passes}"
        with monkeypatch.context() as patch:
            Stopping(patch, passes)
            with pytest.raises(Interrupted):
                small.trainer(folder, "permutation_lm", family="xlnet", save_every=5, **MEMORY).train()
        resumed = small.trainer(folder, "permutation_lm", family="xlnet", save_every=5, **MEMORY)
        assert resumed.train().best_scores == outcome.best_scores
        assert_same(small.state(whole), small.state(resumed))
        assert log_of(folder) == log_of(tmp_path / "whole")


def test_accumulation_of_chains_changes_rounding_only(tmp_path: Path) -> None:
    gradients = []
    for rows in (1, 3, 64):
        made = small.trainer(
            tmp_path / str(rows), "permutation_lm", family="xlnet", dropout=False, micro_batch=rows,
            batch_tokens=300, **MEMORY,
        )  # fmt: skip
        made.gradients.accumulate(made.dataloader(3), 3, never_stop)
        gradients.append(
            torch.cat([p.grad.flatten() for p in made.network.parameters() if p.grad is not None])
        )
    for other in gradients[1:]:
        assert (other - gradients[0]).norm() / gradients[0].norm() < 1e-5


RATE = {"training.optimizer.learning_rate": 3e-2, "training.clip": 0.5}


def test_adjusted_then_resumed_equals_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change that a stopped run was given, and the whole run with that change from its plan."""
    plain = small.trainer(tmp_path / "plain", "masked_lm", family="bert")
    plain.train()
    folder = tmp_path / "adjusted"
    with monkeypatch.context() as patch:
        Stopping(patch, 14)
        with pytest.raises(Interrupted):
            small.trainer(folder, "masked_lm", family="bert").train()
    resumed = small.trainer(folder, "masked_lm", family="bert")
    adjustments.request_changes(resumed.run, RATE)
    resumed.train()
    [change] = resumed.run.read_plan()["changes"]
    assert 0 < change["step"] < 12
    assert change["values"] == RATE
    assert not adjustments.pending_requests(folder)

    repeated = small.trainer(tmp_path / "repeated", "masked_lm", family="bert")
    adjustments.replay_plan(repeated.run, folder / "plan.json")
    repeated.train()
    assert_same(small.state(resumed), small.state(repeated))
    assert log_of(folder) == log_of(tmp_path / "repeated")
    before, after = log_of(tmp_path / "plain"), log_of(folder)
    assert before[: change["step"]] == after[: change["step"]]
    assert [
        name
        for name, value in small.state(plain).items()
        if not torch.equal(value, small.state(resumed)[name])
    ]


def test_adjusted_while_it_runs_and_then_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The change holds from the step at which it was taken up, though the resume begins before it."""

    class Killed(BaseException):
        pass

    def trained(name: str, last: int) -> Any:
        made = small.trainer(tmp_path / name, "masked_lm", family="bert")
        step = made._train_step

        def stepped(*arguments: Any) -> bool:
            if made.state.step == last:
                raise Killed
            if made.state.step == 4 and not made.run.read_plan()["changes"]:
                adjustments.request_changes(made.run, RATE)  # taken up before step 5
            return bool(step(*arguments))

        monkeypatch.setattr(made, "_train_step", stepped)
        return made

    whole = trained("whole", 99)
    whole.train()
    with pytest.raises(Killed):
        trained("killed", 5).train()
    assert [change["step"] for change in whole.run.read_plan()["changes"]] == [5]
    resumed = small.trainer(tmp_path / "killed", "masked_lm", family="bert")
    resumed.train()
    assert_same(small.state(whole), small.state(resumed))
    assert log_of(tmp_path / "killed") == log_of(tmp_path / "whole")


BUDGET = [
    {"step": 5, "steps": [12, 9]},
    {"step": 6, "values": RATE, "requested_at": 1},
    {"step": 8, "steps": [9, 11]},
]
"""How a budget in minutes was corrected, and a learning rate changed."""


@pytest.mark.parametrize("passes", [11, 20])
def test_a_replayed_budget_in_minutes_resumes_exactly(
    passes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def made(name: str) -> Any:
        run = small.trainer(tmp_path / name, "causal_lm", family="llama", optimizer={"name": "muon"})
        run.budget.duration = parse_duration("10 min")
        if not run.run.read_plan():
            plan = {
                "steps": 12,
                "machine": device.describe(),
                "data": run.dataloader.fingerprint,
                "changes": BUDGET,
            }
            (tmp_path / f"{name}.json").write_text(json.dumps(plan))
            adjustments.replay_plan(run.run, tmp_path / f"{name}.json")
        return run

    whole = made("whole")
    assert whole.train().steps == 11
    with monkeypatch.context() as patch:
        Stopping(patch, passes)
        with pytest.raises(Interrupted):
            made("run").train()
    resumed = made("run")
    resumed.train()
    assert_same(small.state(whole), small.state(resumed))
    assert log_of(tmp_path / "run") == log_of(tmp_path / "whole")


@pytest.mark.parametrize(("kind", "family"), [("masked_lm", "bert"), ("classification", "llama")])
def test_stopped_in_an_evaluation(
    kind: str, family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is left between two of its batches, after a checkpoint, and made again whole."""
    requests: list[Any] = []
    enter = trainer_module.StopRequest.__enter__
    monkeypatch.setattr(
        trainer_module.StopRequest, "__enter__", lambda self: (requests.append(self), enter(self))[1]
    )

    def made(name: str, stop_at: int) -> tuple[Any, list[int]]:
        run = small.trainer(tmp_path / name, kind, family=family, ema=0.9)
        part, judge, seen = run.dataloader(0)[0], run.evaluate, []

        def evaluate(network: Any, step: int) -> Any:
            for _ in range(4):
                network(part.batch, heads=part.objective.heads)
                seen.append(step)
                requests[-1].should_stop |= len(seen) == stop_at
            return judge(network, step)

        run.evaluate = evaluate
        return run, seen

    whole, _ = made("whole", 0)
    whole.train()
    stopped, seen = made("run", 6)
    with pytest.raises(Interrupted, match="a checkpoint is saved"):
        stopped.train()
    assert seen == [3, 3, 3, 3, 6, 6]
    assert (tmp_path / "run" / "checkpoints" / "step-00000006").is_dir()
    resumed, seen = made("run", 0)
    resumed.train()
    assert seen[0] == 6
    assert_same(small.state(whole), small.state(resumed))
    assert log_of(tmp_path / "run") == log_of(tmp_path / "whole")


def test_stopped_while_a_budget_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is decided by a measurement that was cut short."""
    made = small.trainer(tmp_path / "run", "masked_lm", family="bert")
    made.budget.duration = parse_duration("60 s")
    with monkeypatch.context() as patch:
        Stopping(patch, 2)
        with pytest.raises(Interrupted, match="before the first step"):
            made.train()
    assert made.run.read_plan() == {}


def test_killed_between_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that dies without a word loses only the steps since its last checkpoint."""

    class Killed(BaseException):
        pass

    whole = small.trainer(tmp_path / "whole", "masked_lm", family="bert")
    whole.train()
    broken = small.trainer(tmp_path / "killed", "masked_lm", family="bert")
    step = broken._train_step

    def dying(*arguments: Any) -> bool:
        if broken.state.step == 8:
            raise Killed
        return bool(step(*arguments))

    monkeypatch.setattr(broken, "_train_step", dying)
    with pytest.raises(Killed):
        broken.train()
    assert len(log_of(tmp_path / "killed")) > 8  # it wrote beyond its last checkpoint at step 6
    resumed = small.trainer(tmp_path / "killed", "masked_lm", family="bert")
    resumed.train()
    assert_same(small.state(whole), small.state(resumed))
    assert log_of(tmp_path / "killed") == log_of(tmp_path / "whole")


def test_falls_back_to_the_checkpoint_before_a_damaged_one(tmp_path: Path) -> None:
    whole = small.trainer(tmp_path / "run", "masked_lm", family="bert", max_checkpoints=5)
    whole.train()
    expected = small.state(whole)
    newest = sorted((tmp_path / "run" / "checkpoints").iterdir())[-1]
    weights = newest / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-100] ^= 1  # one bit
    weights.write_bytes(content)
    resumed = small.trainer(tmp_path / "run", "masked_lm", family="bert", max_checkpoints=5)
    said: list[str] = []
    resumed.reporter = type("Notes", (small.NullReporter,), {"say": lambda self, text: said.append(text)})()
    resumed.train()
    assert_same(expected, small.state(resumed))
    assert any(newest.name in line and "model.safetensors" in line for line in said)


@pytest.mark.parametrize(("kind", "family"), CASES)
def test_accumulation_and_packing_change_rounding_only(kind: str, family: str, tmp_path: Path) -> None:
    """Gradients of 8x1, 4x2 and 1x8 rows, packed or not, agree to 1e-5 in L2: sums in another order."""
    gradients = []
    for rows, packing in ((1, True), (2, True), (8, True), (64, True), (1, False), (64, False)):
        made = small.trainer(
            tmp_path / f"{rows}-{packing}", kind, family=family, dropout=False,
            micro_batch=rows, packing=packing, batch_tokens=300,
        )  # fmt: skip
        micro_batches = made.dataloader(3)
        if rows == 2 and kind in ("masked_lm", "causal_lm"):  # or it would prove little
            assert len({tuple(part.batch.counts.values()) for part in micro_batches}) > 1, "uneven counts"
            assert len({len(part.batch.tokens) for part in micro_batches}) > 1 or packing, (
                "a last one that is not full"
            )
        made.gradients.accumulate(micro_batches, 3, never_stop)
        gradients.append(
            torch.cat([p.grad.flatten() for p in made.network.parameters() if p.grad is not None])
        )
    norm = gradients[0].norm()
    assert norm > 0
    for other in gradients[1:]:
        assert (other - gradients[0]).norm() / norm < 1e-5


def test_changed_data_are_not_mixed_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that was stopped goes on with the data that it began with, or not at all."""
    with monkeypatch.context() as patch:
        Stopping(patch, 4)
        with pytest.raises(Interrupted):
            small.trainer(tmp_path / "run", "masked_lm", family="bert").train()
    monkeypatch.setattr(small, "WORDS", [*small.WORDS, "another"])
    with pytest.raises(ConfigError, match="no longer those that this run began with"):
        small.trainer(tmp_path / "run", "masked_lm", family="bert").train()


def test_another_machine_or_more_steps_is_said(tmp_path: Path) -> None:
    """A run of other settings is not silently continued."""
    small.trainer(tmp_path / "run", "masked_lm", family="bert")
    with pytest.raises(ConfigError, match=r"optimizer\.learning_rate"):
        small.trainer(tmp_path / "run", "masked_lm", family="bert", optimizer={"learning_rate": 0.5})
