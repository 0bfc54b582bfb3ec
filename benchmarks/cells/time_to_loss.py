"""Wall-clock until a complete run of ours ends at the held-out loss at which their tuned run ends.

Phases, each for masked and causal: both sides are tuned by twelve trials of a million tokens on one corpus
(news and manuals); on the rest, in English and Chinese, the peer's best setting is trained on five million
tokens, and ours in complete runs, three seeds each, longer or shorter until the shortest that gets there is
found, every run with its own schedule. Models are scored inside stock transformers. Every trial is a line of
``trials.jsonl``; a rerun does what is missing.
"""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmarks import text
from benchmarks.measure import THREADS, Options, child
from benchmarks.trials import Config, Stages, Table, key, next_trial, shortest

ABOUT = "wall-clock to the loss where their tuned run ends (5M tokens), masked, causal, en, zh; to reach 5"
NEEDS = (
    "accelerate; DATA; about ten hours (the plan says how many), in parts: TRIALS=n or MINUTES=m, then again"
)
TRIALS, TRIAL_TOKENS, TOKENS = 12, 1_000_000, 5_000_000
LENGTHS = (0.1, 0.13, 0.16, 0.2, 0.25, 0.32, 0.4, 0.5, 0.57, 0.65, 0.72, 0.8, 0.9, 1.0, 1.12, 1.25)
"""Of our runs, as shares of the peer's tokens: a quarter apart, and an eighth from a half on."""
FIRST = LENGTHS.index(0.4)
"""Where a search begins."""
SIZE = {"layers": 2, "width": 128, "heads": 2}
"""Of both sides' models: five million tokens do not fill a larger one, and hours would go into it."""
SEEDS = (0, 1, 2)
BELOW_UNIGRAM = 0.5
"""Nats by which the peer must end below a unigram model for the comparison to count."""
SERIES = {"masked": 2, "causal": 4}
"""Of the reported runs of both sides: another number, and all are made anew, on one machine and day."""
LENGTH = {"masked": 128, "causal": 256}
FRAME = {"masked": "cls_sep", "causal": "start"}
PEER = {"masked": ("bert", "modernbert"), "causal": ("gpt2", "llama")}
OURS = {"masked": "modernbert", "causal": "llama"}

OUR_SIZE = {
    "num_hidden_layers": SIZE["layers"], "hidden_size": SIZE["width"], "num_attention_heads": SIZE["heads"],
}  # fmt: skip

START: dict[tuple[str, str], Config] = {
    ("ours", "masked"): {"batch": 4, "learning_rate": 1e-3, "muon_learning_rate": 0.01, "warmup": 0.06,
                         "schedule": "cosine", "rate": 0.3},
    ("ours", "causal"): {"batch": 8, "learning_rate": 5e-3, "muon_learning_rate": 0.01, "warmup": 0.06,
                         "schedule": "cosine"},
    ("peer", "masked"): {"batch": 8, "learning_rate": 1e-3, "dropout": 0.0},
    ("peer", "causal"): {"batch": 8, "learning_rate": 1e-3, "dropout": 0.0},
}  # fmt: skip
"""Where the trials of a side begin; ours, masked, was found on another text (docs/lab-notes.md)."""
MASK_OPTIONS = {"rate": "mask_rate", "rate_end": "final_mask_rate"}
"""A key of a stored trial, and the option of masked_lm that it stands for."""
AFTERWARDS: dict[str, Config] = {
    "masked": {"sampled_until": 0.9, "beta2": 0.995, "learning_rate": 2e-3, "batch": 8, "rate_end": 0.2},
    "causal": {"sampled_until": 0.9, "beta2": 0.995, "muon_every": 2, "batch": 8, "muon_learning_rate": 0.01},
}
"""Of ours, chosen on the tuning corpus after the trials: see docs/lab-notes.md, "Sampled softmax" and "A
longer memory for Adam"."""


def stages(side: str, objective: str) -> Stages:
    """What is tried, in this order, until the trials are used up."""
    if side == "peer":
        return (
            ("family", PEER[objective]), ("batch", (4, 16, 32)), ("learning_rate", (5e-4, 2e-3, 4e-3)),
            ("dropout", (0.1,)), ("family", PEER[objective]), ("batch", (4, 8, 16)),
            ("learning_rate", (7e-4, 1.4e-3, 3e-3)),
        )  # fmt: skip
    if objective == "masked":
        return (
            ("rate", (0.4, 0.5)), ("muon_learning_rate", (0.005, 0.007, 0.014)), ("batch", (2, 8)),
            ("learning_rate", (5e-4, 2e-3)), ("schedule", ("linear",)), ("warmup", (0.02,)),
        )  # fmt: skip
    return (
        ("muon_learning_rate", (0.005, 0.02, 0.04)), ("batch", (4, 16, 32)),
        ("learning_rate", (2.5e-3, 1e-2)), ("schedule", ("linear",)), ("warmup", (0.02,)),
        ("muon_learning_rate", (0.007, 0.014)),
    )  # fmt: skip


