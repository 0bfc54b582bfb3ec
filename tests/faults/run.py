"""Every fault, many times: ``make faults``; prints a table, writes result.json, and fails if a try does.

python tests/faults/run.py [--short] [--only WORD] [--part 1/2] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "conformance"))

import bad_steps
import damage
import disks
import folders
import kills
import matrix
import shortage
import state_files
import stops
import together
from harness import Row, Setting

Fault = Callable[[Setting, int], list[Row]]
FAULTS: dict[Fault, tuple[int, int]] = {
    kills.kill_9: (40, 3),
    disks.full_disk: (20, 1),
    disks.failing_calls: (30, 3),
    disks.curves_that_cannot_be_written: (3, 1),
    folders.damaged_folders: (5000, 60),
    damage.damaged_files: (damage.FLIPS, 12),
    stops.signals: (10, 1),
    stops.left_in_the_middle: (4, 1),
    stops.second_signal: (10, 1),
    stops.in_preparation: (8, 1),
    bad_steps.bad_steps: (30, 2),
    shortage.out_of_memory: (15, 2),
    matrix.resume_matrix: (64, 3),
    state_files.state_files: (60, 3),
    together.together: (20, 2),
}
"""Tries in full, and in the short form that `make test` runs."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="few tries of each")
    parser.add_argument("--only", default="", help="faults whose function has this word in its name")
    parser.add_argument("--part", default="1/1", help="every n-th fault, for n processes side by side")
    parser.add_argument("--json", type=Path, default=Path(__file__).with_name("result.json"))
    options = parser.parse_args()
    part, parts = map(int, options.part.split("/"))
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="pretune-faults-") as folder:
        setting = Setting(Path(folder))
        for fault, (full, short) in list(FAULTS.items())[part - 1 :: parts]:
            if options.only in fault.__name__:
                began = time.monotonic()
                found = fault(setting, short if options.short else full)
                print(f"  {fault.__name__}: {time.monotonic() - began:.0f} s", file=sys.stderr)
                rows += found
    print_table(rows)
    options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1, ensure_ascii=False) + "\n")
    return int(any(row.survived < row.tries for row in rows))


def _seen(row: Row) -> str:
    return f" [{', '.join(f'{count} {what}' for what, count in row.seen.items())}]" if row.seen else ""


def print_table(rows: list[Row]) -> None:
    width = max(len(row.fault) for row in rows)
    print(f"{'fault':{width}}  tries  survived  what was checked")
    for row in rows:
        print(f"{row.fault:{width}}  {row.tries:5}  {row.survived:8}  {row.checked}{_seen(row)}")
    for row in rows:
        for why in row.why:
            print(f"\n{row.fault}: {why}")


if __name__ == "__main__":
    sys.exit(main())
