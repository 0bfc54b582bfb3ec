"""Masked language modelling: each side's recommended recipe at one size."""

from __future__ import annotations

from typing import Any

from benchmarks import text
from benchmarks.cells.masked import LENGTH
from benchmarks.measure import Options, beside, interleaved
from benchmarks.words import joined, ours_by_words

ABOUT = "tokens/s of masked LM by each side's recipe: our ModernBERT + Muon, their BERT + AdamW; to reach 3.3"
NEEDS = "accelerate (for Trainer); DATA for the English text of the shared sets"


def run(options: Options) -> dict[str, Any]:
    """Our defaults of ``pretrain`` beside those of run_mlm.py."""
    made, settings = ours(options)
    window = {"seconds": options.seconds, "warm": 1.0 if options.smoke else 5.0}
    peer = {"corpus": str(made.prepared), "length": LENGTH, "family": "bert"} | window
    sides: dict[str, tuple[str, dict[str, Any]]] = {
        **ours_by_words(settings, window),
        "bert + AdamW, Trainer, batch 8": ("peer.rate", peer),
        "bert + AdamW, Trainer, batch 32": ("peer.rate", peer | {"batch": 32}),
    }
    about = {"text": made.label, "vocabulary": made.vocabulary, "optimisers": "ours Muon, theirs AdamW"}
    found = joined(interleaved(sides, options, "tokens a second"))
    configs = {name: config for name, (_, config) in sides.items()}
    return about | beside(found, "tokens a second") | {"configs": configs}


def ours(options: Options) -> tuple[text.Text, dict[str, Any]]:
    """The text, and the defaults of ``pretrain`` on it."""
    made = text.text(options, vocabulary=30_522, kind="wordpiece")
    return made, {"corpus": [str(made.prepared)], "max_length": LENGTH, "family": "modernbert"}
