"""A published checkpoint fine-tuned by each side at its defaults: scores on the same test records, and time.

The peer is what run_glue.py does of itself (5e-5 falling to 0, batches of 8, three epochs, texts padded to
128 tokens). Both sides get the same training, validation and test records; only ours looks at those of
validation. Time is that of the processor, for all that a side does: reading, training, evaluations, test, and
of ours the baselines and the report. Every run is a line of ``trials.jsonl``; a rerun makes what is missing.
"""

from __future__ import annotations

import itertools
import json
import random
import shutil
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.measure import Options, child, ratios
from benchmarks.trials import Table, key
from pretune.metrics.statistics import paired_difference

ABOUT = "scores and processor time of fine-tuning at defaults beside run_glue.py's; to reach: not worse, half"
NEEDS = "accelerate (for Trainer); DATA; MODELS with all-MiniLM-L6-v2 and own-zh; in parts: MINUTES=m"
SETS = ("sentiment_en", "qa_yesno_en", "sentiment_zh", "topic_zh", "spam_en", "topic_bbc_en")
CHINESE = ("sentiment_zh", "topic_zh")
PUBLISHED, OWN = "all-MiniLM-L6-v2", "own-zh"
"""The second is pretune's own: `pretune pretrain` of pretrain_zh, 1.2 M tokens, 3 layers x 192; its model/ as
a folder of that name among MODELS."""
SERIES = 1
"""Of the runs of both sides: another number, and all are made anew."""
TESTED = 300
"""Test records, at most."""
SEEDS = (0, 1, 2)
PLAN = (
    (PUBLISHED, SETS, 300, "max_length"),
    (OWN, CHINESE, 300, "max_length"),
    (OWN, CHINESE, 3000, "max_length"),
    (PUBLISHED, SETS, 3000, "dynamic"),
)
"""(model, sets, training records, how the peer pads), in the order in which they are run. The last pads to
each batch only, which is faster for the peer; it takes some six hours."""


def run(options: Options) -> dict[str, Any]:
    """What is missing of the runs, as long as there is time, and what is known then."""
    if options.data is None:
        raise RuntimeError("needs DATA=folder of the shared sets")
    table = Table(options.out / "trials.jsonl")
    began, done = time.monotonic(), 0
    for config in configs(options):
        if key(config) in table.results():
            continue
        spent = (time.monotonic() - began) / 60
        if (options.minutes and spent >= options.minutes) or (options.trials and done >= options.trials):
            break
        result = made(config, options)
        table.add(config, result)
        done += 1
        print(
            f"  {config['side']:4} {config['set']:13} {config['records']:5} records, seed {config['seed']}: "
            f"accuracy {statistics.fmean(result['right']):.3f}, {result['processor seconds']:.0f} s",
            flush=True,
        )
    return {"cells": summary(table.results().values())}


def configs(options: Options) -> Iterator[dict[str, Any]]:
    """Every run of the plan."""
    for model, sets, records, padding in PLAN[:1] if options.smoke else PLAN:
        for seed, name in itertools.product(SEEDS[:1] if options.smoke else SEEDS, sets):
            if options.smoke and name != sets[0]:
                continue
            about = {"set": name, "records": 40 if options.smoke else records, "seed": seed, "model": model,
                     "series": SERIES}  # fmt: skip
            yield {"side": "peer", **about, "padding": padding}
            yield {"side": "ours", **about}


def made(config: Mapping[str, Any], options: Options) -> dict[str, Any]:
    """One run of one side: whether each test record is right, the scores, and the time."""
    assert options.data is not None
    folder = options.scratch / "finetune-defaults" / key(config)
    shutil.rmtree(folder, ignore_errors=True)
    files = write_records(options.data / config["set"], folder, config["records"], config["seed"])
    sent = {**config, **files, "model": str(options.models / config["model"]), "out": str(folder / "run")}
    found = child(f"{config['side']}.classified", sent, limit=options.limit, log=options.out / "last.log")
    shutil.rmtree(folder, ignore_errors=True)
    return found


def write_records(source: Path, folder: Path, records: int, seed: int) -> dict[str, str]:
    """The records of a run: ``seed`` draws those of training, the others are always the same."""
    folder.mkdir(parents=True)
    files = {}
    for part, most in (("train", records), ("validation", max(30, records // 8)), ("test", TESTED)):
        rows = [
            json.loads(line) for line in (source / f"{part}.jsonl").read_text(encoding="utf-8").splitlines()
        ]
        random.Random(seed if part == "train" else 0).shuffle(rows)
        kept = [{k: row[k] for k in ("text", "text_pair", "label") if k in row} for row in rows[:most]]
        files[part] = str(folder / f"{part}.jsonl")
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept)
        Path(files[part]).write_text(lines, encoding="utf-8")
    return files


def summary(rows: Sequence[Mapping[str, Any]] | Any) -> list[dict[str, Any]]:
    """Each (model, records, set) that both sides have runs of, by the seeds that both have."""
    runs: dict[tuple[str, int, str], dict[str, dict[int, Mapping[str, Any]]]] = {}
    for row in rows:
        config = row["config"]
        if config["series"] == SERIES:
            cell = config["model"], config["records"], config["set"]
            sides = runs.setdefault(cell, {"ours": {}, "peer": {}})
            sides[config["side"]][config["seed"]] = row["result"]
    cells = []
    for (model, records, name), sides in sorted(runs.items()):
        seeds = sorted(sides["ours"].keys() & sides["peer"].keys())
        if seeds:
            print(f"  {model}, {records} records, {name}:", flush=True)
            about = {"model": model, "records": records, "set": name}
            cells.append({**about, **compared(sides, seeds)})
    return cells


def compared(sides: Mapping[str, Mapping[int, Mapping[str, Any]]], seeds: Sequence[int]) -> dict[str, Any]:
    """Means over the seeds, the paired interval of the difference in accuracy, and the ratio of the times."""
    ours, peer = ([sides[side][seed] for seed in seeds] for side in ("ours", "peer"))
    difference = paired_difference([r["right"] for r in ours], [r["right"] for r in peer])
    ratio = ratios([r["processor seconds"] for r in ours], [r["processor seconds"] for r in peer])
    right: list[list[float]] = [[statistics.fmean(r["right"]) for r in side] for side in (ours, peer)]
    found: dict[str, Any] = {
        "seeds": len(seeds),
        "accuracy": [statistics.fmean(shares) for shares in right],
        "macro_f1": [statistics.fmean(r["macro_f1"] for r in side) for side in (ours, peer)],
        "difference": difference.mean, "interval": list(difference.interval), "time": ratio.median,
    }  # fmt: skip
    low, high = difference.interval
    print(
        f"  accuracy {found['accuracy'][0]:.3f} beside {found['accuracy'][1]:.3f} ({difference.mean:+.3f}, "
        f"{low:+.3f} to {high:+.3f}), macro F1 {found['macro_f1'][0]:.3f} beside {found['macro_f1'][1]:.3f}, "
        f"time {ratio.median:.2f}, {len(seeds)} seeds",
        flush=True,
    )
    return found
