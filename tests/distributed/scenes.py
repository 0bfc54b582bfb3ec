"""What the tests let several processes do together: started by torchrun, once for all scenes.

``scenes.py FOLDER SCENE...``: each scene works in ``FOLDER/<scene>``; a test reads what it leaves there.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from pretune.cli.main import main
from pretune.errors import Interrupted
from pretune.training.world import World


def load_small() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "small_ranks", Path(__file__).parents[1] / "conformance" / "small.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["small_ranks"] = module
    spec.loader.exec_module(module)
    return module


small = load_small()
KINDS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "adamw": ("masked_lm", "bert", {"optimizer": {"name": "adamw"}}),
    "muon": ("causal_lm", "llama", {"optimizer": {"name": "muon"}, "ema": 0.9}),
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
    step = made._step

    def stepped(*arguments: Any) -> bool:
        if made.state.step == until and world.rank == by:
            os.kill(os.getpid(), signal.SIGTERM)
        return bool(step(*arguments))

    made._step = stepped
    if until is None:
        made.train()
        return
    try:
        made.train()
    except Interrupted:
        found = world.gather(made.state.step)
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
    "whole": whole, "uneven": uneven, "resumed": resumed, "chain": chain, "commands": commands,
}  # fmt: skip

if __name__ == "__main__":
    with World.opened() as ranks:
        for scene in sys.argv[2:]:
            SCENES[scene](Path(sys.argv[1]) / scene, ranks)
