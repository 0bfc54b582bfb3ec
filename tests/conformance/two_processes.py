"""Two processes train every objective on every family for some steps: started by torchrun, once for all.

``two_processes.py FOLDER`` leaves ``FOLDER/losses.json``: for each objective and family what rank 0 logged,
or why there is nothing.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # torchrun starts it as a script

import small

from pretune.errors import PretuneError
from pretune.runtime.distributed import World

SAMPLED, WORDS = ("causal_lm", "llama"), 60
"""The pair that is trained once more, its loss estimated from so many words of the vocabulary."""


def losses(
    folder: Path, kind: str, family: str, world: World | None = None, sampled: int | None = None
) -> list[float]:
    """What a small run without dropout logged, of each of its steps."""
    small.trainer(
        folder, kind, family=family, world=world, dropout=False, steps=4, evaluations=1,
        optimizer={"name": "adamw"}, sampled=sampled,
    ).train()  # fmt: skip
    return small.losses(folder)


def main(folder: Path) -> None:
    """Both ranks go through all in the same order; one that fails on both leaves the others be."""
    found: dict[str, list[float] | str] = {}
    with World.init_process_group() as world:
        for kind, family, words in [(*pair, None) for pair in small.pairs()] + [(*SAMPLED, WORDS)]:
            name = f"{kind}-{family}" + ("-sampled" if words else "")
            try:
                found[name] = losses(folder / name, kind, family, world, words)
            except (PretuneError, RuntimeError, ValueError, TypeError) as error:  # said by its test
                found[name] = f"{type(error).__name__}: {error}"
        if world.is_main:
            (folder / "losses.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
