"""List the benchmarks, or run one or all of them."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import sys
import time
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

from benchmarks.measure import THREADS, Options

CELLS = Path(__file__).parent / "cells"
RESULTS = Path(__file__).parent / "results"
SMOKE: dict[str, Any] = {"pairs": 1, "seconds": 2.0, "limit": 150.0, "smoke": True}


def names() -> list[str]:
    """Every benchmark, by the name of its file."""
    return sorted(p.stem.replace("_", "-") for p in CELLS.glob("*.py") if not p.stem.startswith("_"))


def cell(name: str) -> ModuleType:
    """The module of a benchmark."""
    return importlib.import_module(f"benchmarks.cells.{name.replace('-', '_')}")


def machine() -> dict[str, Any]:
    """What the figures hold for."""
    packages = ("torch", "transformers", "tokenizers", "accelerate")
    versions = {
        p.metadata["Name"]: p.version for p in metadata.distributions() if p.metadata["Name"] in packages
    }
    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
         if line.startswith("model name")), platform.processor(),
    )  # fmt: skip
    return {"processor": model, "cores": os.cpu_count(), "threads": THREADS, "versions": versions,
            "load before": os.getloadavg()[0]}  # fmt: skip


def parsed(arguments: list[str]) -> tuple[str, Options]:
    """Name and options of a command line; words left empty count as not given."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", nargs="?", default="")
    parser.add_argument("--data", default="")
    parser.add_argument("--models", default="")
    for number in ("pairs", "seconds", "limit", "trials", "minutes"):
        parser.add_argument(f"--{number}", default="")
    parser.add_argument(
        "--smoke", default="", help="1: tiny sizes, to see that it runs; no figure means anything"
    )
    given = parser.parse_args(arguments)
    options = Options(out=RESULTS, models=Options.models.expanduser())
    if given.smoke:
        options = replace(options, **SMOKE, out=RESULTS / "smoke")
    values: dict[str, Any] = {}
    for key, kind in {"data": Path, "models": Path, "pairs": int, "seconds": float, "limit": float,
                      "trials": int, "minutes": float}.items():  # fmt: skip
        if getattr(given, key):
            values[key] = kind(getattr(given, key))
    for key in {"data", "models"} & values.keys():
        values[key] = values[key].expanduser().resolve()
    return given.name, replace(options, **values)


def main() -> int:
    """Run what the command line names."""
    name, options = parsed(sys.argv[1:])
    if not name:
        for known in names():
            print(f"{known:16} {cell(known).ABOUT}\n{'':16} needs: {cell(known).NEEDS}")
        return 0
    if name != "all" and name not in names():
        print(f"no benchmark {name!r}; there are: {', '.join(names())}, all", file=sys.stderr)
        return 2
    failed = []
    for chosen in names() if name == "all" else [name]:
        print(f"{chosen}: {cell(chosen).ABOUT}", flush=True)
        about, began = machine(), time.perf_counter()
        try:
            found = cell(chosen).run(replace(options, out=options.out / chosen))
        except RuntimeError as error:  # a side that failed; the other benchmarks go on
            print(f"  failed: {error}", file=sys.stderr)
            failed.append(chosen)
            continue
        written = {"benchmark": chosen, "smoke": options.smoke, "machine": about,
                   "minutes": (time.perf_counter() - began) / 60, **found}  # fmt: skip
        options.out.mkdir(parents=True, exist_ok=True)
        path = options.out / f"{chosen}.json"
        path.write_text(json.dumps(written, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        print(f"  written: {path}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