@dataclass
class Work:
    """The table, what may still be spent, and how a trial is run."""

    options: Options
    table: Table
    began: float = field(default_factory=time.monotonic)
    done: int = 0

    def may_go_on(self) -> bool:
        """Is there a trial, and a minute, left?"""
        spent = (time.monotonic() - self.began) / 60
        trials, minutes = self.options.trials, self.options.minutes
        return (trials is None or self.done < trials) and (minutes is None or spent < minutes)

    def scale(self, tokens: int) -> int:
        """Tokens of a run; few of them in a smoke run."""
        return tokens // 100 if self.options.smoke else tokens

    def run(self, config: Config) -> dict[str, Any] | None:
        """The result of a trial, from the table or made now; None where nothing may be spent any more."""
        there = self.table.results().get(key(config))
        if there is not None:
            result: dict[str, Any] = there["result"]
            return result
        if not self.may_go_on():
            return None
        folder = self.options.out / "runs" / key(config)
        shutil.rmtree(folder, ignore_errors=True)
        try:
            result = self._made(config, folder)
        except RuntimeError as error:
            result = {"failed": str(error)[-800:], "nats": float("inf"), "seconds": 0.0}
        self.table.add(config, result)
        shutil.rmtree(folder, ignore_errors=True)
        self.done += 1
        print(f"  {key(config)} {dict(config)}: {result.get('nats', 0):.3f} nats, "
              f"{result['seconds']:.0f} s", flush=True)  # fmt: skip
        return result

    def _made(self, config: Config, folder: Any) -> dict[str, Any]:
        objective = config["objective"]
        made = corpus(self.options, config)
        side = sides[config["side"]](config, str(made.prepared), str(folder))
        limit = max(self.options.limit, config["tokens"] / 1000)
        log = self.options.out / "logs" / f"{key(config)}.log"
        found = child(
            f"{'ours' if config['side'] == 'ours' else 'peer'}.complete", side, limit=limit, log=log
        )
        scored = child("scoring.score", {
            "corpus": str(made.prepared), "length": LENGTH[objective], "causal": objective == "causal",
            "model": found["model"], "held_tokens": 5000 if self.options.smoke else 100_000,
        }, limit=limit)  # fmt: skip
        kept = ("seconds", "processor seconds", "tokens", "steps", "peak bytes")
        return {k: found[k] for k in kept} | scored | {
            "text": made.label, "threads": THREADS}  # fmt: skip


def corpus(options: Options, config: Config) -> text.Text:
    """The text of a trial: settings are chosen on another one than is reported."""
    return text.text(
        options, language=config["language"], frame=FRAME[config["objective"]], part=config["part"],
        characters=25_000_000,
    )  # fmt: skip


def our_side(config: Config, prepared: str, out: str) -> dict[str, Any]:
    """A complete run of ours, its length known from the start."""
    length = LENGTH[config["objective"]]
    return {"out": out, "settings": {
        "corpus": [prepared], "family": OURS[config["objective"]], "max_length": length,
        "model": OUR_SIZE, "budget": f"{config['tokens']} tokens",
        "sampled_softmax": {"until": config["sampled_until"]} if "sampled_until" in config else None,
        "objective_options": {name: config[key] for key, name in MASK_OPTIONS.items() if key in config},
        "training": {
            "batch_tokens": config["batch"] * length, "seed": config["seed"], "evaluations": 1,
            "schedule": {"name": config["schedule"], "warmup": config["warmup"]},
            "optimizer": {"name": "muon", "learning_rate": config["learning_rate"],
                          "muon_learning_rate": config["muon_learning_rate"], "weight_decay": 0.1,
                          "betas": (0.9, config.get("beta2", 0.98)),
                          "muon_every": config.get("muon_every", 1)},
        },
    }}  # fmt: skip


def peer_side(config: Config, prepared: str, out: str) -> dict[str, Any]:
    """A complete run of the peer, at its best published settings of speed."""
    return {
        "corpus": prepared, "out": out, "length": LENGTH[config["objective"]], "flush": True, "size": SIZE,
        "arguments": {"optim": "adamw_torch_fused"},
        **{k: config[k] for k in ("family", "batch", "learning_rate", "dropout", "tokens", "seed")},
    }  # fmt: skip


sides: Mapping[str, Callable[[Config, str, str], dict[str, Any]]] = {"ours": our_side, "peer": peer_side}


