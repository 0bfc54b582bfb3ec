"""Arithmetic in use, as a share of this machine's own fp32 peak."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from benchmarks import text
from benchmarks.arithmetic import FORMULA
from benchmarks.measure import Options, child, ratios

ABOUT = (
    "operations of training at 6 x 384, masked and causal, as a share of the fp32 matrix peak; to reach 0.85"
)
NEEDS = "a quiet machine; DATA for the English text of the shared sets"
SIZE = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 6}
KINDS = {"masked": ("modernbert", "cls_sep", 128), "causal": ("llama", "start", 256)}


def run(options: Options) -> dict[str, Any]:
    """Peak, forward and backward alone, and the whole step, in turns."""
    print(f"  {FORMULA}")
    found: dict[str, Any] = {"formula": FORMULA, "kinds": {}}
    for kind in KINDS:
        made, settings = trained(options, kind)
        config = {"settings": settings, "seconds": options.seconds, "causal": kind == "causal",
                  "warm": 1.0 if options.smoke else 5.0}  # fmt: skip
        peaks, alone, whole = [], [], []
        for _ in range(options.pairs):
            peaks.append(child("arithmetic.peak", config, limit=options.limit)["operations a second"])
            gradient = child("arithmetic.gradients", config, limit=options.limit)
            alone.append(gradient["tokens a second"] * gradient["operations a token"])
            rate = child("ours.rate", config, limit=options.limit)["tokens a second"]
            whole.append(rate * gradient["operations a token"])
        best = [max(peaks)] * len(peaks)
        shares = {"forward and backward": ratios(alone, best), "whole step": ratios(whole, best)}
        for name, share in shares.items():
            print(f"  {kind}, {name}: {share} of {best[0] / 1e9:.0f} GFLOP/s")
        found["kinds"][kind] = {n: asdict(s) for n, s in shares.items()} | {
            "peaks": peaks, "settings": settings, "text": made.label, **gradient}  # fmt: skip
    return found


def trained(options: Options, kind: str) -> tuple[text.Text, dict[str, Any]]:
    """The text and our settings. The formula counts the head over all words: so does what is measured."""
    family, frame, length = KINDS[kind]
    made = text.text(options, frame=frame)
    return made, {"corpus": [str(made.prepared)], "family": family, "model": SIZE, "max_length": length,
                  "training": {"batch_tokens": 4096}, "sampled_softmax": None}  # fmt: skip
