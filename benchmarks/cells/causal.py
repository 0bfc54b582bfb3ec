"""Causal language modelling: our decoder beside stock GPT-2 and Llama, as they come and tuned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from benchmarks import text
from benchmarks.measure import Options, beside, interleaved, spread
from benchmarks.words import joined, ours_by_words

ABOUT = "tokens/s of causal LM, 4 x 256, V = 8,192, T = 256, beside GPT-2 and Llama; to reach 1.5, 1.2 tuned"
NEEDS = (
    "accelerate (for Trainer); a C++ compiler for torch.compile; DATA for the English text of the shared sets"
)
LENGTH = 256
TUNED: dict[str, Any] = {"dropout": 0.0, "flush": True, "arguments": {"optim": "adamw_torch_fused"}}
TRIED: tuple[dict[str, Any], ...] = (
    {"batch": 4}, {"batch": 8}, {"batch": 16}, {"batch": 16, "workers": 1}, {"batch": 16, "compile": True},
)  # fmt: skip


def run(options: Options) -> dict[str, Any]:
    """Tune each peer by one window a setting, then all in turns."""
    made, settings = ours(options)
    window = {"seconds": options.seconds, "warm": 1.0 if options.smoke else 5.0}
    sides: dict[str, tuple[str, Mapping[str, Any]]] = {**ours_by_words(settings, window)}
    for family in ("gpt2", "llama"):
        peer: dict[str, Any] = {"corpus": str(made.prepared), "length": LENGTH, "family": family} | window
        sides[f"{family}, defaults"] = ("peer.rate", peer)
        sides[f"{family}, tuned"] = ("peer.rate", peer | TUNED | fastest(peer | TUNED, options))
    about = {"text": made.label, "vocabulary": made.vocabulary, "optimisers": "ours Muon, theirs AdamW"}
    found = joined(interleaved(sides, options, "tokens a second"))
    configs = {name: config for name, (_, config) in sides.items()}
    return about | beside(found, "tokens a second") | {"configs": configs}


def ours(options: Options) -> tuple[text.Text, dict[str, Any]]:
    """The text, and the defaults of ``pretrain`` on it."""
    made = text.text(options, frame="start")
    return made, {"corpus": [str(made.prepared)], "family": "llama", "max_length": LENGTH}


def fastest(peer: Mapping[str, Any], options: Options) -> dict[str, Any]:
    """The setting of ``TIMING_RECORDS`` with the most tokens a second."""
    tried = TRIED[:2] if options.smoke else TRIED
    # torch.compile is warmed up for as long as it compiles: a minute here.
    sides = {
        str(number): ("peer.rate", {**peer, **setting} | ({"warm": 120.0} if "compile" in setting else {}))
        for number, setting in enumerate(tried)
    }
    found = interleaved(sides, replace(options, pairs=min(2, options.pairs)), "tokens a second")
    best = max(found, key=lambda name: spread(found[name]).median)
    print(f"  {peer['family']} tuned: {tried[int(best)]}")
    return tried[int(best)] | ({"warm": 120.0} if "compile" in tried[int(best)] else {})
