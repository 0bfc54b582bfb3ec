"""Our side of a run whose loss is estimated from some words first and computed from all at its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.measure import whole_run
from pretune.objectives.wrappers.sampled_softmax import SampledSoftmaxSettings

EARLY, LATE = "ours, some words", "ours, all words"


def ours_by_words(
    settings: Mapping[str, Any], window: Mapping[str, Any]
) -> dict[str, tuple[str, dict[str, Any]]]:
    """A side for each of the two stretches of a run by pretrain's defaults."""
    whole = {"settings": {**settings, "sampled_softmax": None}, **window}
    return {EARLY: ("ours.rate", {"settings": dict(settings), **window}), LATE: ("ours.rate", whole)}


def joined(found: Mapping[str, Sequence[float]]) -> dict[str, Sequence[float]]:
    """What was found, with the rates of whole runs as ``ours``."""
    until = SampledSoftmaxSettings().until
    return {"ours": whole_run(found[EARLY], found[LATE], until), **found}
