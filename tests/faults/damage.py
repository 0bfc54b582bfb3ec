"""Files of a checkpoint that are cut, or in which a bit has flipped."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import small
import torch
from harness import Row, Setting, check

from pretune.errors import CheckpointError
from pretune.runtime import atomic_files

FLIPS = 200


def damaged_files(setting: Setting, tries: int) -> list[Row]:
    """Every file cut at seven places, and ``tries`` flipped bits, manifest.json included."""
    cuts = Row(
        "a file of a checkpoint cut", "found before anything changes; falls back by name to the one before"
    )
    flips = Row("a bit of a checkpoint flipped", "the same")
    draw = random.Random(2)
    run = setting.folder / "damaged"
    made = small.trainer(run, "masked_lm", family="bert", ema=0.9, max_checkpoints=3)
    made.train()
    newest, before = atomic_files.list_checkpoints(run / "checkpoints")[:2]
    spare = run / "spare"
    shutil.copytree(newest, spare)
    files = sorted(path.name for path in newest.iterdir())
    places = files if tries >= FLIPS else ["manifest.json", "model.safetensors"]
    for name in places:
        size = (spare / name).stat().st_size
        for at in sorted({0, 1, 8, size // 4, size // 2, int(0.99 * size), size - 1}):
            if at < size:
                content = (spare / name).read_bytes()[:at]
                with cuts.trying(f"{name} cut at {at} of {size}"):
                    _is_found(made, newest, before, name, content)
                shutil.copy(spare / name, newest / name)
    for number in range(tries):
        name = "manifest.json" if number % 4 == 0 else files[number % len(files)]
        content = bytearray((spare / name).read_bytes())
        at = draw.randrange(len(content))
        content[at] ^= 1 << draw.randrange(8)
        with flips.trying(f"{name}, byte {at}"):
            _is_found(made, newest, before, name, bytes(content))
        shutil.copy(spare / name, newest / name)
    shutil.rmtree(run)
    return [cuts, flips]


def _is_found(made: Any, newest: Path, before: Path, name: str, content: bytes) -> None:
    (newest / name).write_bytes(content)
    weights = small.state(made)
    try:
        made.checkpointer.restore(newest, print)
    except CheckpointError as error:
        check(name in str(error), error)
    else:
        check(False, "not found")
    same = [torch.equal(value, weights[key]) for key, value in small.state(made).items()]
    check(all(same), "something was changed before it was found")
    said: list[str] = []
    found = atomic_files.find_newest_valid(newest.parent, said.append)
    check(found == before, f"fell back to {found}")
    check(len(said) == 1 and newest.name in said[0] and name in said[0], said)
