"""Fine-tuning a real checkpoint on real classification sets, evaluation included."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.measure import Options, compared

ABOUT = "examples/s of fine-tuning all-MiniLM-L6-v2, evaluation included; to reach 2, 1.3 tuned"
NEEDS = "accelerate (for Trainer); DATA (sentiment_en, qa_yesno_en); MODELS with all-MiniLM-L6-v2"
SETS = ("sentiment_en", "qa_yesno_en")
EXAMPLES, HELD = 1280, 320
EVALUATED = {"num_train_epochs": 1, "eval_strategy": "epoch"}
TUNED = {"optim": "adamw_torch_fused", "train_sampling_strategy": "group_by_length", **EVALUATED}


def run(options: Options) -> dict[str, Any]:
    """Ours beside Trainer padded to 128, padded to each batch, and tuned, a set at a time."""
    if options.data is None:
        raise RuntimeError("needs DATA=folder of the shared sets (sentiment_en, qa_yesno_en)")
    model = options.models / "all-MiniLM-L6-v2"
    if not (model / "config.json").exists():
        raise RuntimeError(f"{model}: no model there; give MODELS=folder that holds all-MiniLM-L6-v2")
    found: dict[str, Any] = {"model": model.name, "sets": {}}
    for name in SETS:
        train, held = (
            shortened(options.data / name / f"{part}.jsonl", options.scratch / f"{name}-{part}.jsonl", most)
            for part, most in (("train", EXAMPLES // (10 if options.smoke else 1)), ("validation", HELD))
        )
        files = {"model": str(model), "train": str(train), "validation": str(held),
                 "examples": EXAMPLES // (10 if options.smoke else 1)}  # fmt: skip
        peer = files | {"batch": 16}
        sides = {
            "ours": ("ours.finetuned", files | {
                "budget": "1 epochs", "task_options": {"long_texts": "longest_first"},
                "training": {"batch_examples": 16, "evaluations": 1}}),
            "Trainer, padded to 128": ("peer.finetuned", peer | {
                "padding": "max_length", "arguments": EVALUATED}),
            "Trainer, padded to the batch": ("peer.finetuned", peer | {
                "padding": "dynamic", "arguments": EVALUATED}),
            "Trainer, tuned": ("peer.finetuned", peer | {
                "padding": "dynamic", "arguments": TUNED, "flush": True}),
        }  # fmt: skip
        print(f"  {name}")
        found["sets"][name] = compared(sides, options, "examples a second")
    return found


def shortened(source: Path, target: Path, records: int) -> Path:
    """The first records of a set, so that a window is of the asked length on every side."""
    if not source.exists():
        raise RuntimeError(f"{source}: not there; DATA is the folder of the shared sets")
    target.parent.mkdir(parents=True, exist_ok=True)
    with source.open(encoding="utf-8") as lines:
        kept = [line for line, _ in zip(lines, range(records), strict=False)]
    if not json.loads(kept[0]).keys() >= {"text", "label"}:
        raise RuntimeError(f"{source}: records have no text and label")
    target.write_text("".join(kept), encoding="utf-8")
    return target
