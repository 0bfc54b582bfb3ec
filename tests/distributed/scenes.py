"""What the tests let several processes do together: started by torchrun, once for all scenes.

``scenes.py FOLDER SCENE...``: each scene works in ``FOLDER/<scene>``; a test reads what it leaves there.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "conformance"))  # torchrun starts it as a script

import contrastive
import pytest
import small
import torch
from torch import nn

from pretune.cli.main import main
from pretune.errors import DataError, Interrupted, RankError
from pretune.runtime.distributed import BUCKET_SIZE, OtherRankError, World
from pretune.training.ddp import ReplicatedNetwork

KINDS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "adamw": ("masked_lm", "bert", {"optimizer": {"name": "adamw"}}),
    "muon": ("causal_lm", "llama", {"optimizer": {"name": "muon", "muon_every": 2}, "ema": 0.9}),
    "adafactor": ("masked_lm", "modernbert", {"optimizer": {"name": "adafactor"}}),
    "sgd": (
        "classification",
        "bert",
        {"optimizer": {"name": "sgd"}, "batch_examples": 5, "batch_tokens": None},
    ),
    "uneven": ("causal_lm", "gpt2", {"batch_examples": 3, "batch_tokens": None, "micro_batch": 1}),
}
"""Objective, family and settings of a run; a step of ``uneven`` has two rows at most."""


def trained(
    folder: Path, kind: str, world: World, *, until: int | None = None, by: int = 0, **more: Any
) -> None:
    """A small run; rank ``by`` gets a signal in step ``until``, and all ranks stop."""
    objective, family, settings = KINDS[kind]
    made = small.trainer(folder, objective, family=family, world=world, **(settings | more))
    step = made._train_step

    def stepped(*arguments: Any) -> bool:
        if made.state.step == until and world.rank == by:
            os.kill(os.getpid(), signal.SIGTERM)
        return bool(step(*arguments))

    made._train_step = stepped
    if until is None:
        made.train()
        return
    try:
        made.train()
    except Interrupted:
        found = world.all_gather(made.state.step)
        assert len(set(found)) == 1, f"the ranks stopped at {found}"


def whole(folder: Path, world: World) -> None:
    """Every kind of run from its beginning to its end, in both ways."""
    for kind in KINDS:
        ends(folder, kind, world)


def uneven(folder: Path, world: World) -> None:
    """A run of few rows a step, for more ranks than there are rows."""
    ends(folder, "uneven", world)


def ends(folder: Path, kind: str, world: World) -> None:
    for way in ("ddp", "fsdp"):
        trained(folder / f"{kind}-{way}", kind, world, dropout=False, parallel=way)


def resumed(folder: Path, world: World) -> None:
    """With dropout on: a run that nothing disturbs, and one that a signal to another rank stops twice."""
    for way in ("ddp", "fsdp"):
        trained(folder / f"whole-{way}", "muon", world, parallel=way)
        for until in (3, 8):
            trained(folder / f"stopped-{way}", "muon", world, until=until, by=1, parallel=way)
        trained(folder / f"stopped-{way}", "muon", world, parallel=way)


def chain(folder: Path, world: World) -> None:
    """Goes on with a run that one process began, up to where the next number of ranks takes over."""
    steps = [(way, until) for way, until in json.loads((folder / "chain.json").read_text())]
    for way, until in steps:
        trained(folder / "run", "muon", world, until=until, dropout=False, parallel=way)


def talk(folder: Path, world: World) -> None:
    """What ranks can tell each other, with an answer that each of them checks."""
    rank, size = world.rank, world.world_size
    assert world.all_gather({"文": rank}) == [{"文": other} for other in range(size)]
    assert world.broadcast("rank 0: 零" if world.is_main else "another") == "rank 0: 零"
    assert world.sum_counts({"all": 2, f"of {rank}": rank}) == {"all": 2 * size} | {
        f"of {r}": r for r in range(size)
    }
    assert world.sum_values({"a": 0.1}) == {"a": sum([0.1] * size)}
    assert world.any_rank(rank == size - 1)
    assert not world.any_rank(False)
    assert world.on_main(lambda: {"rank": rank}) == {"rank": 0}
    for way in (failing_lead, failing_turn):
        with pytest.raises(DataError if world.is_main else OtherRankError):
            way(world)
    with pytest.raises(RankError, match="rank 1") if rank == 1 else nullcontext(), world.main_first():
        if rank == 1:
            raise DataError("nothing here")


def failing_lead(world: World) -> None:
    def work() -> None:
        raise DataError("no such file")

    world.on_main(work)


def failing_turn(world: World) -> None:
    with world.main_first():
        raise DataError("no such file")


def sums(folder: Path, world: World) -> None:
    """Tensors of several types and more than a bucket; parameters that not all ranks touched, or none."""
    ones = [torch.ones(3), torch.ones(2, 2, dtype=torch.float64), torch.ones(BUCKET_SIZE + 1), torch.ones(())]
    world.all_reduce_(ones)
    assert all(bool((tensor == world.world_size).all()) for tensor in ones)
    network = nn.ParameterDict({name: nn.Parameter(torch.full((2,), float(world.rank))) for name in "abc"})
    shared = ReplicatedNetwork(network, world)
    assert all(bool((p == 0).all()) for p in network.parameters()), "all ranks begin with rank 0's"
    (network["a"] * (1 + world.rank)).sum().backward()
    if world.is_main:
        network["b"].sum().backward()
    shared.reduce_gradients()
    assert network["a"].grad.tolist() == [sum(range(1, 1 + world.world_size))] * 2
    assert network["b"].grad.tolist() == [1.0, 1.0]
    assert network["c"].grad is None, "as in a process alone"


def whole_step(folder: Path, world: World) -> None:
    """A loss that needs the whole step: loss and gradient are those of one process, to 1e-5 in L2."""
    expected_loss, expected = contrastive.gradient(8)
    for micro_batch in (8, 2, 1):
        loss, gradient = contrastive.gradient(micro_batch, world)
        assert loss == pytest.approx(expected_loss, rel=1e-5)
        assert (gradient - expected).norm() / expected.norm() < 1e-5


def parts(folder: Path, world: World) -> None:
    """What a rank holds of weights and optimiser state: about one part in as many as there are ranks."""
    made = small.trainer(folder / "run", "causal_lm", family="llama", world=world, parallel="fsdp", steps=2)
    made.train()
    whole = sum(p.numel() for p in made.model_io.network.parameters())
    [optimizer] = made.optimizer.optimizers
    held = list(made.network.parameters())
    moments = [state["exp_avg"] for state in optimizer.state.values()]
    for tensors in (held, moments):
        assert sum(t.to_local().numel() for t in tensors) == pytest.approx(whole / world.world_size, rel=0.02)


def commands(folder: Path, world: World) -> None:
    """The command line, as each rank is started with it; what it says goes to the rank's own files."""
    for words in json.loads((folder / "commands.json").read_text()):
        for stream in (sys.stdout, sys.stderr):
            print(f"# {words[0]}", file=stream, flush=True)
        sys.argv = ["pretune", *words]
        try:
            main()
        except SystemExit as ended:
            print(f"# exit {ended.code}", flush=True)


SCENES: dict[str, Callable[[Path, World], None]] = {
    "whole": whole, "uneven": uneven, "resumed": resumed, "chain": chain, "talk": talk, "sums": sums,
    "parts": parts, "whole_step": whole_step, "commands": commands,
}  # fmt: skip

if __name__ == "__main__":
    with World.init_process_group() as ranks:
        for scene in sys.argv[2:]:
            SCENES[scene](Path(sys.argv[1]) / scene, ranks)
    threads = {(task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()}
    assert not [name for name in threads if "gloo" in name], "a thread that may abort the interpreter's end"
