"""Peak memory of the whole process, same batch on both sides."""

from __future__ import annotations

from typing import Any

from benchmarks import text
from benchmarks.cells.masked import DROPOUT, SHARE
from benchmarks.measure import Options, compared

ABOUT = (
    "peak resident memory of a training process, same batch, masked and causal; to be at most theirs (1.0)"
)
NEEDS = "accelerate (for Trainer); Linux; DATA for the English text of the shared sets"


def run(options: Options) -> dict[str, Any]:
    """BERT beside BERT, our decoder beside Llama, at eight rows a batch."""
    window = {"seconds": min(10.0, options.seconds), "warm": 1.0}
    masked = text.text(options, vocabulary=30_522, kind="wordpiece")
    causal = text.text(options, frame="start")
    found = {}
    for name, made, length, ours, theirs in (
        ("masked", masked, 128, {"family": "bert", "model": DROPOUT, "objective_options": SHARE}, "bert"),
        ("causal", causal, 256, {"family": "llama"}, "llama"),
    ):
        training = {"batch_tokens": 8 * length, "optimizer": {"name": "adamw"}}
        settings = {"corpus": [str(made.prepared)], "max_length": length, "training": training} | ours
        peer = {"corpus": str(made.prepared), "length": length, "family": theirs, "batch": 8} | window
        print(f"  {name}")
        found[name] = compared(
            {"ours": ("ours.rate", {"settings": settings} | window), "Trainer": ("peer.rate", peer)},
            options, "peak bytes",
        )  # fmt: skip
    return {"text": masked.label, "parts": found}
