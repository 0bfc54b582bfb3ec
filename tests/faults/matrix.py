"""Stopped anywhere and resumed is bit for bit not stopped: every kind of run with every kind of setting."""

from __future__ import annotations

import itertools
import json
import random
import shutil
from pathlib import Path
from typing import Any

import small
import torch
from harness import Row, Setting, check

from pretune.errors import Interrupted
from pretune.runtime import device
from pretune.training import trainer as trainer_module
from pretune.training.callbacks import adjustments
from pretune.training.duration import parse_duration

STEPS = 12
KINDS = (
    ("masked_lm", "bert"),
    ("masked_lm", "modernbert"),
    ("causal_lm", "llama"),
    ("classification", "bert"),
)
CHOICES: tuple[dict[str, Any], ...] = tuple(
    {"optimizer": {"name": optimizer}, "ema": ema, "packing": packing}
    for optimizer, ema, packing in itertools.product(("adamw", "muon"), (None, 0.9), (True, False))
)
CHANGES: list[dict[str, Any]] = [
    {"step": 4, "steps": [STEPS, 10]},
    {
        "step": 6,
        "values": {"training.optimizer.learning_rate": 3e-2, "training.clip": 0.5},
        "requested_at": 1,
    },
    {"step": 7, "skip": [7], "loss_and_norm": {"7": ["nan", "nan"]}},
    {"step": 8, "steps": [10, 11]},
]
"""As a budget in minutes is corrected, with a learning rate that was changed and a step that was left out."""


def resume_matrix(setting: Setting, tries: int) -> list[Row]:
    """Dropout is on in all; every second run has a budget in minutes with changes in mid-run to replay."""
    row = Row("stopped at any step or in an evaluation", "weights, optimiser, average and log as not stopped")
    draw, folder = random.Random(6), setting.folder / "matrix"
    cases = list(itertools.product(KINDS, CHOICES, (False, True)))
    draw.shuffle(cases)
    for (kind, family), choice, replayed in cases[:tries]:
        whole = _made(folder / "whole", kind, family, choice, replayed)
        whole.train()
        stops = [("backward", draw.randint(1, 20)), ("evaluation", draw.randint(1, 6))]
        for where, at in stops:
            what = f"{kind} {family} {choice} {'replayed, ' if replayed else ''}{where} {at}"
            with row.trying(what):
                place = folder / f"{where}-{at}"
                row.saw(_resumes(whole, place, (kind, family, choice, replayed), where, at))
                check(_log(place) == _log(folder / "whole"), "another log")
        shutil.rmtree(folder)
    return [row]


def _made(folder: Path, kind: str, family: str, choice: dict[str, Any], replayed: bool) -> Any:
    made = small.trainer(folder, kind, family=family, steps=STEPS, save_every=5, **choice)
    batches, judge = [made.dataloader(number) for number in (0, 1)], made.validation.evaluate

    def evaluate(network: torch.nn.Module, step: int) -> Any:
        with torch.inference_mode():
            for part in itertools.chain(*batches):
                network(part.batch, heads=part.objective.heads)
        return judge(network, step)

    made.validation.evaluate = evaluate
    if replayed:
        made.budget.duration = parse_duration("10 min")
        if not made.run.read_plan():
            plan = {
                "steps": STEPS,
                "machine": device.describe(),
                "data": made.dataloader.fingerprint,
                "changes": CHANGES,
            }
            path = folder / "request.json"
            path.write_text(json.dumps(plan))
            adjustments.replay_plan(made.run, path)
    return made


def _resumes(whole: Any, folder: Path, case: tuple[Any, ...], where: str, at: int) -> str:
    stopped = _made(folder, *case)
    how = "ended before"
    with _Stop(stopped, where, at):
        try:
            stopped.train()
        except Interrupted:
            how = f"stopped in {where}"
    resumed = _made(folder, *case) if how != "ended before" else stopped
    if resumed is not stopped:
        resumed.train()
    expected, found = _everything(whole), _everything(resumed)
    check(expected.keys() == found.keys(), "other tensors")
    other = [name for name in expected if not torch.equal(expected[name], found[name])]
    check(not other, f"{how}: {other[:3]} of {len(other)} differ")
    return how


class _Stop:
    """Asks to stop at the ``at``-th backward pass or forward pass of an evaluation."""

    def __init__(self, made: Any, where: str, at: int) -> None:
        self.made, self.where, self.left = made, where, at
        self.request: Any = None

    def __enter__(self) -> None:
        self.enter, self.backward = trainer_module.StopRequest.__enter__, torch.autograd.backward

        def entered(request: Any) -> Any:
            self.request = request
            return self.enter(request)

        def counted(*arguments: Any, **options: Any) -> None:
            self.backward(*arguments, **options)
            self._see("backward")

        trainer_module.StopRequest.__enter__ = entered  # type: ignore[method-assign]
        torch.autograd.backward = counted
        self.handle = self.made.network.register_forward_hook(
            lambda *_: None if torch.is_grad_enabled() else self._see("evaluation")
        )

    def __exit__(self, *_: object) -> None:
        trainer_module.StopRequest.__enter__ = self.enter  # type: ignore[method-assign]
        torch.autograd.backward = self.backward
        self.handle.remove()

    def _see(self, where: str) -> None:
        self.left -= where == self.where
        if self.left == 0 and where == self.where:
            self.request.should_stop = True


def _everything(made: Any) -> dict[str, torch.Tensor]:
    averages = made.checkpointer.ema._average.items() if made.checkpointer.ema else ()
    state: dict[str, torch.Tensor] = small.state(made)
    return state | {f"average/{name}": value.clone() for name, value in averages}


def _log(folder: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]
