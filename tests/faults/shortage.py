"""Too little memory: told by the system (RLIMIT_AS), and injected; in training and in evaluation."""

from __future__ import annotations

import json
import math
import resource
from pathlib import Path
from typing import Any

from harness import Ended, Row, Setting, check, log_of

from pretune.families import bert

WIDE = (
    "training.micro_batch=64", "training.batch_tokens=8192", "budget=2 steps", "training.evaluations=1",
    "max_length=128", "model.hidden_size=128", "model.hidden_dropout_prob=0", "evaluation_tokens=8192",
)  # fmt: skip
TORCH = "DefaultCPUAllocator: not enough memory: you tried to allocate 1 bytes."


def out_of_memory(setting: Setting, tries: int) -> list[Row]:
    injected = Row("out of memory, injected", "rows halve until they fit, loss as ever within 1e-4")
    real = Row("out of memory, RLIMIT_AS", "the same, or a clear error that names the way out")
    reference = setting.folder / "roomy"
    ended = setting.run(reference, more=WIDE)
    check(ended.code == 0, ended.err)
    for number in range(tries - tries // 2):
        work, fits = ("training", "evaluation")[number % 2], (1, 3, 8)[number // 2 % 3]
        with setting.fresh("short") as run, injected.trying(f"{work}, {fits} rows fit"):
            ended = setting.run(run, lambda work=work, fits=fits: _inject(work, fits), more=WIDE)
            check(ended.code == 0, ended.err)
            check(f"in {work}" in ended.err, ended.err)
            _as_ever(reference, run)
            kept = next(iter(json.loads((run / "plan.json").read_text())["micro_batch_limits"].values()))
            check(list(kept) == [work], kept)
            check(kept[work][-1][1] <= fits < 2 * kept[work][-1][1] + 1, kept)
    for number in range(tries // 2):
        spare = (40 + 20 * number) << 20
        with setting.fresh("short") as run, real.trying(f"{spare >> 20} MiB to spare"):
            ended = setting.run(run, lambda spare=spare: _limit_at_training(spare), more=WIDE)
            real.saw(_fits_or_says(ended, reference, run))
    return [injected, real]


def _inject(work: str, fits: int) -> None:
    forward = bert.Network.forward

    def narrow(network: Any, batch: Any, *arguments: Any, **named: Any) -> Any:
        outputs = forward(network, batch, *arguments, **named)
        if (work == "training") == network.training and len(batch.tokens) > fits:
            raise RuntimeError(TORCH)
        return outputs

    bert.Network.forward = narrow  # type: ignore[method-assign]


def _limit_at_training(spare: int) -> None:
    """From the first forward pass on there are ``spare`` bytes more than the process has by then."""
    forward = bert.Network.forward

    def limited(network: Any, *arguments: Any, **named: Any) -> Any:
        if resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY:
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            limit = pages * resource.getpagesize() + spare
            resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
        return forward(network, *arguments, **named)

    bert.Network.forward = limited  # type: ignore[method-assign]


def _fits_or_says(ended: Ended, reference: Path, run: Path) -> str:
    if ended.code == 0:
        _as_ever(reference, run)
        return "halved" if "out of memory" in ended.err else "fitted"
    check(ended.code == 1 and "memory" in ended.err and "smaller model" in ended.err, ended.err)
    check("Traceback" not in ended.err, ended.err)
    return "clear error"


def _as_ever(reference: Path, run: Path) -> None:
    expected, found = ([row for row in log_of(path) if row["type"] == "step"] for path in (reference, run))
    check(len(expected) == len(found), f"{len(found)} rows for {len(expected)}")
    for one, other in zip(expected, found, strict=True):
        for name in ("loss", "gradient_norm"):
            if name in one:
                check(
                    math.isclose(one[name], other[name], rel_tol=1e-4),
                    f"{name} {other[name]} for {one[name]}",
                )
