"""Where the time of our steps goes, in the cells of speed: what is no product of matrices bounds them."""

from __future__ import annotations

from typing import Any

from benchmarks.cells import causal, masked_recipes, peak
from benchmarks.measure import Options, child

ABOUT = "where the time of a step goes, by kind of work, in the cells of causal, masked-recipes and peak"
NEEDS = "DATA for the English text of the shared sets"


def run(options: Options) -> dict[str, Any]:
    """The profile of each cell under the profiler, which takes some time of its own."""
    window = {"seconds": options.seconds, "warm": 1.0 if options.smoke else 5.0}
    best = child("arithmetic.peak", window, limit=options.limit)["operations a second"]
    print(f"  the peak of this machine: {best / 1e9:.0f} GFLOP/s")
    found: dict[str, Any] = {"peak, operations a second": best, "cells": {}}
    for name, settings in cells(options).items():
        made = child("profiles.step", {"settings": settings, **window}, limit=options.limit)
        found["cells"][name] = {**made, "settings": settings}
        rate = made["operations a second of the products"] / best
        print(f"  {name}: {made['milliseconds a step']:.0f} ms a step, products at {rate:.2f} of the peak")
        for kind, share in made["shares"].items():
            print(f"    {share:6.1%}  {kind}")
    return found


def cells(options: Options) -> dict[str, dict[str, Any]]:
    """Our settings in the cells of speed."""
    return {
        "causal": causal.ours(options)[1],
        "masked-recipes": masked_recipes.ours(options)[1],
        **{f"peak, {kind}": peak.trained(options, kind)[1] for kind in peak.KINDS},
    }
