"""Masked language modelling: the same BERT with AdamW on both sides."""

from __future__ import annotations

from typing import Any

from benchmarks import text
from benchmarks.measure import Options, compared

ABOUT = (
    "tokens/s of masked LM: bert 4 x 256, V = 30,522, T = 128, dropout 0.1, AdamW on both sides; to reach 2.3"
)
NEEDS = "accelerate (for Trainer); DATA for the English text of the shared sets"
LENGTH = 128
BATCHES = (8, 16, 32)
SHARE = {"mask_rate": 0.15}
"""Of the tokens that are hidden, on both sides."""
DROPOUT = {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}


def run(options: Options) -> dict[str, Any]:
    """Ours and theirs at each batch size, in turns."""
    made = text.text(options, vocabulary=30_522, kind="wordpiece")
    window = {"seconds": options.seconds, "warm": 1.0 if options.smoke else 5.0}
    found: dict[str, Any] = {"text": made.label, "vocabulary": made.vocabulary, "batches": {}}
    for batch in BATCHES[:1] if options.smoke else BATCHES:
        settings = {
            "corpus": [str(made.prepared)], "family": "bert", "model": DROPOUT, "max_length": LENGTH,
            "objective_options": SHARE,
            "training": {"optimizer": {"name": "adamw"}, "batch_tokens": batch * LENGTH},
        }  # fmt: skip
        peer = {"corpus": str(made.prepared), "length": LENGTH, "family": "bert", "batch": batch} | window
        print(f"  batch {batch}")
        found["batches"][batch] = compared(
            {"ours": ("ours.rate", {"settings": settings} | window), "bert, Trainer": ("peer.rate", peer)},
            options, "tokens a second",
        )  # fmt: skip
    return found