def tuned(work: Work, side: str, objective: str) -> Config | None:
    """The best of twelve trials on the tuning corpus; None where they are not all done."""
    fixed = {"side": side, "objective": objective, "part": "tuning", "language": "en", "seed": 0,
             "tokens": work.scale(TRIAL_TOKENS)}  # fmt: skip
    family = {"family": PEER[objective][0]} if side == "peer" else {}
    most = 2 if work.options.smoke else TRIALS
    while True:
        losses = {k: row["result"].get("nats", float("inf")) for k, row in work.table.results().items()}
        start = {**fixed, **family, **START[side, objective]}
        config, best = next_trial(start, stages(side, objective), losses, most)
        if config is None:
            return best
        if work.run(config) is None:
            return None


def reported(work: Work, objective: str, language: str) -> dict[str, Any] | None:
    """Ours beside theirs on a reported corpus; None where trials are missing."""
    theirs, ours = tuned(work, "peer", objective), tuned(work, "ours", objective)
    if theirs is None or ours is None:
        return None
    ours = {**ours, **AFTERWARDS[objective]}
    here: Config = {"part": "reported", "language": language}
    if SERIES[objective] > 1:
        here = {**here, "series": SERIES[objective]}
    peer = work.run({**theirs, **here, "tokens": work.scale(TOKENS)})
    if peer is None:
        return None
    found: dict[str, Any] = {"peer": peer, "peer's settings": dict(theirs), "our settings": dict(ours)}
    found["counts"] = peer["nats"] <= peer.get("unigram", 0.0) - BELOW_UNIGRAM
    unit = "bits per byte" if objective == "causal" else "nats"
    found["unit"], found["seeds"] = unit, {}
    at = FIRST
    for seed in SEEDS[:1] if work.options.smoke else SEEDS:
        runs: dict[float, tuple[float, float]] = {}

        def meets(number: int, seed: int = seed, runs: Any = runs) -> bool | None:
            share = LENGTHS[number]
            more: dict[str, Any] = {"seed": seed, "tokens": int(work.scale(TOKENS) * share)}
            made = work.run({**ours, **here, **more})
            if made is None:
                return None
            runs[share] = (made["seconds"], made.get(unit, float("inf")))
            return bool(runs[share][1] <= peer[unit])

        over, best = shortest(len(LENGTHS), at, meets)
        if not over:
            return None
        at = at if best is None else best
        times = None if best is None else peer["seconds"] / runs[LENGTHS[best]][0]
        found["seeds"][seed] = {"runs, seconds and loss by share of tokens": runs, "times faster": times}
    faster = [s["times faster"] for s in found["seeds"].values()]
    found["times faster"] = None if None in faster else statistics.median(faster)
    return found


def plan(options: Options) -> dict[str, float]:
    """Minutes of machine that each part takes, about, from the speed of a short window of each side."""
    minutes: dict[str, float] = {}
    for objective, length in LENGTH.items():
        config = {"objective": objective, "language": "en", "part": "tuning"}
        prepared = str(corpus(options, config).prepared)
        window = {"seconds": min(10.0, options.seconds), "warm": 1.0, "corpus": prepared, "length": length}
        settings = {
            "corpus": [prepared], "family": OURS[objective], "max_length": length, "model": OUR_SIZE,
            "training": {"batch_tokens": START["ours", objective]["batch"] * length},
        }  # fmt: skip
        batch = START["peer", objective]["batch"]
        peer = window | {"family": PEER[objective][0], "batch": batch, "size": SIZE}
        rates = {
            "ours": child("ours.rate", window | {"settings": settings}, limit=options.limit),
            "peer": child("peer.rate", peer, limit=options.limit),
        }
        searched = len(SEEDS) * 2 * LENGTHS[FIRST] * TOKENS  # two runs a seed, of a middling length
        needs = {"ours": TRIALS * TRIAL_TOKENS + 2 * searched,
                 "peer": TRIALS * TRIAL_TOKENS + 2 * TOKENS}  # fmt: skip
        for side, tokens in needs.items():
            minutes[f"{objective}, {side}"] = tokens / rates[side]["tokens a second"] / 60
    for part, value in minutes.items():
        print(f"  plan: {part}: {value:,.0f} min")
    print(f"  plan: together {sum(minutes.values()) / 60:.1f} h", flush=True)
    return minutes


def run(options: Options) -> dict[str, Any]:
    """The plan, then every part that is not done yet, as far as TRIALS and MINUTES go."""
    if options.data is None and not options.smoke:
        raise RuntimeError("needs DATA=folder of the shared sets: the package's own text is too short")
    found: dict[str, Any] = {"plan, minutes": plan(options), "parts": {}}
    work = Work(options, Table(options.out / "trials.jsonl"))
    for objective in LENGTH:
        for language in ("en", "zh"):
            part = reported(work, objective, language)
            found["parts"][f"{objective}, {language}"] = part or "trials are missing: run it again"
            if part:
                remark = "" if part["counts"] else " (does not count: the peer ends too near a unigram model)"
                print(f"  {objective}, {language}: times faster {part['times faster']}{remark}", flush=True)
    return found
