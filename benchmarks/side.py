"""One side of a comparison, in a process of its own: a config as JSON on stdin, the result on stdout."""

from __future__ import annotations

import importlib
import json
import sys

import torch

from benchmarks.measure import THREADS


def main() -> None:
    """``python -m benchmarks.side ours.rate`` and the like."""
    room, name = sys.argv[1].rsplit(".", 1)
    torch.set_num_threads(THREADS)
    result = importlib.import_module(f"benchmarks.{room}").SIDES[name](json.load(sys.stdin))
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
